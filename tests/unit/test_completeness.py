"""What headers show of completeness, and what they do not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.domain.completeness import (
    MAX_BY_PRODUCTS,
    ImageFacts,
    SeriesVerdict,
    Standing,
    judge_series,
    judge_study,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = f"{CT}.1"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
# A double oblique: a rotation about two axes, written with six decimals as scanners do.
OBLIQUE = (0.933013, 0.25, -0.258819, -0.066987, 0.866025, 0.495722)


def normal_of(orientation: Sequence[float]) -> np.ndarray[Any, Any]:
    return np.cross(orientation[:3], orientation[3:])


def series(
    count: int = 20,
    *,
    orientation: tuple[float, ...] = AXIAL,
    spacing: float = 2.5,
    start: float = -312.5,
    **facts: Any,
) -> list[ImageFacts]:
    """A stack of slices with InstanceNumbers from 1."""
    normal = normal_of(orientation)
    return [
        replace(
            ImageFacts(CT, "CT", ("ORIGINAL", "PRIMARY", "AXIAL"), acquisition_number=1, orientation=orientation),
            position=tuple(round(float(v), 6) for v in (start + k * spacing) * normal),
            instance_number=k + 1,
            **facts,
        )
        for k in range(count)
    ]


def renumbered(images: Sequence[ImageFacts]) -> list[ImageFacts]:
    """InstanceNumbers from 1 without a hole, so that geometry alone has to tell."""
    return [replace(image, instance_number=n) for n, image in enumerate(images, start=1)]


def phases(count: int, stack: Sequence[ImageFacts]) -> list[ImageFacts]:
    return renumbered([image for _ in range(count) for image in stack])


def said(verdict: SeriesVerdict, standing: Standing) -> str:
    assert verdict.standing is standing, verdict
    return verdict.reason


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, OBLIQUE])
@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_a_gapless_stack_is_complete(orientation: tuple[float, ...], modality: str) -> None:
    reason = said(judge_series(series(orientation=orientation, modality=modality)), Standing.COMPLETE)
    assert reason == "20 slices 2.50 mm apart"


def test_a_tilted_gantry_and_rounded_positions_are_no_hole() -> None:
    tilted = [
        replace(image, position=(0.0, round(0.3 * k, 2), round(1.25 * k - 100 + 0.004 * (-1) ** k, 3)))
        for k, image in enumerate(series(50))
    ]
    said(judge_series(tilted), Standing.COMPLETE)


def test_the_order_of_arrival_and_the_direction_do_not_matter() -> None:
    images = series(30)
    backwards = renumbered(images[::-1])
    said(judge_series(backwards), Standing.COMPLETE)
    random.Random(1).shuffle(backwards)
    said(judge_series(backwards), Standing.COMPLETE)


def test_a_hole_is_named_by_its_place() -> None:
    images = series(40, start=-350.0)
    del images[15]
    reason = said(judge_series(renumbered(images)), Standing.OPEN)
    assert reason == "hole at -312.5 mm (5.0 mm between slices, 2.5 mm elsewhere)"


@settings(max_examples=60, deadline=None)
@given(st.integers(5, 60), st.data(), st.sampled_from((0.5, 1.0, 3.27)), st.sampled_from((AXIAL, SAGITTAL, OBLIQUE)))
def test_any_slice_that_is_missing_inside_is_seen(
    count: int, data: st.DataObject, spacing: float, orientation: tuple[float, ...]
) -> None:
    images = series(count, spacing=spacing, orientation=orientation)
    said(judge_series(images), Standing.COMPLETE)
    del images[data.draw(st.integers(1, count - 2))]
    said(judge_series(renumbered(images)), Standing.OPEN)


def test_a_hole_in_the_smallest_stack_is_seen() -> None:
    images = series(4)
    del images[1]
    assert "hole at -310.0 mm" in said(judge_series(renumbered(images)), Standing.OPEN)


def test_two_slices_are_too_few_to_show_anything() -> None:
    assert "fewer than 3" in said(judge_series(series(2)), Standing.OPEN)
    said(judge_series(series(3)), Standing.COMPLETE)


def test_unequal_spacing_is_no_hole_but_no_evidence_either() -> None:
    images = series(20)
    images[7] = replace(images[7], position=(0.0, 0.0, -312.5 + 7 * 2.5 + 0.4))
    assert "apart, first off at" in said(judge_series(images), Standing.OPEN)


class TestWhereTheEndIsMissing:
    """Geometry alone cannot see it."""

    def test_the_first_instance_numbers_are_missing(self) -> None:
        assert said(judge_series(series(20)[4:]), Standing.OPEN) == "InstanceNumber begins at 5"

    def test_the_numbers_have_a_hole_where_the_positions_have_none(self) -> None:
        # A stack that is sent from both ends: what is missing lies beyond the last position.
        images = series(20)
        images[-1] = replace(images[-1], instance_number=24)
        assert said(judge_series(images), Standing.OPEN) == "InstanceNumber 20 is missing below 24"

    def test_the_scanner_says_how_many_images_there_are(self) -> None:
        images = series(20, images_in_acquisition=20)
        said(judge_series(images), Standing.COMPLETE)
        assert said(judge_series(images[:-1]), Standing.OPEN) == "19 of 20 images of an acquisition"

    def test_without_numbers_there_is_no_evidence(self) -> None:
        images = series(20)
        images[3] = replace(images[3], instance_number=None)
        assert said(judge_series(images), Standing.OPEN) == "1 of 20 instances have no InstanceNumber"

    def test_a_last_slice_at_which_the_numbers_end_too_is_not_seen(self) -> None:
        """The limit, written down: only the peer's count or the next revision shows it."""
        said(judge_series(series(20)[:-1]), Standing.COMPLETE)


