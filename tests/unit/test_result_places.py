"""What was planted is hit: every kind of finding, on every geometry of source, read back from what the objects say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from dicom_sr.check import check
from dicom_sr.check_content import concept, content, groups
from node.domain.finding import Mark, Shape
from tests import builders_results as build

PIXEL = 0.01  # coordinates are single precision
GEOMETRIES = [
    *((orientation, frames) for orientation in build.ORIENTATIONS for frames in ("single-frame", "multi-frame")),
    ("radiograph", "single-frame"),
    ("angiogram", "multi-frame"),
]


@dataclass(frozen=True, eq=False)
class Written:
    """A case, and its results as they were read back."""

    case: build.Case
    paths: list[Path]
    results: list[Dataset]

    def of(self, modality: str, keyword: str = "SOPInstanceUID") -> Dataset:
        """The result of that modality that has that element."""
        return next(r for r in self.results if r.Modality == modality and keyword in r)


def _case(orientation: str, frames: str) -> build.Case:
    if orientation == "radiograph":
        return build.flat()
    if orientation == "angiogram":
        return build.flat(build.SLICES)
    return build.case(orientation, multiframe=frames == "multi-frame")


@pytest.fixture(scope="module", params=GEOMETRIES, ids=["-".join(geometry) for geometry in GEOMETRIES])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    case = build.with_everything(_case(*request.param))
    paths = [file.path for file in case.written(tmp_path_factory.mktemp("results"))]
    return Written(case, paths, [dcmread(path) for path in paths])


def test_results_pass_their_own_check(written: Written) -> None:
    assert check(written.paths, written.case.headers, written.case.findings) == []


def _index(written: Written, header: Dataset, frame: int | None, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 2) pixels (row, column) of an image as (n, 3) indices of the volume, by way of the patient."""
    volume = written.case.findings.volume
    if not volume.in_patient:
        return np.column_stack([np.full(len(pixels), (frame or 1) - 1), pixels])
    group, shared = header, header
    if frame is not None:
        group = header.PerFrameFunctionalGroupsSequence[frame - 1].PlanePositionSequence[0]
        shared = header.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
        header = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    cosines = np.array(shared.ImageOrientationPatient, float)
    spacing = np.array(header.PixelSpacing, float)
    position = np.array(group.ImagePositionPatient, float)
    patient = position + pixels[:, :1] * spacing[0] * cosines[3:] + pixels[:, 1:] * spacing[1] * cosines[:3]
    return (patient - volume.affine[:3, 3]) @ np.linalg.inv(volume.affine[:3, :3]).T


def test_the_masks_come_back_voxel_for_voxel(written: Written) -> None:
    segmentation, volume = written.of("SEG"), written.case.findings.volume
    found = {n: np.zeros(volume.shape, bool) for n in (1, 2)}
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    for frame, group in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        if volume.in_patient:
            own = Dataset()
            own.PlanePositionSequence = group.PlanePositionSequence
            of_frame = Dataset()
            of_frame.PerFrameFunctionalGroupsSequence = [own]
            of_frame.SharedFunctionalGroupsSequence = segmentation.SharedFunctionalGroupsSequence
            where = _index(written, of_frame, 1, np.argwhere(frame).astype(float))
        else:
            source = group.DerivationImageSequence[0].SourceImageSequence[0]
            where = _index(written, segmentation, source.get("ReferencedFrameNumber"), np.argwhere(frame).astype(float))
        assert np.abs(where - np.rint(where)).max() < PIXEL
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[number][tuple(np.rint(where).astype(int).T)] = True
    _, ball, half = written.case.findings.regions
    assert np.array_equal(found[1], ball.mask)
    assert np.array_equal(found[2], half.mask)


