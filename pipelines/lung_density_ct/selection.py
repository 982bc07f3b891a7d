"""Which series of a study is measured: rules that exclude, then an order of preference.

Excluded are: no CT, localizers, what makes no volume, coronal and sagittal planes, secondary reformats and projections,
and stacks too short to hold a lung. Among the others `PREFERENCES` decide, the first that differs; densitometry wants
thin slices (Gevenois et al., Am J Respir Crit Care Med 1995;152:653) and a kernel without edge enhancement
(Gallardo-Estrella et al., Eur Radiol 2016;26:478), and contrast medium raises lung density.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from node.domain.errors import Refused
from node.domain.study import StudyContent
from pipelines.contract import Selection
from pipelines.read.select import SeriesSummary, summarise

FEWEST_SLICES = 20
SHORTEST_MM = 100.0
WIDEST_SPACING_MM = 10.0
MOST_OFF_AXIAL_DEGREES = 45.0
ENOUGH_COVERAGE_MM = 250.0  # holds the lungs of nearly every adult; more is no merit before thinness

_CHEST = ("CHEST", "THORAX", "LUNG")
_SECONDARY = ("SECONDARY",)
_PROJECTIONS = ("MIP", "MINIP", "MNIP", "MIN IP", "MAX IP", "MIN_IP", "MAX_IP", "PROJECTION IMAGE", "AVERAGE", "MPR")


@dataclass(frozen=True)
class Preference:
    """A reason to prefer one series: the lower ``rank``, the better; ``words`` say what is worse about the other."""

    rank: Callable[[SeriesSummary], float]
    words: Callable[[SeriesSummary], str]


def slab_mm(summary: SeriesSummary) -> float:
    """How coarse the series is along its normal: the thicker of slice and spacing."""
    return round(max(summary.slice_thickness_mm, summary.stack.spacing_mm), 2)


PREFERENCES = (
    Preference(lambda s: "DERIVED" in s.image_type, lambda s: "its images are derived"),
    Preference(
        lambda s: 1 if not s.body_part else 0 if any(part in s.body_part for part in _CHEST) else 2,
        lambda s: f"BodyPartExamined is {s.body_part or 'empty'}",
    ),
    Preference(
        lambda s: -min(round(s.stack.coverage_mm / 25), ENOUGH_COVERAGE_MM / 25),
        lambda s: f"it covers {s.stack.coverage_mm:.0f} mm only",
    ),
    Preference(
        lambda s: 0 if slab_mm(s) <= 1.5 else 1 if slab_mm(s) <= 3 else 2,
        lambda s: f"its slices are {slab_mm(s):g} mm thick",
    ),
    Preference(lambda s: is_sharp(s.kernel), lambda s: f"its kernel {s.kernel} is sharp"),
    Preference(lambda s: s.contrast, lambda s: "it is contrast-enhanced"),
    Preference(slab_mm, lambda s: f"its slices are {slab_mm(s):g} mm thick"),
    Preference(lambda s: -round(s.stack.coverage_mm), lambda s: f"it covers {s.stack.coverage_mm:.0f} mm only"),
    Preference(lambda s: s.series_number, lambda s: "it is as suitable, but its SeriesNumber is higher"),
)


def select(study: StudyContent) -> Selection:
    """Choose the series to measure.

    Raises:
        Refused: none will do. The code is that of the only series, or ``no-suitable-series``; the reason names every
            series with what is wrong with it.
    """
    suitable: list[SeriesSummary] = []
    refused: list[tuple[str, Refused]] = []
    for series in sorted(study.series, key=lambda s: s.series_uid):
        try:
            summary = summarise(series)
            _check(summary)
            suitable.append(summary)
        except Refused as refusal:
            refused.append((series.series_uid, refusal))
    if not suitable:
        reasons = "; ".join(f"series {uid}: {refusal.reason}" for uid, refusal in refused) or "it has no series"
        code = refused[0][1].code if len(refused) == 1 else "no-suitable-series"
        raise Refused(code, f"no axial chest CT to measure: {reasons}")
    suitable.sort(key=lambda s: (*(p.rank(s) for p in PREFERENCES), s.content.series_uid))
    best = suitable[0]
    return Selection(
        series=best.content,
        reason=f"axial CT, {len(best.stack.frames)} slices, {best.stack.spacing_mm:g} mm apart, "
        f"{slab_mm(best):g} mm thick, kernel {best.kernel or '(not named)'}"
        + (f"; {best.localizers} localizer image(s) of the series left out" if best.localizers else ""),
        not_taken=(
            *((other.content.series_uid, _why_not(other, best)) for other in suitable[1:]),
            *((uid, refusal.reason) for uid, refusal in refused),
        ),
    )


def is_sharp(kernel: str) -> bool:
    """Whether a ConvolutionKernel is known to enhance edges; unknown names count as smooth.

    Siemens numbers kernels by sharpness (B30f … B80f, Br40, Bl57, I70f), Canon names FC30–39 bone and FC50 and above
    lung, GE and others use words, Philips single letters of which D, E and L are sharp.
    """
    name = kernel.upper().strip()
    if match := re.match(r"FC(\d\d)", name):
        return 30 <= int(match[1]) < 40 or int(match[1]) >= 50
    if match := re.match(r"[A-Z]{1,2}(\d\d)", name):
        return int(match[1]) >= 50
    return name in ("D", "E", "L", "YC", "YD", "YE") or any(word in name for word in ("LUNG", "BONE", "EDGE", "SHARP"))


def _check(summary: SeriesSummary) -> None:
    slices, covered = len(summary.stack.frames), summary.stack.coverage_mm
    if summary.off_axial_degrees > MOST_OFF_AXIAL_DEGREES:
        raise Refused("not-axial", f"its planes are {summary.off_axial_degrees:.0f}° off the axial plane")
    if slices < FEWEST_SLICES:
        raise Refused("too-few-slices", f"{slices} slices; at least {FEWEST_SLICES} are needed")
    if covered < SHORTEST_MM:
        raise Refused("too-few-slices", f"it covers {covered:.0f} mm; at least {SHORTEST_MM:.0f} mm are needed")
    if summary.stack.spacing_mm > WIDEST_SPACING_MM:
        raise Refused("too-few-slices", f"its slices lie {summary.stack.spacing_mm:g} mm apart")
    odd = [value for value in summary.image_type if value in _SECONDARY or value in _PROJECTIONS]
    if odd:
        raise Refused("secondary", f"a reformat or projection: ImageType {'/'.join(summary.image_type)}")


def _why_not(other: SeriesSummary, best: SeriesSummary) -> str:
    for preference in PREFERENCES:
        if preference.rank(other) != preference.rank(best):
            return f"less suitable than series {best.content.series_uid}: {preference.words(other)}"
    return f"as suitable as series {best.content.series_uid}, which has the lower SeriesInstanceUID"
