"""A small CT series with a known ball in it, as headers, Volume and Findings: the input of ``dicom_sr``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    XRayAngiographicImageStorage,
)

from dicom_sr.compose import compose, write
from node.domain.finding import Code, Evaluation, Findings, Map, Mark, Measurement, Region, Shape
from node.domain.job import Provenance, ResultFile
from node.domain.mask import Mask, areas
from node.domain.model import ModelVersion, Qualification
from node.domain.profile import FULL, Profile
from node.domain.volume import SliceSource, Volume

SLICES, ROWS, COLUMNS = 12, 48, 40
SPACING = (2.5, 0.8, 0.7)  # slices, rows, columns, mm
RADIUS_MM = 8.0

_ROOT = "1.2.826.0.1.3680043.10.1443"
STUDY_UID, SERIES_UID, FRAME_OF_REFERENCE_UID = f"{_ROOT}.1", f"{_ROOT}.2", f"{_ROOT}.3"

_c, _s = np.cos(0.35), np.sin(0.35)
# Row and column cosines (PS3.3 C.7.6.2.1.1). Reversed: the patient lies feet first, prone, and the stack runs down.
ORIENTATIONS = {
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "oblique": ((_c, _s, 0.0), (-_s * _c, _c * _c, _s)),
    "reversed": ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    "anisotropic": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
}

PROVENANCE = Provenance(
    job_id="0d2e5d5e-9c7c-5a55-8a5e-3f6a3f0b7d10",
    model=ModelVersion("ball_ct", "1.2.3", "c0ffee" * 10 + "abcd", "Ball"),
    qualification=Qualification.RESEARCH,
    started_at=datetime(2026, 3, 4, 22, 30, 15, tzinfo=UTC),
    node_name="AINODE",
    node_uid="2.25.329800735698586629295641978511506172918",
    node_version="0.1.0",
)

LUNG = Code("39607008", "SCT", "Lung")
_ANATOMY = Code("123037004", "SCT", "Anatomical Structure")
_LEFT = Code("7771000", "SCT", "Left")
_BOTH = Code("51440002", "SCT", "Right and left")
_ML = Code("ml", "UCUM", "milliliter")
_VOLUME = Code("118565006", "SCT", "Volume")
_ONE = Code("1", "UCUM", "no units")
_FINDING = Code("49755003", "SCT", "Morphologically Altered Structure")
LENGTH = Measurement("length_mm", Code("410668003", "SCT", "Length"), 12.84, Code("mm", "UCUM", "millimeter"))
BALL = (5.0, 21.0, 24.0)  # index of its centre
_PRIVATE = Code("SHARE", "99AINODE", "Share of the whole")


@dataclass(frozen=True, eq=False)
class Case:
    """A series, what a model said of it, and the truth: the ball's centre in patient coordinates, mm, LPS."""

    headers: list[Dataset]
    findings: Findings
    centre: NDArray[np.float64]

    def results(self, provenance: Provenance = PROVENANCE, profile: Profile = FULL) -> list[Dataset]:
        return compose(provenance, self.findings, self.headers, profile)

    def written(self, folder: Path, provenance: Provenance = PROVENANCE, profile: Profile = FULL) -> list[ResultFile]:
        folder.mkdir(exist_ok=True)
        return write(self.results(provenance, profile), folder)

    def with_regions(self, *regions: Region) -> Case:
        return replace(self, findings=replace(self.findings, regions=regions))


def affine(orientation: str) -> NDArray[np.float64]:
    """Of the volume: (slice, row, column) to mm, slices along cross(row cosines, column cosines)."""
    row, column = (np.array(v) for v in ORIENTATIONS[orientation])
    spacing = (4.0, 0.5, 1.25) if orientation == "anisotropic" else SPACING
    matrix = np.eye(4)
    matrix[:3, 0] = np.cross(row, column) * spacing[0]
    matrix[:3, 1] = column * spacing[1]
    matrix[:3, 2] = row * spacing[2]
    matrix[:3, 3] = (-20.0, 35.0, -410.0)
    return matrix


