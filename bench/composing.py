"""How fast a result is built, side by side in one run: the whole set by ainode, and its SEG alone by plain highdicom.

    python bench/composing.py               a CT of 275 slices with 2 and with 30 segments, medians of five
    python bench/composing.py --quick       a smoke run: 40 slices, 2 segments, one round

The set is SR, SEG and a secondary capture of every slice, with the check that each is read back and held to. highdicom
writes every frame of every segment, as its documentation has it. One run of each is thrown away first.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from highdicom.sr import CodedConcept
from ingestion.machine import Machine
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from dicom_sr.check import check
from dicom_sr.compose import compose, write
from dicom_sr.provenance import segment_algorithm
from node.domain.finding import Code, Findings, Measurement, Region
from node.domain.job import Provenance
from node.domain.mask import LabelMap, LabelMask
from node.domain.model import ModelVersion, Qualification
from node.domain.volume import Volume
from node.services.from_disk import study_of_files
from pipelines.phantom import write_series
from pipelines.phantom_anatomy import PhantomSpec, make_phantom
from pipelines.read.volume import read_volume

ROOT = Path(__file__).resolve().parents[1]
_PROVENANCE = Provenance(
    job_id="6f1b8f0e-1b5c-5c53-9a57-0f1f5d3c9a11",
    model=ModelVersion("bench", "1.0", "0" * 64, "Bench"),
    qualification=Qualification.RESEARCH,
    started_at=datetime(2026, 1, 1, tzinfo=UTC),
    node_name="BENCH",
    node_uid="2.25.1",
    node_version="0",
)
_ANATOMY = Code("123037004", "SCT", "Anatomical Structure")
_ORGAN = Code("39607008", "SCT", "Lung")
_VOLUME = Code("118565006", "SCT", "Volume")
_ML = Code("ml", "UCUM", "milliliter")


@dataclass(frozen=True, eq=False)
class Corpus:
    """Source headers, one a slice, and what was found."""

    headers: list[Dataset]
    findings: Findings


def corpus(folder: Path, slices: int, segments: int) -> Corpus:
    """A phantom of ``slices`` × 512 × 512 with as many ellipsoids as segments, each through a quarter of the slices."""
    if not folder.is_dir():
        spec = PhantomSpec(shape=(slices, 512, 512), spacing=(1.25, 0.7, 0.7), seed="bench results")
        write_series(make_phantom(spec), folder)
    paths = sorted(folder.iterdir())
    volume = read_volume(study_of_files(paths, folder).series[0])
    by_uid = {str(h.SOPInstanceUID): h for h in (dcmread(p, stop_before_pixels=True) for p in paths)}
    headers = [by_uid[source.sop_instance_uid] for source in volume.sources]
    labels = LabelMap(_labels(segments, volume.shape))
    regions = tuple(_region(number, labels.mask(number), volume) for number in range(1, segments + 1))
    return Corpus(
        headers, Findings(volume, Code("25045-6", "LN", "CT unspecified body region"), regions, title="Bench")
    )


def _labels(segments: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Ellipsoids beside each other, numbered from 1, each through a quarter of the slices."""
    labels = np.zeros(shape, np.uint8)
    slices, rows, columns = shape
    across = int(np.ceil(np.sqrt(segments)))
    radius = np.array([slices / 8, rows / across / 2.2, columns / across / 2.2])
    for number in range(segments):
        middle = np.random.default_rng(number).uniform(radius[0], slices - radius[0])
        centre = middle, (number // across + 0.5) * rows / across, (number % across + 0.5) * columns / across
        z, y, x = (((np.arange(n) - c) / r) ** 2 for n, c, r in zip(shape, centre, radius, strict=True))
        labels[z[:, None, None] + y[None, :, None] + x[None, None, :] <= 1] = number + 1
    return labels


def _region(number: int, mask: LabelMask, volume: Volume) -> Region:
    red, green, blue = (int(v) for v in np.random.default_rng(number).integers(60, 255, 3))
    millilitres = float(mask.areas.sum()) * volume.voxel_ml
    measured = (Measurement("volume_ml", _VOLUME, millilitres, _ML),)
    return Region(
        f"region_{number}", f"Region {number}", mask, _ANATOMY, _ORGAN, _ORGAN, None, (red, green, blue), measured
    )


def ainode(found: Corpus, out: Path) -> dict[str, Any]:
    """The whole set, written and checked: seconds of each step, and bytes of each kind of object."""
    seconds: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        value = call()
        seconds[name] = round(time.perf_counter() - begin, 3)
        return value

    datasets = timed("compose", lambda: compose(_PROVENANCE, found.findings, found.headers))
    results = timed("write", lambda: write(datasets, out))
    problems = timed("check", lambda: check([r.path for r in results], found.headers, found.findings))
    if problems:
        raise SystemExit(f"the check found {problems}")
    sizes: dict[str, int] = {}
    for dataset, result in zip(datasets, results, strict=True):
        sizes[dataset.Modality] = sizes.get(dataset.Modality, 0) + result.size
    return {"seconds": seconds, "total": round(sum(seconds.values()), 3), "objects": len(results), "bytes": sizes}


def highdicom(found: Corpus, out: Path) -> dict[str, Any]:
    """The SEG alone, as its documentation has it, with a frame for every slice of every segment."""
    begin = time.perf_counter()
    masks: NDArray[np.uint8] = np.stack([np.asarray(r.mask) for r in found.findings.regions], axis=-1).astype(np.uint8)
    descriptions = [
        SegmentDescription(
            number, region.label, CodedConcept(*_parts(_ANATOMY)), CodedConcept(*_parts(_ORGAN)),
            SegmentAlgorithmTypeValues.AUTOMATIC, segment_algorithm(_PROVENANCE),
        )
        for number, region in enumerate(found.findings.regions, 1)
    ]  # fmt: skip
    segmentation = Segmentation(
        found.headers, masks, SegmentationTypeValues.BINARY, descriptions, generate_uid(), 901, generate_uid(), 1,
        "bench", "bench", "1", "1", omit_empty_frames=False,
    )  # fmt: skip
    path = out / "seg.dcm"
    segmentation.save_as(path)
    return {"total": round(time.perf_counter() - begin, 3), "bytes": {"SEG": path.stat().st_size}}


def _parts(code: Code) -> tuple[str, str, str]:
    return code.value, code.scheme, code.meaning


MAKERS: dict[str, Callable[[Corpus, Path], dict[str, Any]]] = {"ainode": ainode, "highdicom": highdicom}


def measure(work: Path, *, slices: int, segments: int, repeat: int) -> dict[str, Any]:
    """Both in turn, ``repeat`` times; the run of each with the median total."""
    found = corpus(work / f"ct-{slices}", slices, segments)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in MAKERS}
    for number in range(repeat + 1):
        for name, make in MAKERS.items():
            out = work / "out"
            rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            run = make(found, out)
            if number:
                runs[name].append(run)
    return {name: sorted(of, key=lambda run: run["total"])[len(of) // 2] for name, of in runs.items()}


def main() -> None:
    """Measure, print and write."""
    options = _options()
    slices, repeat = (40, 1) if options.quick else (275, options.repeat)
    options.work.mkdir(parents=True, exist_ok=True)
    results = {}
    for segments in (2,) if options.quick else (2, 30):
        medians = results[segments] = measure(options.work, slices=slices, segments=segments, repeat=repeat)
        ours, theirs = medians["ainode"], medians["highdicom"]
        print(f"{slices} slices, {segments} segments")
        print(f"  ainode     {ours['total']:6.2f} s  the whole set: {ours['seconds']}, bytes {ours['bytes']}")
        print(f"  highdicom  {theirs['total']:6.2f} s  the SEG alone, all frames: bytes {theirs['bytes']}")
        print(
            f"  time {theirs['total'] / ours['total']:.2f} x, SEG {theirs['bytes']['SEG'] / ours['bytes']['SEG']:.2f} x"
        )
    machine = asdict(Machine.here(options.work))
    options.out.write_text(json.dumps({"machine": machine, "slices": slices, "results": results}, indent=2) + "\n")
    print(f"written to {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="rounds; odd, so that the median is one of them")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "bench-results" / "work")
    parser.add_argument("--out", type=Path, default=ROOT / ".cache" / "bench-results" / "composing.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
