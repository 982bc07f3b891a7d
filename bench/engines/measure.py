"""The two parts: a bundle through the node and through MONAI in turns; jobs of images one by one and together."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from engines import side
from engines.bundle import image_bundle, nifti, volume_bundle
from node.domain.job import JobInput, Provenance
from node.domain.model import Qualification
from node.offline import study_of
from node.workers.local import Device, LocalEngine
from pipelines.phantom import write_series
from pipelines.phantom_anatomy import PhantomSpec, make_phantom
from pipelines.weights import read_manifest

_SIDES = ("ainode", "monai")
_CLOSE = 1e-4
_LONG = timedelta(seconds=900)

Tell = Callable[[str], None]


class SideError(Exception):
    """A side did not end; the text is the end of what it said."""


def once(which: str, version: Path, given: Path, out: Path) -> dict[str, float]:
    """One study by one side: seconds and processor seconds of the study, and seconds of the whole process.

    Raises:
        SideError: it failed.
    """
    begun = time.perf_counter()
    command = [sys.executable, "-W", "ignore", str(Path(side.__file__)), which, *map(str, (version, given, out))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    whole = time.perf_counter() - begun
    said = {
        line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.startswith(("start ", "end "))
    }
    if done.returncode or set(said) != {"start", "end"}:
        raise SideError((done.stdout + done.stderr)[-800:])
    (start, cpu_start), (end, cpu_end) = (map(float, said[word]) for word in ("start", "end"))
    return {"seconds": end - start, "cpu_seconds": cpu_end - cpu_start, "process_seconds": whole}


def bundles(work: Path, *, repeat: int, quick: bool, tell: Tell) -> dict[str, Any]:
    """One bundle, ``repeat`` times by each side, in turns."""
    shape = (40, 96, 96) if quick else (80, 224, 224)
    spec = PhantomSpec(shape=shape, spacing=(200.0 / shape[0], 358.4 / shape[1], 358.4 / shape[2]))
    write_series(make_phantom(spec), work / "series")
    nifti(work / "series", work / "image.nii")
    version = volume_bundle(work / "version")
    given = {"ainode": work / "series", "monai": work / "image.nii"}
    runs: dict[str, list[dict[str, float]]] = {which: [] for which in _SIDES}
    for number in range(repeat):
        for which in _SIDES if number % 2 == 0 else _SIDES[::-1]:
            found = once(which, version, given[which], work / f"{which}.npy")
            runs[which].append(found)
            tell(f"{number + 1}/{repeat} bundle: {which} {found['seconds']:.2f} s, {found['cpu_seconds']:.2f} s of CPU")
    ours, theirs = (np.load(work / f"{which}.npy") for which in _SIDES)
    difference = float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else float("inf")
    medians = {
        which: {key: round(statistics.median(run[key] for run in of), 3) for key in of[0]} for which, of in runs.items()
    }
    ratios = [monai["seconds"] / ainode["seconds"] for ainode, monai in zip(*runs.values(), strict=True)]
    return {
        "study": f"a phantom of {shape[0]} × {shape[1]} × {shape[2]} voxels",
        "repeat": repeat,
        "medians": medians,
        "faster": round(medians["monai"]["seconds"] / medians["ainode"]["seconds"], 3),
        "faster_by_round": [round(ratio, 3) for ratio in ratios],
        "faster_by_cpu": round(medians["monai"]["cpu_seconds"] / medians["ainode"]["cpu_seconds"], 3),
        "largest_difference": difference,
        "equal": difference <= _CLOSE,
        "runs": runs,
    }


def batches(work: Path, *, repeat: int, quick: bool, tell: Tell) -> dict[str, Any]:
    """Studies of one image through a job process, one by one and together, in turns."""
    number, most = (8, 4) if quick else (64, 8)
    spec = PhantomSpec(shape=(number, 256, 256), spacing=(300.0 / number, 1.4, 1.4))
    slices = write_series(make_phantom(spec), work / "slices")
    version = image_bundle(work / "images")
    engine = LocalEngine(Device(work / "device.lock"), log_level="warning", log_format="text")
    runs: dict[str, list[dict[str, float]]] = {"one by one": [], "together": []}
    ways: dict[str, Callable[[Sequence[JobInput]], list[Any]]] = {
        "one by one": lambda jobs: [engine.run(job, timeout=_LONG, beat=lambda: None) for job in jobs],
        "together": lambda jobs: [
            output
            for n in range(0, len(jobs), most)
            for output in engine.run_batch(jobs[n : n + most], timeout=_LONG, beat=lambda: None)
        ],
    }
    answers: dict[str, list[Any]] = {}
    try:
        engine.run_batch(_jobs(version, slices[:2], work / "warm"), timeout=_LONG, beat=lambda: None)
        for turn in range(repeat):
            for way in ways if turn % 2 == 0 else reversed(ways):
                jobs = _jobs(version, slices, work / f"{way} {turn}")
                begun, cpu = time.perf_counter(), _cpu_seconds(engine.pid)
                outputs = ways[way](jobs)
                seconds, cpu = time.perf_counter() - begun, _cpu_seconds(engine.pid) - cpu
                if any(output is None or output.outcome.value != "succeeded" for output in outputs):
                    raise SideError(str(outputs))
                answers[way] = [output.findings for output in outputs]
                network = sum(output.timings["infer"] for output in outputs)
                runs[way].append({"seconds": seconds, "network_seconds": network, "cpu_seconds": cpu})
                told = f"{seconds:.2f} s, of it the network {network:.2f} s; {cpu:.2f} s of CPU"
                tell(f"{turn + 1}/{repeat} images: {way} {told}")
    finally:
        engine.close()
    medians = {way: {key: round(statistics.median(r[key] for r in of), 3) for key in of[0]} for way, of in runs.items()}
    single, together = medians["one by one"], medians["together"]
    return {
        "studies": number,
        "batch": most,
        "repeat": repeat,
        "medians": medians,
        "faster": round(single["seconds"] / together["seconds"], 3),
        "faster_by_cpu": round(single["cpu_seconds"] / together["cpu_seconds"], 3),
        "network_faster": round(single["network_seconds"] / together["network_seconds"], 3),
        "same_findings": answers["one by one"] == answers["together"],
        "runs": runs,
    }


def _cpu_seconds(pid: int | None) -> float:
    """Of a process so far, proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _jobs(version: Path, slices: Sequence[Path], out: Path) -> list[JobInput]:
    provenance = Provenance(
        "6f1c1d1e-0000-5000-8000-000000000001",
        read_manifest(version).model,
        Qualification.RESEARCH,
        datetime.now(UTC),
        "bench",
        "2.25.1",
        "0",
    )
    jobs = []
    for n, path in enumerate(slices):
        folder = out / f"{n:03d}"
        folder.mkdir(parents=True)
        (folder / "study").mkdir()
        (folder / "study" / path.name).symlink_to(path)
        named = replace(provenance, job_id=f"6f1c1d1e-0000-5000-8000-{n:012d}")
        jobs.append(JobInput(named, study_of(folder / "study"), "cpu", folder, version))
    return jobs


