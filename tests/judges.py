"""Judges of result objects that know nothing of the node: dicom3tools, DCMTK and PixelMed."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path

from pydicom import Dataset, dcmread

from dicom_sr.check_content import concept
from dicom_sr.judge import WAIVED
from tests import peers

_VALIDATOR = """
import com.pixelmed.validate.DicomSRValidator;

public class Judge {
    public static void main(String[] files) throws Exception {
        DicomSRValidator validator = new DicomSRValidator();
        validator.setOptionCheckTemplateID(true);
        validator.setOptionCheckContentItemOrder(true);
        for (String file : files) {
            for (String line : validator.validate(file).split("\\n")) {
                System.out.println(file + "|" + line);
            }
        }
    }
}
"""


def dciodvfy(path: Path) -> list[str]:
    """Errors and warnings about ``path`` that are not waived."""
    said = _run([str(peers.program("dciodvfy")), "-new", str(path)])
    lines = [line for line in said.splitlines() if line.startswith(("Error", "Warning"))]
    return [line for line in lines if not any(re.search(pattern, line) for pattern in WAIVED)]


def dsrdump(path: Path) -> list[str]:
    """Errors that DCMTK's parser of structured reports finds."""
    said = _run([str(peers.program("dsrdump")), str(path)])
    return [line for line in said.splitlines() if line.startswith(("E:", "F:"))]


def pixelmed(reports: Path | Sequence[Path], work: Path) -> list[str]:
    """Errors of PixelMed's SR validator about ``reports``, group by group; it starts once for all of them.

    The validator takes one template for all measurement groups of a document, so each group is judged in a copy of its
    own. It takes a second for each, so what has the same items with the same codes as another is not judged again. Its
    style sheets need larger limits than Java gives them.
    """
    reports = [reports] if isinstance(reports, Path) else reports
    found = peers.pixelmed()
    (work / "Judge.java").write_text(_VALIDATOR)
    subprocess.run([str(found.javac), "-cp", str(found.jar), "-d", str(work), str(work / "Judge.java")], check=True)
    limits = [f"-Djdk.xml.xpath{name}Limit=0" for name in ("ExprGrp", "ExprOp", "TotalOp")]
    classpath = os.pathsep.join((str(found.jar), str(work)))
    files = [str(path) for path in _all_kinds(reports, work)]
    said = _run([str(found.java), "-Xmx2600m", "-Xss64m", *limits, "-cp", classpath, "Judge", *files], seconds=560)
    assert said.count("IOD validation complete") == len(files), said[-2000:]
    lines = [line.split("|", 1)[-1] for line in said.splitlines()]
    return [line for line in lines if line.startswith("Error") or "illegal" in line]


def _all_kinds(reports: Sequence[Path], folder: Path) -> Iterator[Path]:
    """Copies of the reports with one group each, until every kind of document and of group is there."""
    documents: set[object] = set()
    groups: set[object] = set()
    for number, report in enumerate(reports):
        whole = dcmread(report)
        where = next((n for n, item in enumerate(whole.ContentSequence) if concept(item) == "126010"), None)
        if where is None:
            yield report
            continue
        parts = whole.ContentSequence[where].ContentSequence
        whole.ContentSequence[where].ContentSequence = []
        document = _form(whole)
        for n, group in enumerate(parts):
            if document in documents and _form(group) in groups:
                continue
            documents.add(document)
            groups.add(_form(group))
            part = deepcopy(whole)
            part.ContentSequence[where].ContentSequence = [deepcopy(group)]
            path = folder / f"report{number}-group{n}.dcm"
            part.save_as(path)
            yield path


def _form(item: Dataset) -> object:
    """A content item and those below it without what they say, each kind of them once."""
    below = tuple(dict.fromkeys(_form(child) for child in item.get("ContentSequence", [])))
    said = [item.get(k) for k in ("ConceptCodeSequence", "MeasuredValueSequence")]
    units = [value[0].get("MeasurementUnitsCodeSequence", value) for value in said if value]
    coded = tuple(str(unit[0].get("CodeValue")) for unit in units)
    return item.get("RelationshipType"), item.ValueType, concept(item), item.get("GraphicType"), coded, below


def _run(command: list[str], seconds: float = 60) -> str:
    """What a judge says; its exit status says no more than that."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    return done.stdout + done.stderr
