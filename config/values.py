"""What the settings are made of: names, numbers, networks and patterns, each checked and refused with what mends it."""

from __future__ import annotations

import base64
import difflib
import ipaddress
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_core import PydanticCustomError
from pydicom.datadict import dictionary_VR, keyword_dict

from node.domain.errors import InvalidInput
from node.domain.ids import checked_ae_title


@dataclass(frozen=True)
class Problem:
    """What is wrong at one place of the tree, and what mends it. ``path`` is relative to where it was found."""

    path: tuple[str | int, ...]
    problem: str
    fix: str


def refuse(*problems: Problem) -> PydanticCustomError:
    """The error of a validator; ``config.load`` turns each problem into a line that names its place."""
    text = "; ".join(f"{p.problem}. {p.fix}" for p in problems)
    return PydanticCustomError("refused", "{text}", {"text": text, "problems": problems})


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """``Did you mean X?`` where a known word is close to ``word``."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.75)
    return f"Did you mean {close[0]}?" if close else None


def _ae_title(value: str) -> str:
    try:
        return checked_ae_title(value)
    except InvalidInput as error:
        raise refuse(Problem((), error.problem, error.fix)) from None


def _keyword(value: str) -> str:
    if value not in keyword_dict:
        fix = did_you_mean(value, keyword_dict) or "Write the keyword as PS3.6 has it, for instance BodyPartExamined"
        raise refuse(Problem((), f"{value!r} is no keyword of the DICOM dictionary", fix))
    vr = dictionary_VR(value)
    if vr == "SQ" or vr.startswith("O"):
        raise refuse(Problem((), f"{value} has VR {vr} and cannot be compared", "Choose an attribute with text in it"))
    return value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        fix = "Write a Python regular expression, in single quotes"
        raise refuse(Problem((), f"{value!r} is no regular expression: {error}", fix)) from None
    return value


def _number(value: str) -> str:
    try:
        finite = math.isfinite(float(value))
    except ValueError:
        finite = False
    if not finite:
        raise refuse(Problem((), f"{value!r} is no number", "Write a number"))
    return value


def _database_url(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith(("sqlite:///", "postgresql+psycopg://")):
        fix = "Begin with sqlite:/// or postgresql+psycopg://"
        raise refuse(Problem((), "names no database that the node knows", fix))
    return value


def _https_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment:
        fix = "Write https://HOST, with a port and a path if need be; a token has a key of its own"
        raise refuse(Problem((), "is no address of an HTTPS server", fix))
    return value.rstrip("/")


def _web_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        fix = "Write https://HOST/PATH, the part before /studies; a token has a key of its own"
        raise refuse(Problem((), "is no address of a DICOMweb service", fix))
    return value.rstrip("/")


def authorization(user: str | None, token: SecretStr | None) -> str | None:
    """The value of the header Authorization: Basic (RFC 7617) with a user, else Bearer (RFC 6750). Never log it."""
    if token is None:
        return None
    if user is None:
        return f"Bearer {token.get_secret_value()}"
    return "Basic " + base64.b64encode(f"{user}:{token.get_secret_value()}".encode()).decode()


def _network(value: object) -> object:
    try:
        return ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        fix = "Write an address or a network, for instance 10.0.0.0/24; 0.0.0.0/0 and ::/0 are everywhere"
        raise refuse(Problem((), f"{value!r} is no network", fix)) from None


def _subject(value: str) -> str:
    if value.startswith("subject=") or "=" not in value:
        fix = "Write it in quotes as `openssl x509 -noout -subject -nameopt RFC2253` does: 'CN=CT1,O=Hospital'"
        raise refuse(Problem((), f"{value!r} is no certificate subject", fix))
    return value


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Item = TypeVar("Item")
OneOrMore = Annotated[tuple[Item, ...], BeforeValidator(_listed)]  # one alone needs no list, in the environment too
CIDR = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Subject = Annotated[str, AfterValidator(_subject)]
Token = Annotated[SecretStr, Field(min_length=16)]
DatabaseURL = Annotated[SecretStr, AfterValidator(_database_url)]
WebURL = Annotated[str, AfterValidator(_web_url)]
HttpsURL = Annotated[str, AfterValidator(_https_url)]
Secret = Annotated[SecretStr, Field(min_length=1)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda:\d+)$")]
Number = Annotated[str, AfterValidator(_number)]
Pattern = Annotated[str, AfterValidator(_pattern)]
AETitle = Annotated[str, AfterValidator(_ae_title)]
Keyword = Annotated[str, AfterValidator(_keyword)]
# No "@" and no spaces: a name stands where AE@host:port may stand, in paths and in metric labels.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
ProfileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=64)]
Text = Annotated[str, Field(min_length=1)]
Words = Annotated[tuple[Text, ...], Field(min_length=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=1, le=65535)]
ListenPort = Annotated[int, Field(ge=0, le=65535)]
