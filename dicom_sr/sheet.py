"""What a page about a result says, whatever it is written on: the summary, the PDF, a notice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset

from dicom_sr.lettering import Colour
from dicom_sr.painter import Painter, Picture, named
from dicom_sr.words import Words
from node.domain.finding import Code, Evaluation, Findings, Mark, Measurement, Region
from node.domain.job import Provenance

MOST_PICTURES = 4


@dataclass(frozen=True)
class Block:
    """A finding and what is said of it: rows of name and value."""

    heading: str
    colour: Colour | None
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class Figure:
    """A picture with words under it; a pixel is ``aspect`` times as high as it is wide."""

    caption: str
    picture: Picture
    aspect: float


@dataclass(frozen=True, eq=False)
class Sheet:
    """A page, or more where it is long. ``facts`` are names and values, ``sentences`` stand below the table."""

    title: str
    banner: str | None
    facts: tuple[tuple[str, str], ...]
    blocks: tuple[Block, ...] = ()
    sentences: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()


def summary(
    provenance: Provenance, painter: Painter, words: Words, at: datetime, keys: Sequence[int], numbers: dict[int, int]
) -> Sheet:
    """The findings of ``painter``, all of them.

    Args:
        at: when the analysis began, in the zone of the study.
        keys: the slices to show; of more than four the first that show something new.
        numbers: how slices are called, where they have a number that a reader can look for.
    """
    findings = painter.findings
    blocks = [*_study(findings, words), *(_region(region, words) for region in findings.regions)]
    blocks += [_mark(mark, words) for mark in findings.marks]
    empty = not (findings.regions or findings.marks or findings.maps)
    nothing = [f"{words.nothing_found} {words.not_negative}"] if empty and not findings.evaluations else []
    thick = max(1, min(painter.rows, painter.columns) // 220)
    aspect = findings.volume.spacing[1] / findings.volume.spacing[2]
    figures = tuple(
        Figure(f"{words.image} {numbers[k]}" if k in numbers else "", painter.paint(k, thick), aspect)
        for k in _some(keys, painter)
    )
    return Sheet(
        title=f"AI {findings.title or provenance.model.title or provenance.model.name}",
        banner=words.banner(provenance.qualification),
        facts=(*facts(provenance, words, at), (words.procedure, findings.procedure.meaning)),
        blocks=tuple(blocks),
        sentences=(*nothing, *findings.notes),
        figures=figures,
    )


def study_fact(who: Dataset, words: Words) -> tuple[str, str]:
    """Which study: date, description and accession number, so that a page on paper finds its way back.

    Args:
        who: patient and study, from ``header.identity``; the patient is not named.
    """
    date = str(who.StudyDate)
    shown = f"{date[:4]}-{date[4:6]}-{date[6:8]}" if len(date) == 8 else date
    return words.study, " ".join(f"{shown} {who.get('StudyDescription', '')} {who.AccessionNumber}".split())


def facts(provenance: Provenance, words: Words, at: datetime) -> tuple[tuple[str, str], ...]:
    """Who made a result, and when."""
    model = provenance.model
    return (
        (words.model, f"{model.name} {model.version} (sha256 {model.digest[:12]})"),
        (words.analysed, f"{at:%Y-%m-%d %H:%M}"),
        (words.node, f"{provenance.node_name}, ainode {provenance.node_version}"),
    )


def _some(keys: Sequence[int], painter: Painter) -> list[int]:
    """At most four of ``keys``: those with the most findings on them."""
    if len(keys) <= MOST_PICTURES:
        return list(keys)
    largest = painter.area.max(axis=1, initial=1)[:, None]
    shown = (painter.area / largest).sum(axis=0)
    return sorted(sorted(keys, key=lambda k: -shown[k])[:MOST_PICTURES])


def _study(findings: Findings, words: Words) -> Iterator[Block]:
    rows = (*statements(findings.measurements, findings.evaluations, words),)
    if rows:
        yield Block(words.whole_study, None, rows)


def _region(region: Region, words: Words) -> Block:
    colour = region.colour if region.in_segmentation else None
    rows = (*statements(region.measurements, region.evaluations, words),)
    if not region.mask.any():
        rows = ((words.none_found, ""), *rows)
    return Block(region.label, colour, rows)


def _mark(mark: Mark, words: Words) -> Block:
    return Block(named(mark, words), mark.colour, (*statements(mark.measurements, mark.evaluations, words),))


def statements(
    measurements: Sequence[Measurement], evaluations: Sequence[Evaluation], words: Words
) -> Iterator[tuple[str, str]]:
    """Names and values, in words."""
    for m in measurements:
        how = f" ({m.derivation.meaning})" if m.derivation else ""
        unit = unit_of(m.unit, words)
        yield f"{m.name.meaning}{how}", f"{words.number(m.value, m.digits)} {unit}".rstrip()
    for evaluation in evaluations:
        yield evaluation.name.meaning, evaluation.value.meaning


def unit_of(unit: Code, words: Words) -> str:
    """A unit of UCUM as it is written behind a number."""
    return {"[hnsf'U]": words.hounsfield, "1": "", "{ratio}": ""}.get(unit.value, unit.value)
