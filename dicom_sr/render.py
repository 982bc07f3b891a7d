"""Results for a person at a terminal or in a browser: the SR as text and HTML, an overlay as PNG."""

from __future__ import annotations

import html as markup
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO

from PIL import Image
from pydicom.dataset import Dataset

from dicom_sr import codes
from dicom_sr.check_content import concept, groups, tracking_uid

_TRACKING_ID, _FINDING, _SITE = "112039", "121071", "363698007"
_CONTEXT = {_FINDING, _SITE}  # the heading says it
_UNITS = {"[hnsf'U]": "HU", "1": ""}
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#1b2733}"
    "h1{font-size:1.5rem}h2{font-size:1.1rem;margin-bottom:.2rem}table{border-collapse:collapse;width:100%}"
    "td{padding:.2rem .5rem;border-bottom:1px solid #dde3e8}td+td{text-align:right;font-variant-numeric:tabular-nums}"
    ".research{background:#fff3cd;padding:.5rem .8rem;border-left:4px solid #d39e00}.source{color:#5b6b7a}"
)


@dataclass
class _Section:
    """What the report says of one region: its name, and rows of (what, value)."""

    heading: str
    rows: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Report:
    title: str
    context: list[tuple[str, str]]
    sections: list[_Section]
    statements: list[str]


def text(sr: Dataset) -> str:
    """The report as plain text: a heading, a block per region, the statements."""
    report = _read(sr)
    lines = [report.title, "=" * len(report.title)]
    lines += [f"{name}: {value}" for name, value in report.context]
    for section in report.sections:
        width = max((len(name) for name, _ in section.rows), default=0)
        lines += ["", section.heading, *(f"  {name:<{width}}  {value}" for name, value in section.rows)]
    return "\n".join([*lines, "", *report.statements, ""])


def html(sr: Dataset) -> str:
    """The report as one self-contained HTML page."""
    report = _read(sr)
    escape = markup.escape

    def table(rows: list[tuple[str, str]]) -> str:
        body = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
        return f"<table>{body}</table>"

    statements = "".join(f'<p class="research">{escape(statement)}</p>' for statement in report.statements)
    sections = "".join(f"<h2>{escape(section.heading)}</h2>{table(section.rows)}" for section in report.sections)
    context = "<br>".join(f"{escape(name)}: {escape(value)}" for name, value in report.context)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(report.title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(report.title)}</h1>{statements}{sections}"
        f'<p class="source">{context}</p></html>\n'
    )


def overlay_png(sc: Dataset) -> bytes:
    """A secondary capture as PNG."""
    picture = BytesIO()
    Image.frombytes("RGB", (sc.Columns, sc.Rows), sc.PixelData[: sc.Rows * sc.Columns * 3]).save(picture, "PNG")
    return picture.getvalue()


def _read(sr: Dataset) -> _Report:
    """The report as headings and rows; groups with one Tracking UID are one section."""
    sections: dict[str | None, _Section] = {}
    for group in groups(sr):
        items = {concept(item): item for item in group.ContentSequence}
        section = sections.setdefault(tracking_uid(group), _Section(str(items[_TRACKING_ID].TextValue)))
        section.rows += _rows(group)
    said = [item for item in sr.ContentSequence if concept(item) == codes.QUALITATIVE_EVALUATIONS.value]
    statements = [
        str(item.TextValue) if item.ValueType == "TEXT" else ": ".join(_row(item))
        for container in said
        for item in container.ContentSequence
    ]
    versions = sr.SoftwareVersions if isinstance(sr.SoftwareVersions, str) else ", ".join(sr.SoftwareVersions)
    context = [
        ("Analysed", f"{_date(sr.ContentDate)} {_time(sr.ContentTime)}"),
        ("Software", versions),
        ("Status", f"{sr.ContentQualification}, {sr.CompletionFlag}, {sr.VerificationFlag}"),
    ]
    return _Report(str(sr.SeriesDescription), context, list(sections.values()), statements)


def _rows(group: Dataset) -> Iterator[tuple[str, str]]:
    for item in group.ContentSequence:
        if item.ValueType == "NUM" or (item.ValueType == "CODE" and concept(item) not in _CONTEXT):
            yield _row(item)


def _row(item: Dataset) -> tuple[str, str]:
    """Concept name and value of a NUM or CODE item; how a number was derived is part of its name."""
    name = str(item.ConceptNameCodeSequence[0].CodeMeaning)
    if item.ValueType == "CODE":
        return name, str(item.ConceptCodeSequence[0].CodeMeaning)
    how = [child.ConceptCodeSequence[0].CodeMeaning for child in item.get("ContentSequence", [])]
    measured = item.MeasuredValueSequence[0]
    unit = str(measured.MeasurementUnitsCodeSequence[0].CodeValue)
    value = f"{float(measured.NumericValue):.10g} {_UNITS.get(unit, unit)}".rstrip()
    return (f"{name} ({', '.join(how)})" if how else name), value


def _date(value: object) -> str:
    digits = str(value)
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}"


def _time(value: object) -> str:
    digits = str(value)
    return f"{digits[:2]}:{digits[2:4]}:{digits[4:6]}"
