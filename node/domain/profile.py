"""What a peer gets of a result, and how it is written: an output profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from node.domain.model import Qualification


class Report(StrEnum):
    """The SR: its SOP class (PS3.3 A.35)."""

    NONE = "none"
    COMPREHENSIVE_3D = "comprehensive-3d"
    COMPREHENSIVE = "comprehensive"
    ENHANCED = "enhanced"
    BASIC = "basic"


class Segments(StrEnum):
    """The SEG: its segmentation type (PS3.3 C.8.20.2.3)."""

    NONE = "none"
    BINARY = "binary"
    LABELMAP = "labelmap"


class Captures(StrEnum):
    """Which slices are secondary captures; a summary page is another question."""

    NONE = "none"
    KEY = "key"
    EVERY = "every"


class NoticeKind(StrEnum):
    """What tells that the AI did not run."""

    NONE = "none"
    SR = "sr"
    SC = "sc"


class Language(StrEnum):
    """Of labels and sentences (RFC 5646)."""

    ENGLISH = "en"
    GERMAN = "de"
    FRENCH = "fr"
    SPANISH = "es"


@dataclass(frozen=True)
class Profile:
    """Which objects a peer gets, and how they are written.

    ``summary``: a page first in the series of captures. ``multiframe``: captures are one multi-frame instance.
    ``maps``: Parametric Maps. ``presentation``: GSPS. ``key_images``: a Key Object Selection. ``document``: an
    encapsulated PDF. ``reject_earlier``: an IOCM rejection note (RAD-66) for the results that these replace.
    ``ohif_tools``: the report names the tools of OHIF, which then takes lines and outlines over as measurements.
    ``series_number`` is the first of the series numbers. ``descriptions`` are SeriesDescriptions by kind of object
    (``report``, ``segments``, ``captures``, ``map``, ``document`` ...), with ``{what}`` for the title of the findings.
    ``qualification`` None is that of the node. ``timezone`` (``+0100``) is for sources that name none.
    ``transfer_syntax`` is what images are encoded in.
    """

    name: str = "full"
    report: Report = Report.COMPREHENSIVE_3D
    segments: Segments = Segments.BINARY
    captures: Captures = Captures.EVERY
    summary: bool = True
    multiframe: bool = False
    maps: bool = True
    presentation: bool = False
    key_images: bool = False
    document: bool = False
    notice: NoticeKind = NoticeKind.NONE
    reject_earlier: bool = False
    ohif_tools: bool = False
    language: Language = Language.ENGLISH
    series_number: int = 901
    descriptions: Mapping[str, str] = field(default_factory=dict)
    qualification: Qualification | None = None
    character_set: str = "ISO_IR 192"
    timezone: str | None = None
    transfer_syntax: str = "1.2.840.10008.1.2.1"


FULL = Profile()
