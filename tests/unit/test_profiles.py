"""Output profiles of the settings: what loads, what comes of `from`, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import pytest

from config.load import load
from config.profiles import BUILT_IN, TRANSFER_SYNTAXES, profiles
from node.domain.errors import InvalidSettings
from node.domain.model import Qualification
from node.domain.profile import FULL, Captures, Language, NoticeKind, Profile, Report, Segments


def loaded(tmp_path: Path, text: str) -> Mapping[str, Profile]:
    path = tmp_path / "node.yaml"
    path.write_text(text)
    return profiles(load(path, {}))


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(InvalidSettings) as caught:
        loaded(tmp_path, text)
    return str(caught.value)


def test_the_built_in_ones_are_there_without_settings(tmp_path: Path) -> None:
    assert loaded(tmp_path, "{}") == BUILT_IN
    assert list(BUILT_IN) == ["full", "sc-only", "sr+sc", "ohif"]
    assert BUILT_IN["full"] == FULL
    pictures = BUILT_IN["sc-only"]
    assert (pictures.report, pictures.segments, pictures.captures) == (Report.NONE, Segments.NONE, Captures.EVERY)
    viewer = BUILT_IN["ohif"]
    assert (viewer.segments, viewer.presentation, viewer.key_images) == (Segments.BINARY, False, False)


def test_an_own_one_changes_what_it_names_alone(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        "profiles:\n"
        "  german: {from: sr+sc, language: de, timezone: '+0100', descriptions: {report: 'Bericht {what}'}}\n"
        "  archive: {from: german, report: basic, transfer_syntax: rle, qualification: PRODUCT, maps:,\n"
        "            descriptions: {captures: Bilder}}\n",
    )
    base = BUILT_IN["sr+sc"]
    german, archive = found["german"], found["archive"]
    assert (german.language, german.timezone, german.report) == (Language.GERMAN, "+0100", base.report)
    assert (german.captures, german.notice, german.name) == (base.captures, NoticeKind.SR, "german")
    assert (archive.report, archive.language, archive.maps) == (Report.BASIC, Language.GERMAN, False)
    assert archive.qualification is Qualification.PRODUCT
    assert archive.transfer_syntax == "1.2.840.10008.1.2.5"
    assert archive.descriptions == {"report": "Bericht {what}", "captures": "Bilder"}


def test_the_order_in_which_they_are_written_does_not_matter(tmp_path: Path) -> None:
    found = loaded(tmp_path, "profiles:\n  a: {from: b}\n  b: {from: c, maps: false}\n  c: {multiframe: true}\n")
    assert (found["a"].multiframe, found["a"].maps) == (True, False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("peers: {P: {ae_title: P, host: h, profile: sc-onyl}}", "peers.P.profile: no profile is named sc-onyl. Did"),
        ("profiles: {a: {from: ful}}", "profiles.a.from: no profile is named ful. Did you mean full?"),
        ("profiles: {a: {from: b}, b: {from: a}}", "profiles.a.from: leads back to itself"),
        ("profiles: {a: {from: a}}", "profiles.a.from: leads back to itself"),
        ("profiles: {ohif: {maps: false}}", "ohif is a profile of the node's own"),
        ("profiles: {a: {reports: none}}", "profiles.a.reports: unknown key. Did you mean report?"),
        ("profiles: {a: {report: comprehensive3d}}", "profiles.a.report: 'comprehensive3d'"),
        ("profiles: {a: {transfer_syntax: jpegls}}", "Did you mean jpeg-ls?"),
        ("profiles: {a: {character_set: 'ISO 2022 IR 87'}}", "ISO_IR 192"),
        ("profiles: {a: {timezone: CET}}", "profiles.a.timezone"),
        ("profiles: {a: {series_number: 5}}", "profiles.a.series_number"),
        ("profiles: {a: {descriptions: {raport: x}}}", "Did you mean report?"),
        ("profiles: {a: {descriptions: {report: '{who}'}}}", "Write {what}"),
        ("profiles: {a: {descriptions: {report: '{'}}}", "Write {what}"),
        ("profiles: {a: {qualification: SERVICE}}", "RESEARCH, PRODUCT"),
        ("profiles: [a]", "profiles: is no section"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text)


def test_a_profile_travels_to_another_process() -> None:
    assert [pickle.loads(pickle.dumps(profile)) for profile in BUILT_IN.values()] == list(BUILT_IN.values())


def test_every_transfer_syntax_is_one() -> None:
    assert all(uid.is_transfer_syntax for uid in TRANSFER_SYNTAXES.values())
