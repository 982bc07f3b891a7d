"""A scan large enough for pictures with words, in any orientation, with a ball, a box and a point planted in it."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ComputedRadiographyImageStorage, CTImageStorage, EnhancedCTImageStorage

from dicom_sr.compose import compose
from node.domain.finding import Findings, Map, Mark, Measurement, Region, Shape
from node.domain.profile import FULL, Profile
from node.domain.volume import SliceSource, Volume
from tests import builders_results as build
from tests.builders_results import Code

SLICES, ROWS, COLUMNS = 9, 200, 180
BALL, RADIUS_MM = (4.0, 120.0, 90.0), 14.0
BOX = ((2, 90, 60), (5, 110, 75))  # the first and the last voxel in it
POINT = (6, 140, 30)
RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 60, 255)
PROBABILITY, ONE = Code("PROBABILITY", "99AINODE", "Probability"), Code("1", "UCUM", "no units")

_c, _s = np.cos(0.35), np.sin(0.35)
ORIENTATIONS = {
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    "oblique": ((_c, _s, 0.0), (-_s * _c, _c * _c, _s)),
    "reversed": ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
}
SPACINGS = {"isotropic": (1.0, 1.0, 1.0), "anisotropic": (4.0, 0.6, 1.1)}


@dataclass(frozen=True, eq=False)
class Scan:
    """Headers, what was found, and the truth: the ball's centre in patient coordinates, mm, LPS."""

    headers: list[Dataset]
    findings: Findings
    centre: NDArray[np.float64]

    def captures(self, profile: Profile = FULL) -> list[Dataset]:
        """The secondary captures of a whole result."""
        results = compose(build.PROVENANCE, self.findings, self.headers, profile)
        return [result for result in results if result.Modality == "OT"]

    def with_findings(self, **parts: object) -> Scan:
        return replace(self, findings=replace(self.findings, **parts))  # type: ignore[arg-type]


def scan(orientation: str = "axial", spacing: str = "isotropic", *, multiframe: bool = False) -> Scan:
    """With a region that is outlined, a box and a point; nothing that is written has their colours."""
    place = np.eye(4)
    row, column = (np.array(v) for v in ORIENTATIONS[orientation])
    z, y, x = SPACINGS[spacing]
    place[:3, 0], place[:3, 1], place[:3, 2] = np.cross(row, column) * z, column * y, row * x
    place[:3, 3] = (-20.0, 35.0, -410.0)
    index = np.stack(np.meshgrid(*map(np.arange, (SLICES, ROWS, COLUMNS)), indexing="ij"), axis=-1).astype(float)
    centre = place[:3, :3] @ BALL + place[:3, 3]
    ball = np.linalg.norm(index @ place[:3, :3].T + place[:3, 3] - centre, axis=-1) <= RADIUS_MM
    headers = _enhanced(place) if multiframe else [_header(place, k) for k in range(SLICES)]
    frames = [SLICES - k for k in range(SLICES)] if multiframe else [None] * SLICES
    sources = tuple(
        SliceSource(str(h.SOPInstanceUID), str(h.SOPClassUID), f) for h, f in zip(headers, frames, strict=True)
    )
    volume = Volume(np.full(ball.shape, 40, np.float32), place, sources, build.SERIES_UID, build.FRAME_OF_REFERENCE_UID)
    return Scan(headers, _findings(volume, ball), centre)


def radiograph(size: tuple[int, int] = (2200, 1900)) -> Scan:
    """A single image without a place in the patient, (rows, columns)."""
    header = _header(np.eye(4), 0)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "SliceThickness"):
        del header[keyword]
    header.SOPClassUID, header.Modality = ComputedRadiographyImageStorage, "CR"
    header.Rows, header.Columns = size
    source = SliceSource(str(header.SOPInstanceUID), str(header.SOPClassUID))
    volume = Volume(np.zeros((1, *size), np.float32), np.eye(4), (source,), build.SERIES_UID, "", "", in_patient=False)
    corners = np.array([(0, 599.5, 399.5), (0, 1200.5, 800.5)])
    mark = Mark("opacity", "Opacity", Shape.BOX, corners, build.LUNG, build.LUNG, confidence=0.87)
    findings = replace(_findings(volume, np.zeros((1, *size), bool)), regions=(), marks=(mark,))
    return Scan([header], findings, np.zeros(3))


def heat(volume: Volume, peak: tuple[int, int, int] = (4, 60, 60)) -> Map:
    """A probability that is 1 at ``peak`` and falls to 0.04 five pixels away, within one slice."""
    _, rows, columns = (np.arange(n) for n in volume.shape)
    values = np.zeros(volume.shape, np.float32)
    values[peak[0]] = 1 / (1 + (rows[:, None] - peak[1]) ** 2 + (columns[None] - peak[2]) ** 2)
    return Map("heat", "Probability of a nodule", values, PROBABILITY, ONE, (0.1, 1.0))


def region(number: int, mask: NDArray[np.bool_]) -> Region:
    """One of many, with a volume."""
    volume = Measurement("volume_ml", Code("118565006", "SCT", "Volume"), 10.0 + number, Code("ml", "UCUM", "ml"))
    return build.region(f"r{number}", f"Region {number}", mask, measurements=(volume,), colour=(8 * number, 200, 90))


def _findings(volume: Volume, ball: NDArray[np.bool_]) -> Findings:
    low, high = np.array(BOX[0]) - 0.5, np.array(BOX[1]) + 0.5
    marks = (
        Mark("box", "", Shape.BOX, np.array([low, high]), build.LUNG, build.LUNG, colour=GREEN),
        Mark("point", "", Shape.POINT, np.array([POINT], float), build.LUNG, build.LUNG, colour=BLUE),
    )
    region = build.region("ball", "Ball", ball, colour=RED)
    return Findings(
        volume,
        Code("25045-6", "LN", "CT unspecified body region"),
        (region,),
        title="Ball",
        marks=marks,
        notes=("Planted.",),
    )


def _header(place: NDArray[np.float64], k: int) -> Dataset:
    header = deepcopy(build.case().headers[0])
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, f"{build.SERIES_UID}.{k + 1}"
    header.Rows, header.Columns = ROWS, COLUMNS
    header.ImagePositionPatient = _ds(place[:3, 3] + k * place[:3, 0])
    y, x = (float(np.linalg.norm(place[:3, n])) for n in (1, 2))
    header.ImageOrientationPatient = _ds([*(place[:3, 2] / x), *(place[:3, 1] / y)])
    header.PixelSpacing, header.SliceThickness = _ds([y, x]), "1"
    return header


def _enhanced(place: NDArray[np.float64]) -> list[Dataset]:
    """One object whose frames run against the volume."""
    header = _header(place, 0)
    header.SOPClassUID, header.NumberOfFrames = EnhancedCTImageStorage, SLICES
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = header.PixelSpacing, header.SliceThickness
    orientation.ImageOrientationPatient = header.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    header.SharedFunctionalGroupsSequence = [shared]
    header.PerFrameFunctionalGroupsSequence = list(_positions(place))
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        del header[keyword]
    return [header] * SLICES


def _positions(place: NDArray[np.float64]) -> Iterator[Dataset]:
    for k in reversed(range(SLICES)):
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = _ds(place[:3, 3] + k * place[:3, 0])
        group.PlanePositionSequence = [position]
        yield group


def _ds(values: object) -> list[str]:
    return [f"{v:.8g}" for v in values]  # type: ignore[attr-defined]
