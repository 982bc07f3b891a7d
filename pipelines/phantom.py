"""A chest-CT phantom with known lung volumes and a known emphysema fraction, written as a valid DICOM series.

``make_phantom`` samples the anatomy, ``write_series`` writes it as CT Image Storage or Enhanced CT Image Storage. The
patient is fictional, and the UIDs depend on the seed alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from node.domain.ids import derived_uid
from pipelines.phantom_anatomy import (
    LungTruth,
    Phantom,
    PhantomSpec,
    PhantomTruth,
    make_phantom,
    oblique,
)

__all__ = [
    "LungTruth",
    "Phantom",
    "PhantomSpec",
    "PhantomTruth",
    "SeriesOptions",
    "make_phantom",
    "oblique",
    "write_series",
]

_SLICE_RESCALES = ((1.0, -1024.0), (0.5, -1000.0))  # (slope, intercept) in turn; both hold every integer HU exactly


@dataclass(frozen=True)
class SeriesOptions:
    """How a phantom is written.

    Args:
        multiframe: one Enhanced CT instance instead of one CT Image instance a slice.
        order: "position" (instance numbers rise along the slice normal), "reversed" or "shuffled".
        varying_rescale: RescaleSlope and RescaleIntercept change from slice to slice.
        signed: PixelRepresentation 1 and HU stored as they are, instead of 0 and an offset of 1024.
        transfer_syntax_uid: uncompressed, RLE, JPEG 2000 lossless or JPEG-LS lossless.
        header: elements by keyword that replace or, when None, remove what would be written.
    """

    multiframe: bool = False
    order: str = "position"
    varying_rescale: bool = False
    signed: bool = False
    transfer_syntax_uid: str = str(ExplicitVRLittleEndian)
    header: Mapping[str, Any] = field(default_factory=dict)


def write_series(phantom: Phantom, folder: Path, options: SeriesOptions | None = None) -> list[Path]:
    """Write the phantom into ``folder``; returns the files in the order of their instance numbers."""
    options = options or SeriesOptions()
    folder.mkdir(parents=True, exist_ok=True)
    order = _order(phantom, options.order)
    if options.multiframe:
        return [_write(_enhanced(phantom, order, options), folder / "CT0001.dcm", options)]
    paths = []
    for number, k in enumerate(order, start=1):
        paths.append(_write(_single(phantom, int(k), number, options), folder / f"CT{number:04d}.dcm", options))
    return paths


def _order(phantom: Phantom, name: str) -> NDArray[np.int64]:
    slices = np.arange(phantom.voxels.shape[0])
    match name:
        case "position":
            return slices
        case "reversed":
            return slices[::-1]
        case "shuffled":
            return np.random.default_rng(list(phantom.spec.seed.encode())).permutation(slices)
    raise ValueError(f"order: {name!r} is none of position, reversed, shuffled")


def _write(dataset: Dataset, path: Path, options: SeriesOptions) -> Path:
    for keyword, value in options.header.items():
        if value is None:
            if keyword in dataset:
                delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    syntax = UID(options.transfer_syntax_uid)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    if syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        dataset.file_meta.TransferSyntaxUID = syntax
    else:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _common(phantom: Phantom, sop_class_uid: str, instance_part: str) -> Dataset:
    """Patient, study, series, frame of reference, equipment and SOP common modules."""
    seed = phantom.spec.seed
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = sop_class_uid
    ds.SOPInstanceUID = derived_uid("phantom", seed, sop_class_uid, instance_part)
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = "20250102"
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = "080000"
    ds.AccessionNumber = "PHANTOM"
    ds.Modality = "CT"
    ds.Manufacturer = "ainode"
    ds.ManufacturerModelName = "chest phantom"
    ds.DeviceSerialNumber = "1"
    ds.SoftwareVersions = "1"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "CT chest phantom"
    ds.SeriesDescription = "CT chest phantom, axial"
    ds.PatientName = "PHANTOM^LUNG"
    ds.PatientID = "AINODE-PHANTOM"
    ds.PatientBirthDate = "19700101"
    ds.PatientSex = "O"
    ds.StudyInstanceUID = derived_uid("phantom", seed, "study")
    ds.SeriesInstanceUID = derived_uid("phantom", seed, sop_class_uid, "series")
    ds.StudyID = "1"
    ds.SeriesNumber = 2
    ds.FrameOfReferenceUID = derived_uid("phantom", seed, "frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.BodyPartExamined = "CHEST"
    ds.PatientPosition = "HFS"
    return ds


def _pixel_module(ds: Dataset, phantom: Phantom, options: SeriesOptions) -> None:
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = phantom.voxels.shape[1:]
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = int(options.signed)


def _stored(phantom: Phantom, k: int, options: SeriesOptions) -> tuple[bytes, float, float]:
    """The pixels of slice ``k`` as stored, and the slope and intercept that give its HU."""
    slope, intercept = (1.0, 0.0) if options.signed else _SLICE_RESCALES[0]
    if options.varying_rescale and k % 2:
        slope, intercept = _SLICE_RESCALES[1]
        if not options.signed:
            intercept = -1024.0
    stored = (phantom.voxels[k] - intercept) / slope
    return stored.astype("<i2" if options.signed else "<u2").tobytes(), slope, intercept


def _position(phantom: Phantom, k: int) -> list[DSfloat]:
    return _ds(phantom.affine[:3, 0] * k + phantom.affine[:3, 3])


def _orientation(phantom: Phantom) -> list[DSfloat]:
    return _ds((*phantom.spec.row_cosines, *phantom.spec.column_cosines))


def _ds(values: Any) -> list[DSfloat]:
    return [DSfloat(float(v), auto_format=True) for v in values]


def _single(phantom: Phantom, k: int, number: int, options: SeriesOptions) -> Dataset:
    """CT Image IOD (PS3.3 A.3)."""
    ds = _common(phantom, CTImageStorage, f"slice {k}")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.InstanceNumber = number
    ds.AcquisitionNumber = 1
    ds.KVP = 120
    ds.ConvolutionKernel = "STANDARD"
    ds.GantryDetectorTilt = DSfloat(phantom.spec.tilt_degrees)
    ds.SliceThickness = DSfloat(phantom.spec.spacing[0])
    ds.PixelSpacing = _ds(phantom.spec.spacing[1:])
    ds.ImagePositionPatient = _position(phantom, k)
    ds.ImageOrientationPatient = _orientation(phantom)
    _pixel_module(ds, phantom, options)
    ds.PixelData, slope, intercept = _stored(phantom, k, options)
    ds.RescaleSlope, ds.RescaleIntercept = DSfloat(slope), DSfloat(intercept)
    ds.RescaleType = "HU"
    ds.WindowCenter, ds.WindowWidth = -600, 1500
    return ds


def _enhanced(phantom: Phantom, order: NDArray[np.int64], options: SeriesOptions) -> Dataset:
    """Enhanced CT Image IOD (PS3.3 A.38.1); frames are stored in ``order``.

    ImageType says ORIGINAL because the phantom stands for a scan; the acquisition macros that this asks for hold
    plausible values.
    """
    ds = _common(phantom, EnhancedCTImageStorage, f"frames in {options.order} order")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.PixelPresentation = "MONOCHROME"
    ds.VolumetricProperties = "VOLUME"
    ds.VolumeBasedCalculationTechnique = "NONE"
    ds.InstanceNumber = 1
    ds.AcquisitionDateTime = "20250102080000"
    ds.AcquisitionDuration = 5.0
    ds.ContentQualification = "RESEARCH"
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    ds.PresentationLUTShape = "IDENTITY"
    ds.AcquisitionContextSequence = Sequence()
    _pixel_module(ds, phantom, options)
    ds.NumberOfFrames = len(order)
    _dimensions(ds, phantom)
    ds.SharedFunctionalGroupsSequence = Sequence([_shared_groups(phantom)])
    frames, pixels = [], []
    for k in order:
        stored, slope, intercept = _stored(phantom, int(k), options)
        frames.append(_frame_groups(phantom, int(k), slope, intercept))
        pixels.append(stored)
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    ds.PixelData = b"".join(pixels)
    return ds


def _dimensions(ds: Dataset, phantom: Phantom) -> None:
    uid = derived_uid("phantom", phantom.spec.seed, "dimension organization")
    ds.DimensionOrganizationSequence = Sequence([_item(DimensionOrganizationUID=uid)])
    ds.DimensionIndexSequence = Sequence(
        [
            _item(DimensionOrganizationUID=uid, DimensionIndexPointer=pointer, FunctionalGroupPointer=0x00209111)
            for pointer in (0x00209056, 0x00209057)  # StackID, InStackPositionNumber
        ]
    )


def _item(**elements: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def _code(value: str, scheme: str, meaning: str) -> Sequence:
    return Sequence([_item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)])


def _shared_groups(phantom: Phantom) -> Dataset:
    thickness, rows, columns = phantom.spec.spacing
    groups = {
        "CTImageFrameTypeSequence": _item(
            FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
            PixelPresentation="MONOCHROME",
            VolumetricProperties="VOLUME",
            VolumeBasedCalculationTechnique="NONE",
        ),
        "PixelMeasuresSequence": _item(SliceThickness=DSfloat(thickness), PixelSpacing=_ds((rows, columns))),
        "PlaneOrientationSequence": _item(ImageOrientationPatient=_orientation(phantom)),
        "FrameAnatomySequence": _item(FrameLaterality="U", AnatomicRegionSequence=_code("51185008", "SCT", "Chest")),
        "FrameVOILUTSequence": _item(WindowCenter=-600, WindowWidth=1500),
        "IrradiationEventIdentificationSequence": _item(
            IrradiationEventUID=derived_uid("phantom", phantom.spec.seed, "irradiation event")
        ),
        "CTAcquisitionTypeSequence": _item(AcquisitionType="SPIRAL", ConstantVolumeFlag="NO", FluoroscopyFlag="NO"),
        "CTAcquisitionDetailsSequence": _item(
            RotationDirection="CW",
            RevolutionTime=0.5,
            SingleCollimationWidth=0.6,
            TotalCollimationWidth=38.4,
            TableHeight=0.0,
            GantryDetectorTilt=float(phantom.spec.tilt_degrees),
            DataCollectionDiameter=500.0,
        ),
        "CTTableDynamicsSequence": _item(TableSpeed=76.8, TableFeedPerRotation=38.4, SpiralPitchFactor=1.0),
        "CTGeometrySequence": _item(DistanceSourceToDetector=1000.0, DistanceSourceToDataCollectionCenter=550.0),
        "CTReconstructionSequence": _item(
            ReconstructionAlgorithm="FILTER_BACK_PROJ",
            ConvolutionKernel="STANDARD",
            ConvolutionKernelGroup="STANDARD",
            ReconstructionFieldOfView=[rows * phantom.spec.shape[1], columns * phantom.spec.shape[2]],
            ReconstructionPixelSpacing=[rows, columns],
            ReconstructionAngle=360.0,
            ImageFilter="NONE",
        ),
        "CTExposureSequence": _item(
            ExposureTimeInms=500.0,
            XRayTubeCurrentInmA=100.0,
            ExposureInmAs=50.0,
            ExposureModulationType="NONE",
        ),
        "CTXRayDetailsSequence": _item(KVP=120.0, FocalSpots=[1.0], FilterType="FLAT", FilterMaterial="ALUMINUM"),
    }
    shared = Dataset()
    for keyword, group in groups.items():
        setattr(shared, keyword, Sequence([group]))
    return shared


def _frame_groups(phantom: Phantom, k: int, slope: float, intercept: float) -> Dataset:
    frame = Dataset()
    frame.FrameContentSequence = Sequence(
        [
            _item(
                FrameAcquisitionNumber=1,
                FrameReferenceDateTime="20250102080000",
                FrameAcquisitionDateTime="20250102080000",
                FrameAcquisitionDuration=1.0,
                StackID="1",
                InStackPositionNumber=k + 1,
                DimensionIndexValues=[1, k + 1],
            )
        ]
    )
    frame.PlanePositionSequence = Sequence([_item(ImagePositionPatient=_position(phantom, k))])
    frame.CTPositionSequence = Sequence(
        [
            _item(
                TablePosition=float(phantom.affine[2, 0] * k),
                DataCollectionCenterPatient=[0.0, 0.0, 0.0],
                ReconstructionTargetCenterPatient=[0.0, 0.0, 0.0],
            )
        ]
    )
    frame.PixelValueTransformationSequence = Sequence(
        [_item(RescaleSlope=DSfloat(slope), RescaleIntercept=DSfloat(intercept), RescaleType="HU")]
    )
    return frame
