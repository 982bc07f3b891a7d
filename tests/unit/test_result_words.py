"""The catalogue of sentences and terms: whole in every language, and only what people read changes with it."""

from __future__ import annotations

import ast
from dataclasses import fields, replace
from pathlib import Path
from string import Formatter

import pytest

import pipelines
from dicom_sr import terms
from dicom_sr.words import Words, words
from node.domain.finding import Code
from node.domain.model import Qualification
from node.domain.profile import FULL, Captures, Language
from tests import builders_pictures as pictures
from tests import builders_results as build

OTHERS = [language for language in Language if language is not Language.ENGLISH]


@pytest.mark.parametrize("language", Language)
def test_no_sentence_is_missing_and_each_takes_the_same_fillings(language: Language) -> None:
    def fillings(catalogue: Words, key: str) -> set[str | None]:
        return {name for _, name, _, _ in Formatter().parse(getattr(catalogue, key)) if name is not None}

    said, english = words(language), words(Language.ENGLISH)
    assert said.language is language
    for field in fields(Words):
        if field.name != "language":
            assert getattr(said, field.name).strip(), field.name
            assert fillings(said, field.name) == fillings(english, field.name), field.name


@pytest.mark.parametrize("language", OTHERS)
def test_whole_sentences_are_translated(language: Language) -> None:
    sentences = [f.name for f in fields(Words) if " " in getattr(words(Language.ENGLISH), f.name)]
    same = [n for n in sentences if getattr(words(language), n) == getattr(words(Language.ENGLISH), n)]
    assert same == []


def test_terms_fit_their_elements_in_every_language() -> None:
    for meanings in (*terms._CODES.values(), *terms._LABELS.values()):
        assert len(meanings) == len(OTHERS)
        assert all(0 < len(meaning) <= 64 for meaning in meanings)


def test_numbers_have_the_comma_of_the_language() -> None:
    assert words(Language.ENGLISH).number(-12.345, 2) == "-12.35"
    assert {words(language).number(-12.345, 1) for language in OTHERS} == {"-12,3"}
    assert words(Language.GERMAN).number(7.0, 0) == "7"


def test_only_a_product_has_no_banner() -> None:
    german = words(Language.GERMAN)
    assert german.banner(Qualification.PRODUCT) is None
    assert german.banner(Qualification.RESEARCH) == "FORSCHUNG - nicht für diagnostische Zwecke"
    assert german.banner(Qualification.SERVICE) == "WARTUNG - nicht für diagnostische Zwecke"


def _codes_written_in(source: str) -> list[Code]:
    """Every ``Code("value", scheme, ...)`` of a module, without importing what it imports."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Code" and len(node.args) > 1:
            value, scheme = (a.value if isinstance(a, ast.Constant) else None for a in node.args[:2])
            if value is not None:
                found.append(Code(str(value), str(scheme or "99AINODE"), "untranslated"))
    return found


def test_every_code_of_the_shipped_pipelines_is_known() -> None:
    root = Path(pipelines.__file__).parent
    found = [code for path in root.rglob("*.py") for code in _codes_written_in(path.read_text("utf-8"))]
    assert len(found) > 30
    assert [c for c in found if terms.translated(c, Language.GERMAN) == c] == []


def test_a_code_keeps_its_value_in_another_language() -> None:
    lung = terms.translated(build.LUNG, Language.GERMAN)
    assert (lung.value, lung.scheme, lung.meaning) == (build.LUNG.value, build.LUNG.scheme, "Lunge")
    unknown = Code("X", "99OTHER", "Something")
    assert terms.translated(unknown, Language.FRENCH) == unknown


@pytest.mark.parametrize("language", OTHERS)
def test_a_result_in_another_language_has_the_same_codes_and_places(language: Language) -> None:
    scan = pictures.scan()
    local = terms.localised(scan.findings, language)
    assert [(r.key, r.measurements[0].value) for r in local.regions] == [
        (r.key, r.measurements[0].value) for r in scan.findings.regions
    ]
    assert local.regions[0].measurements[0].name.meaning in ("Volumen", "Volume")
    assert local.regions[0].mask is scan.findings.regions[0].mask
    assert terms.localised(scan.findings, Language.ENGLISH) is scan.findings


def test_speaking_changes_meanings_of_every_depth_and_nothing_else() -> None:
    report = build.case().results()[-1]
    before = [(e.tag, str(e.value)) for e in report.iterall() if e.VR != "SQ" and e.keyword != "CodeMeaning"]
    meanings = {str(e.value) for e in report.iterall() if e.keyword == "CodeMeaning"}
    assert {"Finding", "Measurement Group", "Lung"} <= meanings
    terms.speak(report, Language.GERMAN)
    after = [(e.tag, str(e.value)) for e in report.iterall() if e.VR != "SQ" and e.keyword != "CodeMeaning"]
    spoken = {str(e.value) for e in report.iterall() if e.keyword == "CodeMeaning"}
    assert before == after
    assert {"Befund", "Messgruppe", "Lunge"} <= spoken
    assert not {"Finding", "Measurement Group", "Lung"} & spoken


def test_pages_differ_between_languages() -> None:
    scan = pictures.scan()
    pages = {
        scan.captures(replace(FULL, captures=Captures.NONE, language=language))[0].PixelData for language in Language
    }
    assert len(pages) == len(Language)
