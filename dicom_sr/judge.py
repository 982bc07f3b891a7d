"""A second opinion on result files: dciodvfy of dicom3tools, where it is installed.

It knows the standard's modules and value representations better than any rule of ours. What it says of sound objects,
and of what the source brings along, does not count.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from pydicom import dcmread

from dicom_sr.header import IDENTITY
from dicom_sr.segmentation import LABEL_MAP_STORAGE

# What dciodvfy says of sound results, and why it does not count.
WAIVED = {
    r"DeviceUID.*not present in standard": "IHE AIR asks for it in ContributingEquipmentSequence; the tool is older",
    r"(FrameOfReferenceUID|Image(Position|Orientation)Patient|PositionReferenceIndicator|SliceThickness).*"
    r"not present in standard": "a secondary capture may carry its plane since PS3.3 2019; the tool is older",
    r"Content(Date|Time)\(0008,00.3\)> - Attribute is not present in standard": "presentation states may carry it",
    r"CodingScheme(Designator|UID).*Unrecognized defined term": "private schemes are declared, not known to the tool",
    r"(ImageType|FrameType).*Unrecognized defined term = <QUANTITY>": "a term of parametric maps since 2018",
    r"Laterality.*only permitted to be empty when actually unknown": "the source does not name its body part",
    r"Leading zeroes in embedded numeric component": "UIDs of the source have them; ours are held to a rule of our own",
    r"needed to build DICOMDIR": "the source leaves the element empty, and identity is never made up",
}
# A patient and a study are passed on as the source says them, right or wrong; so is where the images lie.
_OF_THE_SOURCE = re.compile(
    "|".join(rf"{keyword}\(" for keyword in (*IDENTITY, "BodyPartExamined", "PatientPosition", "Laterality"))
)
_SECONDS = 60  # for one object
# That it is shown at once, a multiple of eight: 2,000 frames take it twenty seconds, 200 less than a tenth of one.
_FRAMES = 200


@cache
def program() -> str | None:
    """Where dciodvfy is, None where it is not installed."""
    return shutil.which("dciodvfy")


def judged(paths: Sequence[Path]) -> list[str]:
    """What dciodvfy calls an error in some files, once for all items of a sequence; nothing where it is not installed.

    A problem reads ``dciodvfy: element: what is wrong``, without the value. Labelmaps are of 2024, and unknown to it.
    """
    found = program()
    if found is None:
        return []
    paths = [path for path in paths if dcmread(path, specific_tags=["SOPClassUID"]).SOPClassUID != LABEL_MAP_STORAGE]
    with ThreadPoolExecutor(2) as pool:
        said = pool.map(lambda path: [problem for part in _excerpts(path) for problem in _errors(found, part)], paths)
        return list(dict.fromkeys(problem for problems in said for problem in problems))


def _excerpts(path: Path) -> Iterator[Path]:
    """``path``; of a binary segmentation of many frames one file after the other, with some of them and all else."""
    dataset = dcmread(path)
    frames, pixels = dataset.get("PerFrameFunctionalGroupsSequence", []), dataset.get("PixelData", b"")
    if dataset.get("SegmentationType") != "BINARY" or len(frames) <= _FRAMES:
        yield path
        return
    bits = dataset.Rows * dataset.Columns
    too_many = int(dataset.get("NumberOfFrames") or 0) - len(frames)  # what does not fit together is left so
    with TemporaryDirectory(dir=path.parent) as folder:
        for first in range(0, len(frames), _FRAMES):
            some = frames[first : first + _FRAMES]
            start, length = first * bits // 8, -(-len(some) * bits // 8)
            dataset.PerFrameFunctionalGroupsSequence, dataset.NumberOfFrames = some, len(some) + too_many
            last = first + _FRAMES >= len(frames)
            dataset.PixelData = pixels[start:] if last else pixels[start : start + length + length % 2]
            dataset.save_as(excerpt := Path(folder) / path.name)
            yield excerpt


def _errors(found: str, path: Path) -> list[str]:
    try:
        run = subprocess.run(  # noqa: S603  (an installed program, and files that the node wrote)
            [found, "-new", str(path)], capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []  # a second opinion that cannot be had
    lines = (run.stdout + run.stderr).splitlines()
    return [f"dciodvfy: {_without_values(line)}" for line in lines if line.startswith("Error") and _counts(line)]


def _counts(line: str) -> bool:
    return not _OF_THE_SOURCE.search(line) and not any(re.search(pattern, line) for pattern in WAIVED)


def _without_values(line: str) -> str:
    """``line`` without what it quotes from the object, which may be the patient's, and without numbers of items."""
    line = re.sub(r"(?<=\))\[\d+\]", "", line.removeprefix("Error - "))
    return re.sub(r"= <[^>]*(>|$)|value <[^>]*(>|$)|\"[^\"]*\"", "…", line)
