"""Which series of a study a bundle reads: the rules of its side file, one for each input."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.domain.errors import Refused
from node.domain.study import SeriesContent, StudyContent
from pipelines.bundle.sidefile import SeriesRule
from pipelines.contract import Selection

_AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
_LAST = 1 << 31


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A series by the header of one of its instances, or an image by its own; a multi-frame one counts its frames."""

    content: SeriesContent
    header: Dataset
    slices: int

    def text(self, *keywords: str) -> str:
        values = (self.header.get(keyword) for keyword in keywords)
        return " ".join(_text(value) for value in values if value)

    @property
    def thickness_mm(self) -> float:
        return float(self.header.get("SliceThickness") or 0)

    def number(self, keyword: str) -> int:
        number = self.header.get(keyword)
        return _LAST if number is None else int(number)


def select(study: StudyContent, rules: Sequence[SeriesRule], *, planar: bool = False) -> Selection:
    """Choose one series for each rule, or one image; none is taken twice.

    Among several that fit, an original comes before a derived one, then the series of more slices, the thinner, the
    lower SeriesNumber and the lower UID. Of images, one for presentation comes before one for processing, then an
    original, then the lower SeriesNumber, InstanceNumber and UID.

    Raises:
        Refused: a rule finds none; the reason names every series with what speaks against it.
    """
    candidates = [each for series in study.series if series.instances for each in _candidates(series, planar=planar)]
    rank, what = (_image_rank, "image") if planar else (_rank, "series")
    chosen: list[_Candidate] = []
    reasons: dict[str, str] = {}
    for number, rule in enumerate(rules, start=1):
        fits: list[_Candidate] = []
        for candidate in candidates:
            problem = _against(candidate, rule, planar=planar)
            if problem is None and candidate not in chosen:
                fits.append(candidate)
            elif problem is not None:
                reasons.setdefault(candidate.content.series_uid, problem)
        if not fits:
            told = "; ".join(f"series {uid}: {reason}" for uid, reason in sorted(reasons.items())) or "it has no series"
            which = f" for input {number} of {len(rules)}" if len(rules) > 1 else ""
            raise Refused("no-suitable-series", f"no {what}{which}: {told}")
        chosen.append(min(fits, key=rank))
        for other in fits:
            if other is not chosen[-1]:
                reasons.setdefault(other.content.series_uid, f"less suitable than {chosen[-1].content.series_uid}")
    taken = {candidate.content.series_uid for candidate in chosen}
    first, *more = chosen
    images = f", of {len(candidates)} image(s) of the study" if planar else ""
    return Selection(
        series=first.content,
        reason=", ".join(f"{c.text('Modality')} of {c.slices} {'frame' if planar else 'slice'}s" for c in chosen)
        + images,
        not_taken=tuple(sorted((uid, reason) for uid, reason in reasons.items() if uid not in taken)),
        more=tuple(candidate.content for candidate in more),
        planar=planar,
    )


def _candidates(series: SeriesContent, *, planar: bool) -> Iterator[_Candidate]:
    ordered = sorted(series.instances, key=lambda instance: instance.sop_instance_uid)
    for instance in ordered if planar else ordered[:1]:
        header = dcmread(instance.path, stop_before_pixels=True)
        content = SeriesContent(series.series_uid, (instance,)) if planar else series
        yield _Candidate(content, header, len(content.instances) * int(header.get("NumberOfFrames") or 1))


def _rank(candidate: _Candidate) -> tuple[bool, int, float, int, str]:
    derived = "DERIVED" in candidate.text("ImageType").upper()
    number = candidate.number("SeriesNumber")
    return derived, -candidate.slices, candidate.thickness_mm, number, candidate.content.series_uid


def _image_rank(candidate: _Candidate) -> tuple[bool, bool, int, int, str]:
    for_processing = "PROCESSING" in candidate.text("PresentationIntentType").upper()
    derived = "DERIVED" in candidate.text("ImageType").upper()
    numbers = candidate.number("SeriesNumber"), candidate.number("InstanceNumber")
    return for_processing, derived, *numbers, candidate.content.instances[0].sop_instance_uid


def _against(candidate: _Candidate, rule: SeriesRule, *, planar: bool) -> str | None:
    """What speaks against a series, or an image; None when nothing does."""
    modality = candidate.text("Modality")
    if modality not in rule.modality:
        return f"Modality is {modality or '(none)'}, not {' or '.join(rule.modality)}"
    if "LOCALIZER" in candidate.text("ImageType").upper():
        return "a localizer"
    if candidate.slices < rule.min_slices and not planar:
        return f"{candidate.slices} slices; at least {rule.min_slices} are needed"
    if rule.max_thickness_mm is not None and candidate.thickness_mm > rule.max_thickness_mm:
        return f"its slices are {candidate.thickness_mm:g} mm thick; at most {rule.max_thickness_mm:g} are wanted"
    return next((problem for check in _CHECKS if (problem := check(candidate, rule))), None)


def _view(candidate: _Candidate, rule: SeriesRule) -> str | None:
    view = candidate.text("ViewPosition")
    if rule.view and not any(re.fullmatch(pattern, view, re.IGNORECASE) for pattern in rule.view):
        return f"ViewPosition is {view or '(none)'}"
    return None


def _body_part(candidate: _Candidate, rule: SeriesRule) -> str | None:
    part = candidate.text("BodyPartExamined")
    said = candidate.text("BodyPartExamined", "ProtocolName", "SeriesDescription", "StudyDescription")
    if rule.body_part and part and not _any(rule.body_part, said):
        return f"BodyPartExamined is {part}, and no description fits"
    return None


def _description(candidate: _Candidate, rule: SeriesRule) -> str | None:
    said = candidate.text("SeriesDescription", "ProtocolName", "SequenceName", "ScanningSequence")
    if rule.description and not _any(rule.description, said):
        return "its description is another"
    if _any(rule.exclude, f"{said} {candidate.text('ImageType')}"):
        return "its description or ImageType is excluded"
    return None


def _contrast(candidate: _Candidate, rule: SeriesRule) -> str | None:
    enhanced = bool(candidate.header.get("ContrastBolusAgent") or candidate.header.get("ContrastBolusAgentSequence"))
    if rule.contrast is not None and enhanced != rule.contrast:
        return f"it is {'' if enhanced else 'not '}contrast-enhanced"
    return None


def _orientation(candidate: _Candidate, rule: SeriesRule) -> str | None:
    cosines = _image_orientation(candidate.header)
    if rule.orientation is None or cosines is None:
        return None
    normal = np.abs(np.cross(cosines[:3], cosines[3:]))
    if int(normal.argmax()) != _AXES[rule.orientation]:
        return f"its planes are not {rule.orientation}"
    return None


_CHECKS: tuple[Callable[[_Candidate, SeriesRule], str | None], ...] = (
    _view,
    _body_part,
    _description,
    _contrast,
    _orientation,
)


def _image_orientation(header: Dataset) -> np.ndarray | None:
    places = [header]
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (header.get(groups) or ())[:1]:
            places += group.get("PlaneOrientationSequence") or ()
    found = next((place.ImageOrientationPatient for place in places if place.get("ImageOrientationPatient")), None)
    return None if found is None or len(found) != 6 else np.asarray(found, np.float64)


def _any(patterns: Sequence[str], text: str) -> bool:
    return any(re.search(pattern, text, re.IGNORECASE) for pattern in patterns)


def _text(value: object) -> str:
    return " ".join(map(str, value)) if not isinstance(value, str) and hasattr(value, "__iter__") else str(value)
