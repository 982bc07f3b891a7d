"""The character set that a result is written in holds its text, or is not used."""

from __future__ import annotations

from pydicom.charset import convert_encodings
from pydicom.dataset import Dataset

from dicom_sr.header import CHARACTER_SET

_TEXT = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))


def keep_text(dataset: Dataset) -> None:
    """Give ``dataset`` ISO_IR 192 where what it says cannot be written in its own character set.

    A peer that knows no Unicode shows an odd letter then; a name with a question mark in it would be another name.
    """
    encodings = convert_encodings(dataset.SpecificCharacterSet)
    for element in dataset.iterall():
        if element.VR in _TEXT and not element.is_empty and not _fits(str(element.value), encodings):
            dataset.SpecificCharacterSet = CHARACTER_SET
            return


def _fits(text: str, encodings: list[str]) -> bool:
    """Whether every character of ``text`` is in one of ``encodings``; each may be in another (PS3.5 6.1.2.5)."""
    return text.isascii() or all(any(_in(character, encoding) for encoding in encodings) for character in text)


def _in(character: str, encoding: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
