"""One study through ``lung_density_ct`` on several devices, side by side in one run.

    python bench/devices.py --devices cpu cuda:0 [--study DIR] [--repeat 3]

Prints the seconds of each stage (median), the ratio to the first device, and the largest difference of any measurement
between the devices. The first run on each device warms it up and is not counted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from node.domain.study import InstanceFile, SeriesContent
from pipelines.lung_density_ct.pipeline import LungDensityCT
from pipelines.phantom import write_series
from pipelines.phantom_anatomy import PhantomSpec, make_phantom
from pipelines.read.volume import read_volume


def series_of(folder: Path) -> SeriesContent:
    """A folder that holds one series, as the node would hand it over."""
    import hashlib

    from pydicom import dcmread

    from node.domain.part10 import HEAD_LIMIT, split

    files = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        meta = split(content[:HEAD_LIMIT])
        digest = hashlib.sha256(content[meta.offset :]).hexdigest()
        files.append(
            InstanceFile(meta.sop_instance_uid, meta.sop_class_uid, meta.transfer_syntax_uid, digest, path.absolute())
        )
    uid = str(dcmread(files[0].path, specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID)
    return SeriesContent(uid, tuple(files))


def run(volume: Any, pipeline: LungDensityCT) -> tuple[dict[str, float], dict[str, float]]:
    """One analysis: seconds by stage, and every measurement by region and key."""
    marks: list[tuple[str, float]] = []
    findings = pipeline.analyse(volume, lambda name: marks.append((name, time.perf_counter())))
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    marks.append(("", time.perf_counter()))
    seconds = {name: after - start for (name, start), (_, after) in itertools.pairwise(marks)}
    values = {f"{r.key}.{m.key}": m.value for r in findings.regions for m in r.measurements}
    return seconds, values


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", nargs="+", default=["cpu"])
    parser.add_argument("--study", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.study
        if folder is None:
            folder = Path(scratch)
            write_series(make_phantom(PhantomSpec(shape=(275, 512, 512), spacing=(1.1, 0.7, 0.7))), folder)
        start = time.perf_counter()
        volume = read_volume(series_of(folder))
        print(f"read {volume.shape} in {time.perf_counter() - start:.2f} s (digests included)")
    measured: dict[str, tuple[dict[str, float], dict[str, float]]] = {}
    for device in arguments.devices:
        pipeline = LungDensityCT()
        pipeline.load(device)
        runs = [run(volume, pipeline) for _ in range(arguments.repeat + 1)][1:]
        stages = {name: statistics.median(seconds[name] for seconds, _ in runs) for name in runs[0][0]}
        measured[device] = stages, runs[-1][1]
    first, reference = measured[arguments.devices[0]]
    for device, (stages, values) in measured.items():
        ratio = sum(first.values()) / sum(stages.values())
        worst = max(abs(values[key] - reference[key]) for key in reference)
        said = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in stages.items())
        print(f"{device}: {said}; {ratio:.2f} × {arguments.devices[0]}; largest difference {worst:.3g}")
    print(json.dumps({device: {"seconds": s, "values": v} for device, (s, v) in measured.items()}))


if __name__ == "__main__":
    main()
