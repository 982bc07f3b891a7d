"""Output profiles: what a peer gets of a result, as settings. Some are built in; own ones start from another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from string import Formatter
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydicom.charset import python_encoding
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from config.section import Section
from config.values import Problem, ProfileName, did_you_mean, refuse
from node.domain.model import Qualification
from node.domain.profile import FULL, Captures, Language, NoticeKind, Profile, Report, Segments

if TYPE_CHECKING:
    from config.settings import Settings

# What images can be encoded in here, by the words of the settings.
TRANSFER_SYNTAXES: Mapping[str, UID] = {
    "explicit-little": ExplicitVRLittleEndian,
    "implicit-little": ImplicitVRLittleEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg-ls": JPEGLSLossless,
    "jpeg-2000": JPEG2000Lossless,
}

# The kinds of objects that have a SeriesDescription of their own.
DESCRIBED = ("report", "segments", "captures", "map", "presentation", "key_images", "document", "notice")

BUILT_IN: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        FULL,
        Profile(
            "sc-only",
            report=Report.NONE,
            segments=Segments.NONE,
            maps=False,
            notice=NoticeKind.SC,
        ),
        Profile("sr+sc", segments=Segments.NONE, captures=Captures.KEY, maps=False, notice=NoticeKind.SR),
        # OHIF 3.13 draws labelmaps black, and calls presentation states and key object selections "unsupported".
        Profile("ohif", notice=NoticeKind.SR, ohif_tools=True),
    )
}

_LONGEST = 64  # SeriesDescription (0008,103E) is LO


def _description(text: str) -> str:
    """``{what}`` is the title of the findings; anything else in braces would end the composition."""
    try:
        fields = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
    except ValueError:
        fields = {""}
    if fields - {"what"}:
        fix = "Write {what} where the title of the findings goes, and no other braces"
        raise refuse(Problem((), f"{text!r} has braces that mean nothing", fix))
    if "\\" in text or not text.isprintable():
        raise refuse(Problem((), f"{text!r} is no SeriesDescription", "Leave out backslashes and control characters"))
    return text


def _kind(value: str) -> str:
    if value not in DESCRIBED:
        fix = did_you_mean(value, DESCRIBED) or f"The kinds are {', '.join(DESCRIBED)}"
        raise refuse(Problem((), f"{value!r} is no kind of object", fix))
    return value


def _character_set(value: str) -> str:
    if not value or value.startswith("ISO 2022") or value not in python_encoding:
        fix = "Write ISO_IR 192 (Unicode, every name), or one set such as ISO_IR 100 (Latin-1)"
        raise refuse(Problem((), f"{value!r} is no SpecificCharacterSet that the node writes", fix))
    return value


def _transfer_syntax(value: str) -> str:
    if value not in TRANSFER_SYNTAXES:
        fix = did_you_mean(value, TRANSFER_SYNTAXES) or f"Write one of {', '.join(TRANSFER_SYNTAXES)}"
        raise refuse(Problem((), f"{value!r} is no transfer syntax that the node encodes", fix))
    return value


class ProfileSettings(Section):
    """What a peer gets of a result. A key that is not there, or null, is as in the profile that it is made ``from``.

    The keys are those of `Profile`; ``transfer_syntax`` is one of the words of `TRANSFER_SYNTAXES`.
    """

    from_: Annotated[ProfileName, Field(alias="from")] = FULL.name
    report: Report | None = None
    segments: Segments | None = None
    captures: Captures | None = None
    summary: bool | None = None
    multiframe: bool | None = None
    maps: bool | None = None
    presentation: bool | None = None
    key_images: bool | None = None
    document: bool | None = None
    notice: NoticeKind | None = None
    reject_earlier: bool | None = None
    ohif_tools: bool | None = None
    language: Language | None = None
    # IS holds more, but viewers sort by it as a number of a few digits.
    series_number: Annotated[int, Field(ge=900, le=99_000)] | None = None
    descriptions: (
        Mapping[
            Annotated[str, AfterValidator(_kind)],
            Annotated[str, Field(min_length=1, max_length=_LONGEST), AfterValidator(_description)],
        ]
        | None
    ) = None
    qualification: Literal[Qualification.RESEARCH, Qualification.PRODUCT] | None = None
    character_set: Annotated[str, AfterValidator(_character_set)] | None = None
    timezone: Annotated[str, Field(pattern=r"^[+-](0\d|1[0-4])[0-5]\d$")] | None = None
    transfer_syntax: Annotated[str, AfterValidator(_transfer_syntax)] | None = None

    def over(self, base: Profile, name: str) -> Profile:
        """This profile under its name; ``base`` is the one that it is made from."""
        changes: dict[str, Any] = {
            key: value for key, value in self if value is not None and key not in ("from_", "descriptions")
        }
        if self.transfer_syntax is not None:
            changes["transfer_syntax"] = str(TRANSFER_SYNTAXES[self.transfer_syntax])
        described = {**base.descriptions, **(self.descriptions or {})}
        values = {**vars(base), **changes, "name": name, "descriptions": described}
        return Profile(**values)


def problems(own: Mapping[str, ProfileSettings], used: Mapping[str, str]) -> Iterator[Problem]:
    """What is wrong with the names of profiles.

    Args:
        used: the name of the profile of each peer.
    """
    known = [*BUILT_IN, *own]
    for name, settings in own.items():
        if name in BUILT_IN:
            fix = f"Give yours a name of its own, with from: {name}"
            yield Problem(("profiles", name), f"{name} is a profile of the node's own", fix)
        elif settings.from_ not in known:
            yield _unknown(("profiles", name, "from"), settings.from_, known)
        elif _goes_round(name, own):
            yield Problem(
                ("profiles", name, "from"), "leads back to itself", f"Begin with one of {', '.join(BUILT_IN)}"
            )
    for peer, name in used.items():
        if name not in known:
            yield _unknown(("peers", peer, "profile"), name, known)


def _unknown(path: tuple[str, ...], name: str, known: list[str]) -> Problem:
    return Problem(path, f"no profile is named {name}", did_you_mean(name, known) or f"They are {', '.join(known)}")


def _goes_round(name: str, own: Mapping[str, ProfileSettings]) -> bool:
    seen = {name}
    while (settings := own.get(name)) is not None and name not in BUILT_IN:
        name = settings.from_
        if name in seen:
            return True
        seen.add(name)
    return False


def profiles(settings: Settings) -> Mapping[str, Profile]:
    """Every profile by its name, the built-in ones first."""
    found = dict(BUILT_IN)

    def resolve(name: str) -> Profile:
        if name not in found:
            own = settings.profiles[name]
            found[name] = own.over(resolve(own.from_), name)
        return found[name]

    return {name: resolve(name) for name in [*BUILT_IN, *settings.profiles]}
