"""Findings as DICOM can say them: texts put right where that changes nothing, and everything else refused by name.

A pipeline gives whatever its author thought of. What cannot be encoded is found here, before anything is composed, and
the error names the finding and what would mend it; an object that a viewer stumbles over would name neither.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

import numpy as np
from pydicom.sr.codedict import codes as dictionary

from dicom_sr.outline import outlines
from dicom_sr.units import is_unit
from node.domain.errors import InvalidInput
from node.domain.finding import Code, Evaluation, Findings, Map, Mark, Measurement, Region

RETIRED_SCHEMES = ("SRT", "SNM3", "99SDM")
PROCEDURES = frozenset(code.value for code in dictionary.cid100.concepts.values())

_LONG_STRING = 64  # characters of VR LO (PS3.5 6.2)
_SHORT_STRING = 16  # of VR SH
_UNSEEN = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_COLOURS = 255

Found = TypeVar("Found", Region, Mark)


def vetted(findings: Findings) -> Findings:
    """``findings`` with texts as VR LO holds them; a second time it changes nothing.

    White space and control characters become one space, a backslash, which parts values, a slash. A finding without a
    label has its key for one; a note without words is left out.

    Raises:
        InvalidInput: a code, number, unit, place, colour or array that cannot be written; names the finding.
    """
    _unique(findings)
    _codes("findings.procedure", [findings.procedure])
    if findings.procedure.value not in PROCEDURES:
        raise InvalidInput(
            "findings.procedure",
            f"{findings.procedure.value!r} is not in CID 100",
            "Give the imaging procedure, for instance (25045-6, LN, CT unspecified body region)",
        )
    _said("findings", findings.measurements, findings.evaluations)
    if not (all(map(math.isfinite, findings.window)) and findings.window[1] > 0):
        raise InvalidInput("findings.window", f"is {findings.window}", "Give (centre, width), the width above 0")
    notes = (_UNSEEN.sub(" ", note).strip() for note in findings.notes)
    return replace(
        findings,
        title=_text(findings.title),
        notes=tuple(note for note in notes if note),
        regions=tuple(_region(region, findings) for region in findings.regions),
        marks=tuple(_mark(mark, findings) for mark in findings.marks),
        maps=tuple(_map(found, findings) for found in findings.maps),
    )


def _text(text: str) -> str:
    return _UNSEEN.sub(" ", text).strip().replace("\\", "/")


def _unique(findings: Findings) -> None:
    for found in ((*findings.regions, *findings.marks), findings.maps):
        keys = [each.key for each in found]  # type: ignore[attr-defined]
        for key in keys:
            if keys.count(key) > 1:
                raise InvalidInput(key, "is the key of two findings", "Give each a key of its own")


def _region(region: Region, findings: Findings) -> Region:
    if region.mask.shape != findings.volume.shape or region.mask.dtype != np.bool_:
        raise InvalidInput(
            f"{region.key}.mask",
            f"is {region.mask.dtype} of the shape {region.mask.shape}",
            f"Give bool on the grid of the volume, {findings.volume.shape}",
        )
    _codes(f"{region.key}.category", [region.category])
    return _finding(region)


def _mark(mark: Mark, findings: Findings) -> Mark:
    outlines(mark, findings.volume.shape)
    _codes(f"{mark.key}.category", [mark.category])
    if mark.confidence is not None and not 0 <= mark.confidence <= 1:
        raise InvalidInput(f"{mark.key}.confidence", f"is {mark.confidence}", "Give a share from 0 to 1, or None")
    return _finding(mark)


def _finding(found: Found) -> Found:
    for name in ("type", "site", "laterality"):
        _codes(f"{found.key}.{name}", [getattr(found, name)])
    if len(found.colour) != 3 or not all(0 <= level <= _COLOURS for level in found.colour):
        raise InvalidInput(f"{found.key}.colour", f"is {found.colour}", "Give red, green and blue from 0 to 255")
    _said(found.key, found.measurements, found.evaluations)
    return replace(found, label=_text(found.label) or _text(found.key))


def _map(found: Map, findings: Findings) -> Map:
    if found.values.shape != findings.volume.shape:
        problem = f"has the shape {found.values.shape}"
        raise InvalidInput(f"{found.key}.values", problem, "Give the map on the grid of the volume")
    if not np.isfinite((float(found.values.min()), float(found.values.max()))).all():  # NaN and infinity pass both
        problem = "holds what is no finite number"
        raise InvalidInput(f"{found.key}.values", problem, "Write 0 where nothing is known")
    _codes(f"{found.key}.quantity", [found.quantity])
    _unit(f"{found.key}.unit", found.unit)
    return replace(found, label=_text(found.label) or _text(found.key))


def _said(key: str, measurements: Iterable[Measurement], evaluations: Iterable[Evaluation]) -> None:
    for measurement in measurements:
        where = f"{key}.{measurement.key}"
        if not math.isfinite(measurement.value):
            raise InvalidInput(where, f"is {measurement.value}", "Leave out what could not be measured")
        _codes(where, (measurement.name, measurement.method, measurement.derivation))
        _unit(f"{where}.unit", measurement.unit)
    for evaluation in evaluations:
        _codes(f"{key}.evaluations", (evaluation.name, evaluation.value))


def _unit(where: str, unit: Code) -> None:
    _codes(where, [unit])
    if unit.scheme != "UCUM" or not is_unit(unit.value):
        raise InvalidInput(
            where, f"{unit.value!r} of {unit.scheme} is no unit of UCUM", "Write its code, for instance mm[Hg] for mmHg"
        )


def _codes(where: str, codes: Iterable[Code | None]) -> None:
    for code in filter(None, codes):
        for problem, fix in _wrong(code):
            raise InvalidInput(where, f"the code {(code.value, code.scheme, code.meaning)} {problem}", fix)


def _wrong(code: Code) -> Iterator[tuple[str, str]]:
    """What PS3.3 8.8 does not allow."""
    parts = (code.value, code.scheme, code.meaning)
    if not all(part and part == _text(part) for part in parts):
        yield "has a part that is empty, or holds a backslash or white space around it", "Write all three plainly"
    if code.scheme in RETIRED_SCHEMES:
        yield "is of a retired scheme", "Write the code of SNOMED CT, scheme SCT"
    if len(code.scheme) > _SHORT_STRING:
        yield "has a scheme of more than 16 characters", "Shorten the designator"
    if len(code.meaning) > _LONG_STRING:
        yield "has a meaning of more than 64 characters", "Shorten the meaning"
