"""Result objects before judges that know nothing of the node."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.uid import MRImageStorage

from config.profiles import BUILT_IN
from dicom_sr.check_content import concept
from node.domain.finding import Shape
from node.domain.profile import Profile
from tests import builders_results as build
from tests import judges

pytestmark = pytest.mark.peer


def _named(charset: object, name: str) -> Callable[[], build.Case]:
    return lambda: build.case(SpecificCharacterSet=charset, PatientName=name)


def _private() -> build.Case:
    case = build.case()
    for header in case.headers:
        header.private_block(0x0011, "VENDOR", create=True).add_new(1, "LO", "SECRET-PRIVATE")
    return case


def _issuer() -> build.Case:
    qualifiers = Dataset()
    qualifiers.UniversalEntityID, qualifiers.UniversalEntityIDType = "1.2.3", "ISO"
    return build.case(IssuerOfPatientID="ANOTHER", IssuerOfPatientIDQualifiersSequence=[qualifiers])


def _mr() -> build.Case:
    case = build.case("coronal")
    for header in case.headers:
        header.SOPClassUID, header.Modality = MRImageStorage, "MR"
    volume = case.findings.volume
    sources = tuple(replace(source, sop_class_uid=str(MRImageStorage)) for source in volume.sources)
    return replace(case, findings=replace(case.findings, volume=replace(volume, sources=sources)))


def _for_ohif() -> build.Case:
    """With square pixels: for others no tool is named."""
    case = build.with_everything(_one_segment(PixelSpacing=["0.7", "0.7"]))
    volume = case.findings.volume
    place = volume.affine.copy()
    place[:3, 1] *= 0.7 / build.SPACING[1]
    marks = tuple(mark for mark in case.findings.marks if mark.shape is not Shape.BOX)
    return replace(case, findings=replace(case.findings, volume=replace(volume, affine=place), marks=marks))


def _one_segment(**elements: object) -> build.Case:
    case = build.case(**elements)  # type: ignore[arg-type]
    return case.with_regions(case.findings.regions[1])


# What a source says of itself.
HEADERS: dict[str, Callable[[], build.Case]] = {
    "Latin-1": _named("ISO_IR 100", "Müller^Zoë"),
    "Cyrillic": _named("ISO_IR 144", "Люкceмбypг^Анна"),
    "Greek": _named("ISO_IR 126", "Διονυσιος^Ζωή"),
    "Japanese": _named(["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "no character set": _named(None, "Plain^Name"),
    "nothing of type 2": lambda: build.case(
        **dict.fromkeys(
            ("AccessionNumber", "StudyID", "PatientSex", "PatientBirthDate", "TimezoneOffsetFromUTC", "SliceThickness")
        )
    ),
    "no body part": lambda: build.case(BodyPartExamined=None),
    "an issuer": _issuer,
    "a time zone": lambda: build.case(TimezoneOffsetFromUTC="-0330"),
    "private elements": _private,
}
# Where its images lie, and what is found on them.
FINDINGS: dict[str, Callable[[], build.Case]] = {
    **{orientation: lambda o=orientation: build.case(o) for orientation in build.ORIENTATIONS},  # type: ignore[misc]
    "MR": _mr,
    "multi-frame": lambda: build.case("oblique", multiframe=True),
    "radiograph": build.flat,
    "angiogram": lambda: build.flat(8),
}
FEW: dict[str, Callable[[], build.Case]] = {
    "one segment": _one_segment,
    "no region": lambda: build.case().with_regions(),
    "for OHIF": _for_ohif,
}
EVERYTHING = Profile("everything", presentation=True, key_images=True, document=True)


@dataclass(frozen=True, eq=False)
class Judged:
    """Files of one case: the first and the last of each class, the SR last."""

    case: build.Case
    results: list[Path]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Judged]:
    """Every case, its sources written and read back as a node gets them."""
    root = tmp_path_factory.mktemp("judged")
    found = {name: build.with_everything(make()) for name, make in (HEADERS | FINDINGS).items()}
    found |= {name: make() for name, make in FEW.items()}
    cases = {}
    for number, (name, case) in enumerate(found.items()):
        sources = root / f"source{number}"
        build.save_sources(list({id(h): h for h in case.headers}.values()), sources)
        read = {h.SOPInstanceUID: h for h in map(dcmread, sources.iterdir())}
        received = replace(case, headers=[read[h.SOPInstanceUID] for h in case.headers])
        profile = BUILT_IN["ohif"] if name == "for OHIF" else EVERYTHING
        files = received.written(root / f"out{number}", profile=profile)
        first = {file.sop_class_uid: file.path for file in reversed(files)}
        last = {file.sop_class_uid: file.path for file in files}
        chosen = {*first.values(), *last.values()}
        cases[name] = Judged(received, [file.path for file in files if file.path in chosen])
    return cases


def test_dciodvfy_has_nothing_to_say(judged: dict[str, Judged]) -> None:
    said = {f"{name} {path.name}": judges.dciodvfy(path) for name, one in judged.items() for path in one.results}
    assert {name: lines for name, lines in said.items() if lines} == {}


def test_dsrdump_reads_the_reports(judged: dict[str, Judged]) -> None:
    said = {name: judges.dsrdump(one.results[-1]) for name, one in judged.items()}
    assert {name: lines for name, lines in said.items() if lines} == {}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_pixelmed_finds_no_error_but_the_planted_one(judged: dict[str, Judged], tmp_path: Path) -> None:
    faulty = dcmread(judged["one segment"].results[-1])
    faulty.ContentSequence[-2].ContentSequence[0].RelationshipType = "HAS PROPERTIES"
    faulty.save_as(tmp_path / "faulty.dcm")
    said = judges.pixelmed([*(one.results[-1] for one in judged.values()), tmp_path / "faulty.dcm"], tmp_path)
    planted = [line for line in said if "HAS PROPERTIES" in line or "relationship" in line.lower()]
    assert planted, said
    assert [line for line in said if line not in planted] == []


def test_dciodvfy_finds_a_planted_error(judged: dict[str, Judged], tmp_path: Path) -> None:
    with disable_value_validation():
        report = dcmread(judged["one segment"].results[-1])
        report.CompletionFlag = "PERHAPS"
        report.save_as(tmp_path / "faulty.dcm")
    assert judges.dciodvfy(tmp_path / "faulty.dcm")


# It asks the source itself for its plane, which these do not have, or have by frame.
_WITHOUT_PLANES = {"multi-frame", "radiograph", "angiogram"}


def _not_its_matter(what: str, result: Dataset) -> bool:
    """Where the script is stricter than the standard, or as its tools are."""
    match what.split(maxsplit=1)[0]:
        case "24":  # a report in which nothing is measured has no container for measurements (TID 1500, rows 6 to 12)
            return not any(concept(item) == "126010" for item in result.ContentSequence)
        case "36":  # a page lies in no plane
            return "SUMMARY" in result.ImageType
        case "41":  # dciodvfy's warnings: judged above, with the reason for each that is waived
            return True
        case "43":  # dcmpschk 3.6.7 knows no UTF-8, whose bytes from 0x80 to 0x9F it takes for control characters
            return not str(result.PatientName).isascii()
        case _:
            return False


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_acceptance_script_passes_every_object(shared_data: Path, judged: dict[str, Judged]) -> None:
    script = shared_data.parent / "judges" / "accept.py"
    if not script.is_file():
        pytest.skip("accept.py is not beside the project")
    accept = _loaded(script)
    failed = []
    for name in sorted(set(judged) - _WITHOUT_PLANES):
        one = judged[name]
        sources = {h.SOPInstanceUID: h for h in one.case.headers}
        results = {d.SOPInstanceUID: d for d in (dcmread(path, stop_before_pixels=True) for path in one.results)}
        for path, result in zip(one.results, results.values(), strict=True):
            said = [(what, why) for what, passed, why in accept.check(str(path), sources, results) if not passed]
            failed += [(name, path.name, what, why) for what, why in said if not _not_its_matter(what, result)]
    assert not failed, "\n".join(map(str, failed))


def _loaded(script: Path) -> Any:
    spec = importlib.util.spec_from_file_location("accept", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
