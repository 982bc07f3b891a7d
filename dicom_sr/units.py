"""Which codes are units: The Unified Code for Units of Measure (UCUM), and what DICOM writes in its own way."""

from __future__ import annotations

from functools import cache
from typing import Any

from lark.exceptions import LarkError
from pydicom.sr.codedict import codes as dictionary

# Older objects, and highdicom, have the annotation of CID 84 ahead of the unit, where the grammar does not allow it.
_OF_DICOM = {code.value for code in dictionary.UCUM.concepts.values()} | {"{SUVbw}g/ml"}


@cache
def is_unit(code: str) -> bool:
    """Whether ``code`` is a unit; case matters: ``mm[Hg]`` is one, ``mmHg`` is not."""
    if code in _OF_DICOM:
        return True
    try:
        _parser().parse(code)
    except LarkError:
        return False
    return True


@cache
def _parser() -> Any:
    # It brings a library of quantities, which takes a third of a second: only for what DICOM does not list.
    from ucumvert import get_ucum_parser

    return get_ucum_parser()
