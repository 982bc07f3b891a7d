"""``ainode.yaml``: what a site says of a bundle, beside it.

Which series it wants, what its output means and what to measure. Every mistake is told by its key, with what mends it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydicom.sr.codedict import codes as dictionary

from node.domain.errors import InvalidModel
from node.domain.finding import Code
from node.domain.model import Qualification

SIDE_FILE = "ainode.yaml"
_STACKS = frozenset({"CT", "MR", "PT"})
_PROCEDURES = {code.value for code in dictionary.cid100.concepts.values()}


class Measure(StrEnum):
    """What can be measured of a region."""

    VOLUME = "volume_ml"
    AREA = "area_mm2"
    MEAN = "mean"
    MAXIMUM = "max"
    MINIMUM = "min"
    DEVIATION = "sd"
    COUNT = "count"
    DIAMETER = "diameter_mm"


class Kind(StrEnum):
    """What comes out of a bundle."""

    SEGMENTATION = "segmentation"
    DETECTION = "detection"
    CLASSIFICATION = "classification"


def _code(value: object) -> object:
    """A code is written as a list: value, scheme, meaning. YAML reads SNOMED CT identifiers as numbers."""
    if isinstance(value, Code):
        return value
    if isinstance(value, list) and len(value) == 3 and all(str(part).strip() for part in value):
        return Code(*(str(part).strip() for part in value))
    raise ValueError("is no code; write [value, scheme, meaning], for instance [78961009, SCT, Spleen]")


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}; mend it") from None
    return value


def _axcodes(value: str) -> str:
    if len(value) != 3 or any(sum(letter in pair for letter in value) != 1 for pair in ("RL", "AP", "IS")):
        raise ValueError("is no orientation; write three letters, one each of RL, AP and IS, for instance RAS")
    return value


def _procedure(code: Code) -> Code:
    if code.value not in _PROCEDURES:
        raise ValueError(
            f"{code.value} is not in CID 100; write for instance [25045-6, LN, CT unspecified body region]"
        )
    return code


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str) else value


CodeField = Annotated[Code, BeforeValidator(_code)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Patterns = Annotated[tuple[Pattern, ...], BeforeValidator(_one_or_more)]
Byte = Annotated[int, Field(ge=0, le=255)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SeriesRule(_Section):
    """Which series an input takes. Patterns are regular expressions, searched without regard to case.

    Args:
        modality: Modality (0008,0060), any of these.
        view: of an image, any of these in ViewPosition (0018,5101).
        body_part: any of these in BodyPartExamined, ProtocolName, SeriesDescription or StudyDescription; that a series
            has no BodyPartExamined is not held against it.
        description: any of these in SeriesDescription, ProtocolName, SequenceName or ScanningSequence.
        exclude: none of these in the same elements or ImageType.
        contrast: with (true) or without (false) contrast medium by ContrastBolusAgent; null takes both.
        orientation: of the slices, within 45°.
    """

    modality: Annotated[tuple[str, ...], BeforeValidator(_one_or_more), Field(min_length=1)]
    view: Patterns = ()
    body_part: Patterns = ()
    description: Patterns = ()
    exclude: Patterns = ()
    contrast: bool | None = None
    orientation: Literal["axial", "sagittal", "coronal"] | None = None
    min_slices: Annotated[int, Field(ge=1)] = 2
    max_thickness_mm: Annotated[float, Field(gt=0)] | None = None


class Label(_Section):
    """What one label of a label map, or one channel of a multi-channel result, means.

    ``type``, ``category`` and ``site`` are those of a segment (PS3.3 C.8.20.2, CID 7150 and 7151, and 4031 for sites).
    """

    label: Annotated[int, Field(ge=0)] | None = None
    channel: Annotated[int, Field(ge=0)] | None = None
    key: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    name: Annotated[str, Field(min_length=1, max_length=64)]
    type: CodeField
    category: CodeField = Code("123037004", "SCT", "Anatomical Structure")
    site: CodeField | None = None
    laterality: CodeField | None = None
    colour: tuple[Byte, Byte, Byte] | None = None
    measure: tuple[Measure, ...] | None = None

    @model_validator(mode="after")
    def _one_index(self) -> Label:
        if (self.label is None) == (self.channel is None):
            raise ValueError("has neither or both of label and channel; write one of them")
        return self

    @property
    def index(self) -> int:
        """The label, or the channel."""
        return self.channel if self.label is None else self.label  # type: ignore[return-value]


class SideFile(_Section):
    """The whole file.

    Args:
        dimensions: 2 for a model of images, each read by itself; 3 for a model of volumes. Without it, 2 where the
            bundle says so and its inputs are no CT, MR or PT.
        inputs: one series (or image) for each channel of the image, or for each image key, in order.
        resample: bring the second and further series onto the grid of the first; else other grids are refused.
        axcodes: orientation to bring the image to before the bundle's own transforms, for bundles that were trained so
            and do not say it, for instance LPS.
        output: the key of the result, where it is not that of ``metadata.json``.
        threshold: at and above it a voxel belongs to its channel, for bundles whose result is not discrete.
        min_score: boxes below it are left out.
        unlisted: what becomes of outputs that `metadata.json` names and ``labels`` does not.
        overrides: keys of the configuration with other values, as ``monai.bundle run`` takes them.
        measure: of labels that do not say it; by default the volume, or of an image the area.
        window: centre and width of pictures; by default soft tissue for CT, else all but the extremes.
        precision: of the network on a GPU: autocast to bf16 or fp16. The CPU always computes in fp32.
        compile: the network by ``torch.compile``.
    """

    kind: Kind | None = None
    title: Annotated[str, Field(min_length=1, max_length=64)]
    qualification: Qualification = Qualification.RESEARCH
    procedure: Annotated[CodeField, AfterValidator(_procedure)]
    window: tuple[float, Annotated[float, Field(gt=0)]] | None = None
    dimensions: Literal[2, 3] | None = None
    inputs: Annotated[tuple[SeriesRule, ...], Field(min_length=1)]
    resample: bool = False
    axcodes: Annotated[str, AfterValidator(_axcodes)] | None = None
    output: str | None = None
    threshold: float | None = None
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.5
    labels: Annotated[tuple[Label, ...], Field(min_length=1)]
    ignore: tuple[int, ...] = (0,)
    unlisted: Literal["refuse", "generic", "ignore"] = "refuse"
    measure: tuple[Measure, ...] | None = None
    question: CodeField | None = None
    overrides: dict[str, Any] = {}
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    notes: tuple[str, ...] = ()

    def planar(self, spatial_dims: int) -> bool:
        """Whether the model wants images; ``spatial_dims`` are those that the bundle says."""
        stacked = any(modality in _STACKS for rule in self.inputs for modality in rule.modality)
        return self.dimensions == 2 if self.dimensions is not None else spatial_dims == 2 and not stacked

    def kind_of(self, said: Kind | None) -> Kind:
        """What comes out; ``said`` is what the bundle says. Raises ``InvalidModel`` where neither says it."""
        kind = self.kind or said
        if kind is None:
            raise InvalidModel(
                f"{SIDE_FILE}: kind",
                "is missing, and metadata.json names a result that is none of those that are reported, such as points",
                f"Write {' or '.join(each.value for each in Kind)}, if it is one of them",
            )
        return kind

    @model_validator(mode="after")
    def _labels_agree(self) -> SideFile:
        if len({label.label is None for label in self.labels}) > 1:
            raise ValueError("labels mix label and channel; write one of them throughout")
        names: dict[str, list[Any]] = {
            "key": [label.key for label in self.labels],
            "label or channel": [label.index for label in self.labels],
        }
        for name, values in names.items():
            twice = [value for value in values if values.count(value) > 1]
            if twice:
                raise ValueError(f"labels have the {name} {twice[0]!r} twice; make each its own")
        return self


def read_side_file(directory: Path) -> SideFile:
    """Read and check ``ainode.yaml`` of a version's directory.

    Raises:
        InvalidModel: it is missing, no YAML, or a key is wrong: the text names each with what mends it.
    """
    try:
        content = yaml.safe_load((directory / SIDE_FILE).read_text("utf-8"))
    except OSError as error:
        fix = "Write one: docs/bundles.md has an example"
        raise InvalidModel(SIDE_FILE, f"cannot be read: {error.strerror}", fix) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidModel(SIDE_FILE, f"is no YAML: {error}", "Mend the file") from error
    try:
        return SideFile.model_validate(content)
    except ValidationError as error:
        problems = list(_problems(error))
        raise InvalidModel(SIDE_FILE, "; ".join(problems), "Mend these keys; docs/bundles.md lists them") from None


def _problems(error: ValidationError) -> Iterator[str]:
    for details in error.errors(include_url=False):
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in details["loc"]).lstrip(".")
        message = details["msg"].removeprefix("Value error, ")
        match details["type"]:
            case "extra_forbidden":
                message = "unknown key; remove it or mend its name"
            case "missing":
                message = "is missing; add it"
            case "enum" | "literal_error":
                message = f"{details['input']!r} is not known here; write one of {details['ctx']['expected']}"
        yield f"{key}: {message}" if key else message