def bundles_markdown(part: dict[str, Any]) -> str:
    """This part of the result file as part of a document."""
    rows = [
        f"| {title} | {m['seconds']:.2f} | {m['cpu_seconds']:.2f} | {m['process_seconds']:.2f} |"
        for title, m in (
            ("ainode, from DICOM", part["medians"]["ainode"]),
            ("MONAI, from NIfTI", part["medians"]["monai"]),
        )
    ]
    return "\n".join(
        [
            f"### One bundle: {part['study']}",
            "",
            f"A 3-D U-Net, sliding windows, on the CPU. Medians of {part['repeat']} rounds, each a fresh process.",
            "",
            "| | study, s | its CPU, s | process, s |",
            "| --- | ---: | ---: | ---: |",
            *rows,
            "",
            f"ainode is {part['faster']:.2f} × as fast by the clock, {part['faster_by_cpu']:.2f} × by processor time; "
            f"rounds {', '.join(f'{ratio:.2f}' for ratio in part['faster_by_round'])}. The largest difference of any "
            f"probability is {part['largest_difference']:.1e}.",
            "",
        ]
    )


def batches_markdown(part: dict[str, Any]) -> str:
    """This part of the result file as part of a document."""
    single, together = part["medians"]["one by one"], part["medians"]["together"]
    return "\n".join(
        [
            f"### Images: {part['studies']} studies of one slice, a DenseNet121 of 128 × 128",
            "",
            f"One job process, on the CPU. Medians of {part['repeat']} rounds in turns.",
            "",
            "| | all, s | its CPU, s | network, s | studies/s |",
            "| --- | ---: | ---: | ---: | ---: |",
            *(
                f"| {way} | {m['seconds']:.2f} | {m['cpu_seconds']:.2f} | {m['network_seconds']:.2f} | "
                f"{part['studies'] / m['seconds']:.1f} |"
                for way, m in (("one by one", single), (f"{part['batch']} together", together))
            ),
            "",
            f"Together is {part['faster']:.2f} × as fast, {part['faster_by_cpu']:.2f} × by processor time, its network "
            f"{part['network_faster']:.2f} ×.{'' if part['same_findings'] else ' The findings are NOT the same.'}",
            "",
        ]
    )