def case(orientation: str = "axial", *, multiframe: bool = False, **elements: object) -> Case:
    """A series of ``SLICES`` slices; ``elements`` replace those of every header, None removes one."""
    place = affine(orientation)
    index = np.stack(np.meshgrid(*map(np.arange, (SLICES, ROWS, COLUMNS)), indexing="ij"), axis=-1).astype(float)
    patient = index @ place[:3, :3].T + place[:3, 3]
    centre = place[:3, :3] @ BALL + place[:3, 3]
    ball = np.linalg.norm(patient - centre, axis=-1) <= RADIUS_MM
    voxels = np.where(ball, -850.0, 40.0).astype(np.float32)
    headers = _enhanced(place) if multiframe else _singles(place)
    for header in {id(h): h for h in headers}.values():
        for keyword, value in elements.items():
            if value is None:
                del header[keyword]
            else:
                setattr(header, keyword, value)
    frames = _frame_order() if multiframe else [None] * SLICES
    sources = tuple(
        SliceSource(str(h.SOPInstanceUID), str(h.SOPClassUID), frame) for h, frame in zip(headers, frames, strict=True)
    )
    volume = Volume(voxels, place, sources, SERIES_UID, FRAME_OF_REFERENCE_UID)
    return Case(headers, _findings(volume, ball), centre)


def flat(frames: int = 1) -> Case:
    """Images that have no place in the patient: a radiograph, or several frames of an angiogram."""
    index = np.stack(np.meshgrid(*map(np.arange, (frames, ROWS, COLUMNS)), indexing="ij"), axis=-1).astype(float)
    disc = np.linalg.norm((index - BALL)[..., 1:], axis=-1) <= 9
    class_uid = DigitalXRayImageStorageForPresentation if frames == 1 else XRayAngiographicImageStorage
    header = _common("1", class_uid)
    header.Modality, header.InstanceNumber = ("DX", 1) if frames == 1 else ("XA", 1)
    for keyword in ("FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition"):
        del header[keyword]
    header.ImagerPixelSpacing = ["0.2", "0.2"]
    if frames > 1:
        header.NumberOfFrames = frames
    sources = tuple(
        SliceSource(str(header.SOPInstanceUID), class_uid, None if frames == 1 else k + 1) for k in range(frames)
    )
    voxels = np.where(disc, -850.0, 40.0).astype(np.float32)
    volume = Volume(voxels, np.eye(4), sources, SERIES_UID, "", unit="1", in_patient=False)
    return Case([header] * frames, _findings(volume, disc), np.zeros(3))


def _findings(volume: Volume, ball: NDArray[np.bool_]) -> Findings:
    half = ball & (np.arange(COLUMNS) < 25)
    regions = (
        region("all", "Whole ball", ball, in_segmentation=False, laterality=_BOTH),
        region("ball", "Ball", ball, laterality=_LEFT),
        region("half", "Half ball", half, type=Code("HALF", "99AINODE", "Half of a ball")),
    )
    return Findings(
        volume=volume,
        procedure=Code("25045-6", "LN", "CT unspecified body region"),
        regions=regions,
        evaluations=(Evaluation(Code("ROUND", "99AINODE", "Roundness"), Code("373066001", "SCT", "Yes")),),
        window=(-400.0, 1200.0),
        title="Ball",
        notes=("The ball was planted.",),
    )


def region(key: str, label: str, mask: Mask, **other: object) -> Region:
    """A region of lung with a volume and a share."""
    measurements = (
        Measurement("volume_ml", _VOLUME, float(areas(mask).sum()) / 1000, _ML),
        Measurement("share", _PRIVATE, 12.346, Code("%", "UCUM", "Percent"), digits=2),
    )
    values: dict[str, object] = {
        "category": _ANATOMY,
        "type": LUNG,
        "site": LUNG,
        "laterality": None,
        "colour": (230, 120, 60),
        "measurements": measurements,
        **other,
    }
    return Region(key, label, mask, **values)  # type: ignore[arg-type]


