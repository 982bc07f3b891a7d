"""One study with a finding of every kind in it: a ball of air in a block, as images, headers and Findings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from config.profiles import BUILT_IN
from dicom_sr.compose import compose, write
from node.domain.finding import Code, Evaluation, Findings, Map, Mark, Measurement, Shape
from node.domain.profile import Profile
from node.domain.volume import SliceSource, Volume
from tests import builders_results as build

SLICES, ROWS, COLUMNS = 24, 256, 256
SPACING = (2.5, 1.0, 1.0)  # OHIF 3.13 swaps the two in-plane spacings when it hydrates: pixels are square here
ORIGIN = (-128.0, -120.0, -410.0)
CENTRE = (10.0, 116.0, 148.0)  # slice, row, column
RADIUS_MM = 20.0
STUDY_UID, SERIES_UID, FRAME_OF_REFERENCE_UID = (f"1.2.826.0.1.3680043.10.1443.9.{n}" for n in (1, 2, 3))
LESION = Code("52988006", "SCT", "Lesion")
_MM = Code("mm", "UCUM", "millimeter")
_DIAMETER = Code("81827009", "SCT", "Diameter")
_PROBABILITY = Code("PROB", "99AINODE", "Probability of a lesion")


@dataclass(frozen=True, eq=False)
class Gallery:
    """Headers with pixels, findings, and the ball (slices, rows, columns)."""

    headers: list[Dataset]
    findings: Findings
    ball: NDArray[np.bool_]

    def written(self, sources: Path, results: Path, profile: Profile = BUILT_IN["ohif"]) -> list[Path]:
        """Write the images and their results; the paths of all."""
        build.save_sources(self.headers, sources)
        results.mkdir()
        made = write(compose(build.PROVENANCE, self.findings, self.headers, profile), results)
        return [*sorted(sources.iterdir()), *(result.path for result in made)]


def gallery(spacing: tuple[float, float, float] = SPACING) -> Gallery:
    """A region, a point, lines, an outline, a flat and a deep box, a map, and statements about the study."""
    index = np.stack(np.meshgrid(*map(np.arange, (SLICES, ROWS, COLUMNS)), indexing="ij"), axis=-1)
    ball = np.linalg.norm((index - CENTRE) * spacing, axis=-1) <= RADIUS_MM
    rng = np.random.default_rng(1)
    voxels = (np.where(ball, -850.0, 40.0) + rng.integers(-20, 20, ball.shape)).astype(np.float32)
    headers = [_header(k, voxels[k], spacing) for k in range(SLICES)]
    affine = np.diag((*spacing, 1.0))[[2, 1, 0, 3]]
    affine[:3, 3] = ORIGIN
    sources = tuple(SliceSource(str(h.SOPInstanceUID), str(h.SOPClassUID)) for h in headers)
    volume = Volume(voxels, affine, sources, SERIES_UID, FRAME_OF_REFERENCE_UID)
    return Gallery(headers, _findings(volume, ball, spacing), ball)


def _findings(volume: Volume, ball: NDArray[np.bool_], spacing: tuple[float, float, float]) -> Findings:
    k, row, column = CENTRE
    distance = np.linalg.norm(
        (np.stack(np.meshgrid(*map(np.arange, ball.shape), indexing="ij"), axis=-1) - CENTRE) * spacing, axis=-1
    )
    # Above a half inside of the ball, and nowhere else.
    probability = np.clip(1 - distance / (2 * RADIUS_MM), 0, 1).astype(np.float32)
    return Findings(
        volume=volume,
        procedure=Code("25045-6", "LN", "CT unspecified body region"),
        regions=(build.region("ball", "Ball", ball, colour=(40, 170, 230)),),
        marks=(
            _mark("point", Shape.POINT, [(k - 2, row, column)]),
            _mark("line", Shape.POLYLINE, [(k + 1, row, column - 20), (k + 1, row, column + 20)], diameter=40.0),
            _mark(
                "path",
                Shape.POLYLINE,
                [(k + 4, row - 20, column), (k + 4, row, column - 20), (k + 4, row + 20, column)],
            ),
            _mark("edge", Shape.POLYLINE, [(k + 5, row - 20, column), (k + 5, row + 20, column)]),
            _mark("outline", Shape.POLYGON, [(k + 2, 98, 130), (k + 2, 98, 166), (k + 2, 134, 166), (k + 2, 134, 130)]),
            _mark("box", Shape.BOX, [(k + 3 - 0.5, 97.5, 129.5), (k + 3 + 0.5, 134.5, 166.5)]),
            _mark("deep", Shape.BOX, [(k - 8.5, 95.5, 127.5), (k + 6.5, 136.5, 168.5)]),
        ),
        maps=(Map("probability", "Probability", probability, _PROBABILITY, Code("1", "UCUM", "no units")),),
        evaluations=(Evaluation(Code("ROUND", "99AINODE", "Roundness"), Code("373066001", "SCT", "Yes")),),
        measurements=(
            Measurement(
                "count", Code("COUNT", "99AINODE", "Number of balls"), 1.0, Code("1", "UCUM", "no units"), digits=0
            ),
        ),
        window=(-400.0, 1200.0),
        title="Gallery",
        notes=("The ball was planted.",),
    )


def _mark(key: str, shape: Shape, points: list[tuple[float, float, float]], *, diameter: float | None = None) -> Mark:
    measured = () if diameter is None else (Measurement("diameter_mm", _DIAMETER, diameter, _MM),)
    return Mark(
        key,
        key.capitalize(),
        shape,
        np.array(points, np.float64),
        LESION,
        build.LUNG,
        confidence=0.87,
        measurements=measured,
    )


def _header(k: int, pixels: NDArray[np.float32], spacing: tuple[float, float, float]) -> Dataset:
    ds = build._common(f"9.{k + 1}", CTImageStorage)
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = STUDY_UID, SERIES_UID, FRAME_OF_REFERENCE_UID
    ds.InstanceNumber, ds.AcquisitionNumber, ds.PatientOrientation = SLICES - k, 1, ""
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.ImagePositionPatient = [ORIGIN[0], ORIGIN[1], ORIGIN[2] + k * spacing[0]]
    ds.ImageOrientationPatient, ds.PixelSpacing, ds.SliceThickness = [1, 0, 0, 0, 1, 0], list(spacing[1:]), spacing[0]
    ds.Rows, ds.Columns = ROWS, COLUMNS
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType, ds.KVP = 1, 0, "HU", 120
    ds.WindowCenter, ds.WindowWidth = -400, 1200
    ds.PixelData = pixels.astype("<i2").tobytes()
    return ds