class TestPositionsThatRepeat:
    """Phases, echoes, b-values: equally often, or something is missing."""

    def test_several_phases_are_complete(self) -> None:
        assert said(judge_series(phases(3, series(10))), Standing.COMPLETE).endswith("3 images at each")

    def test_echoes_that_are_numbered_anew_are_complete(self) -> None:
        said(judge_series([image for image in series(10, modality="MR") for _ in range(2)]), Standing.COMPLETE)

    def test_a_phase_that_has_begun_is_waited_for(self) -> None:
        images = phases(3, series(10))[:-2]
        assert said(judge_series(images), Standing.OPEN) == "2 to 3 images at a position, the fewest at -292.5 mm"

    def test_one_double_is_no_stack(self) -> None:
        images = series(10)
        doubled = renumbered([*images, images[4]])
        assert said(judge_series(doubled), Standing.OPEN) == "1 to 2 images at a position, the fewest at -312.5 mm"

    def test_numbers_that_repeat_unequally_are_no_evidence(self) -> None:
        images = series(10)
        images[-1] = replace(images[-1], instance_number=9)
        assert "more often" in said(judge_series(images), Standing.OPEN)


def test_each_orientation_is_a_stack_of_its_own() -> None:
    both = renumbered([*series(10), *series(6, orientation=SAGITTAL)])
    assert said(judge_series(both), Standing.COMPLETE).startswith("2 stacks: 10 slices")
    del both[12]
    assert "hole at" in said(judge_series(renumbered(both)), Standing.OPEN)


def test_a_radial_scan_has_no_stack() -> None:
    angles = np.linspace(0, np.pi, 12, endpoint=False)
    radial = [
        replace(image, orientation=(float(np.cos(a)), float(np.sin(a)), 0.0, 0.0, 0.0, -1.0))
        for image, a in zip(series(12), angles, strict=True)
    ]
    assert "1 slice position(s)" in said(judge_series(radial), Standing.OPEN)


def test_localizers_neither_prove_nor_prevent() -> None:
    localizers = series(2, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    said(judge_series(localizers), Standing.SILENT)
    assert judge_study({"1": series(), "2": localizers}).complete
    assert not judge_study({"2": localizers}).complete
    mixed = renumbered([*localizers, *series(10)])
    assert said(judge_series(mixed), Standing.COMPLETE).startswith("10 slices")


@pytest.mark.parametrize("lost", [{"position": None}, {"orientation": None}])
def test_an_image_without_geometry_is_no_evidence(lost: dict[str, Any]) -> None:
    images = series(10)
    images[2] = replace(images[2], **lost)
    assert said(judge_series(images), Standing.OPEN) == "1 of 10 instances have no position or orientation"


class TestEnhanced:
    """One instance holds the frames of all slices."""

    INSTANCE = ImageFacts(ENHANCED_CT, "CT", ("ORIGINAL",), instance_number=1, frames=275)

    def test_an_instance_is_complete_by_itself(self) -> None:
        assert said(judge_series([self.INSTANCE]), Standing.COMPLETE) == "1 enhanced instance(s) with 275 frames"

    def test_a_concatenation_needs_all_its_parts(self) -> None:
        parts = renumbered([replace(self.INSTANCE, in_concatenation=True, parts=3)] * 3)
        said(judge_series(parts), Standing.COMPLETE)
        assert said(judge_series(parts[:2]), Standing.OPEN) == "2 of 3 parts of a concatenation"
        unknown = replace(self.INSTANCE, in_concatenation=True)
        assert "unknown number" in said(judge_series([unknown]), Standing.OPEN)

    def test_without_number_of_frames_it_is_no_evidence(self) -> None:
        said(judge_series([replace(self.INSTANCE, frames=None)]), Standing.OPEN)


class TestStudies:
    """What series say together."""

    REPORT = ImageFacts("1.2.840.10008.5.1.4.1.1.88.67", "SR", instance_number=1)
    PAGE = ImageFacts(CAPTURE, "CT", ("DERIVED", "SECONDARY"), instance_number=1)

    def test_reports_and_captures_beside_a_scan_do_not_prevent(self) -> None:
        verdict = judge_study({"1": series(), "2": [self.REPORT], "3": [self.PAGE]})
        assert verdict.complete
        assert verdict.reason == "1 series geometrically complete"
        assert verdict.series["3"] == "1 secondary capture(s)"

    def test_reports_alone_prove_nothing(self) -> None:
        assert not judge_study({"2": [self.REPORT], "3": [self.PAGE]}).complete
        assert not judge_study({}).complete

    def test_many_captures_are_contents_of_their_own(self) -> None:
        pages = renumbered([self.PAGE] * (MAX_BY_PRODUCTS + 1))
        assert not judge_study({"1": series(), "3": pages}).complete

    @pytest.mark.parametrize("modality", ["CR", "DX", "US", "XA", "MG", ""])
    def test_images_without_geometry_wait_even_beside_a_scan(self, modality: str) -> None:
        image = ImageFacts("1.2.840.10008.5.1.4.1.1.1", modality, instance_number=1)
        assert not judge_study({"1": [image]}).complete
        assert not judge_study({"1": series(), "2": [image]}).complete

    def test_one_series_with_a_hole_holds_the_study(self) -> None:
        broken = series(10)
        del broken[4]
        verdict = judge_study({"1.1": series(), "1.2": renumbered(broken)})
        assert not verdict.complete
        assert verdict.reason.startswith("series 1.2: hole at -302.5 mm")