def with_everything(plain: Case) -> Case:
    """``plain`` with a mark of every shape, a map and a number about the whole study."""
    findings = plain.findings
    centre = np.array(BALL)
    centre[0] = min(centre[0], findings.volume.shape[0] - 1)

    def mark(key: str, shape: Shape, about: object, **other: object) -> Mark:
        points = centre + np.array(about, float)
        return Mark(key, key.capitalize(), shape, points, LUNG, LUNG, **other)  # type: ignore[arg-type]

    marks = (
        mark("spot", Shape.POINT, [(0, 0, 0)], confidence=0.875, laterality=_LEFT),
        mark("axis", Shape.POLYLINE, [(0, -8, 0), (0, 8, 3)], measurements=(LENGTH,)),
        mark("ring", Shape.POLYGON, [(0, -5, -5), (0, -5, 5), (0, 6, 0)], category=_FINDING),
        mark("plate", Shape.BOX, [(-0.5, -6, -5), (0.5, 6, 5)], evaluations=findings.evaluations),
        mark("crate", Shape.BOX, [(-2.5, -6, -5), (2.5, 6, 5)], confidence=0.5, measurements=(LENGTH,)),
    )
    slices = np.arange(findings.volume.shape[0], dtype=np.float32)[:, None, None]
    values = np.where(findings.volume.voxels < -100, 0.25 + slices / 100, 0).astype(np.float32)
    heat = Map("heat", "Where the network looked", values, Code("110856", "DCM", "Normalized Unit"), _ONE)
    return replace(
        plain, findings=replace(findings, marks=marks, maps=(heat,), measurements=(replace(LENGTH, key="whole_mm"),))
    )


def _common(instance: str, sop_class_uid: str) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class_uid, f"{_ROOT}.4.{instance}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = STUDY_UID, SERIES_UID
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = FRAME_OF_REFERENCE_UID, ""
    ds.PatientName, ds.PatientID, ds.IssuerOfPatientID = "Testa^Mara", "T-4711", "HOSPITAL"
    ds.PatientBirthDate, ds.PatientSex = "19610203", "F"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20260304", "120000", "S1", "A1"
    ds.StudyDescription, ds.ReferringPhysicianName = "CT Thorax", "Dora^Doc"
    ds.SeriesNumber, ds.Modality, ds.BodyPartExamined, ds.PatientPosition = 3, "CT", "CHEST", "HFS"
    ds.SpecificCharacterSet, ds.TimezoneOffsetFromUTC = "ISO_IR 192", "+0100"
    ds.Manufacturer = "Scanner works"
    ds.Rows, ds.Columns = ROWS, COLUMNS
    return ds


def _singles(place: NDArray[np.float64]) -> list[Dataset]:
    headers = []
    for k in range(SLICES):
        ds = _common(str(k + 1), CTImageStorage)
        ds.InstanceNumber = SLICES - k
        ds.ImagePositionPatient = _ds(place[:3, 3] + k * place[:3, 0])
        ds.ImageOrientationPatient = _orientation(place)
        ds.PixelSpacing, ds.SliceThickness = _spacing(place)
        headers.append(ds)
    return headers


def _frame_order() -> list[int]:
    """Frame number of each slice: the object holds them in another order, and two frames more."""
    return [2 * k + 1 if 2 * k < SLICES else 2 * (k - SLICES // 2) + 2 for k in range(SLICES)]


def _enhanced(place: NDArray[np.float64]) -> list[Dataset]:
    ds = _common("1", EnhancedCTImageStorage)
    ds.InstanceNumber, ds.NumberOfFrames = 1, SLICES + 2
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = _spacing(place)
    orientation.ImageOrientationPatient = _orientation(place)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    ds.SharedFunctionalGroupsSequence = [shared]
    slice_of_frame = {frame: k for k, frame in enumerate(_frame_order())}
    groups = []
    for frame in range(1, SLICES + 3):
        k = slice_of_frame.get(frame, 100 + frame)
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = _ds(place[:3, 3] + k * place[:3, 0])
        group.PlanePositionSequence = [position]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    return [ds] * SLICES


def _ds(values: Sequence[float] | NDArray[np.float64]) -> list[str]:
    return [f"{v:.8g}" for v in values]


def _orientation(place: NDArray[np.float64]) -> list[str]:
    return _ds([*(place[:3, 2] / np.linalg.norm(place[:3, 2])), *(place[:3, 1] / np.linalg.norm(place[:3, 1]))])


def _spacing(place: NDArray[np.float64]) -> tuple[list[str], str]:
    """PixelSpacing and SliceThickness."""
    slices, rows, columns = (f"{np.linalg.norm(place[:3, n]):.8g}" for n in range(3))
    return [rows, columns], slices


def save_sources(headers: Sequence[Dataset], folder: Path) -> None:
    """Write the headers as PS3.10 files, for judges that compare results with their sources."""
    folder.mkdir(exist_ok=True)
    for n, header in enumerate(headers):
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dcmwrite(folder / f"{n:03d}.dcm", header, enforce_file_format=True)