def test_another_library_reads_the_same_volume(written: Written) -> None:
    if not written.case.findings.volume.in_patient:
        pytest.skip("has no volume")
    read = highdicom.seg.segread(written.paths[0]).get_volume(segment_numbers=[1])
    ball = np.asarray(written.case.findings.regions[1].mask)
    patient = np.argwhere(read.array[..., 0]) @ read.affine[:3, :3].T + read.affine[:3, 3]
    expected = written.case.findings.volume.to_patient(np.argwhere(ball).astype(float))
    assert len(patient) == len(expected)
    assert np.abs(np.sort(patient, axis=0) - np.sort(expected, axis=0)).max() < PIXEL
    assert np.linalg.norm(patient.mean(axis=0) - written.case.centre) < 1.0


def _scoords(written: Written, label: str) -> Iterator[NDArray[np.float64]]:
    """Every SCOORD of what is tracked by that name, as indices of the volume."""
    headers = {header.SOPInstanceUID: header for header in written.case.headers}
    for group in groups(written.of("SR")):
        names = [item.TextValue for item in group.ContentSequence if concept(item) == "112039"]
        for item in content(group) if label in names else ():
            if item.ValueType == "SCOORD":
                reference = item.ContentSequence[0].ReferencedSOPSequence[0]
                points = np.array(item.GraphicData).reshape(-1, 2)[:, ::-1] - 0.5
                header = headers[reference.ReferencedSOPInstanceUID]
                yield _index(written, header, reference.get("ReferencedFrameNumber"), points)


def test_the_rectangle_of_a_region_lies_around_it(written: Written) -> None:
    ball = np.asarray(written.case.findings.regions[1].mask)
    (rectangle,) = _scoords(written, "Ball")
    k = round(rectangle[0, 0])
    pixels = np.argwhere(ball[k])
    assert np.allclose(rectangle.min(axis=0)[1:], pixels.min(axis=0) - 0.5, atol=PIXEL)
    assert np.allclose(rectangle.max(axis=0)[1:], pixels.max(axis=0) + 0.5, atol=PIXEL)
    assert np.allclose(rectangle[:, 0], k, atol=PIXEL)


@pytest.mark.parametrize("key", ["spot", "axis", "ring"])
def test_points_and_lines_come_back(key: str, written: Written) -> None:
    mark = _mark(written, key)
    (points,) = _scoords(written, mark.label)
    expected = np.concatenate([mark.points, mark.points[:1]]) if mark.shape is Shape.POLYGON else mark.points
    assert np.abs(points - expected).max() < PIXEL


@pytest.mark.parametrize("key", ["plate", "crate"])
def test_a_box_comes_back_on_each_of_its_slices(key: str, written: Written) -> None:
    mark, shape = _mark(written, key), written.case.findings.volume.shape
    first, *others = _scoords(written, mark.label)
    low, high = mark.points.min(axis=0), mark.points.max(axis=0)
    inside = [k for k in range(shape[0]) if low[0] <= k <= high[0]]
    assert round(first[0, 0]) == inside[len(inside) // 2]
    assert [round(rectangle[0, 0]) for rectangle in others] == (inside if len(inside) > 1 else [])
    for rectangle in (first, *others):
        assert np.allclose(rectangle.min(axis=0)[1:], low[1:], atol=PIXEL)
        assert np.allclose(rectangle.max(axis=0)[1:], high[1:], atol=PIXEL)


def _mark(written: Written, key: str) -> Mark:
    return next(mark for mark in written.case.findings.marks if mark.key == key)


def test_the_values_of_a_map_come_back_on_their_planes(written: Written) -> None:
    volume = written.case.findings.volume
    if not volume.in_patient:
        assert not any("FloatPixelData" in result for result in written.results)
        return
    dataset = written.of("OT", "FloatPixelData")
    values = np.frombuffer(dataset.FloatPixelData, np.float32).reshape(volume.shape)
    assert np.array_equal(values, written.case.findings.maps[0].values)
    origins = [
        group.PlanePositionSequence[0].ImagePositionPatient for group in dataset.PerFrameFunctionalGroupsSequence
    ]
    expected = volume.to_patient(np.array([(k, 0, 0) for k in range(len(origins))], float))
    assert np.abs(np.array(origins, float) - expected).max() < 1e-4
