"""The other documents of a result before judges that know nothing of the node."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset

from dicom_sr import content, encapsulated, key_images, notice, older, presentation
from dicom_sr.compose import compose, write
from dicom_sr.header import identity, local, normalised, stamp
from dicom_sr.key_images import Rejected
from dicom_sr.notice import NotRun
from node.domain.profile import FULL, Captures, Language, NoticeKind, Profile, Report
from tests import builders_pictures as pictures
from tests import builders_results as build
from tests import judges, peers
from tests.builders_pictures import Scan

pytestmark = pytest.mark.peer

GERMAN = replace(FULL, language=Language.GERMAN, captures=Captures.KEY)
NUMBER = 905


def _said(scan: Scan) -> tuple[Dataset, list[Dataset], Callable[..., None]]:
    who = identity(scan.headers[0])
    finish = partial(stamp, who=who, provenance=build.PROVENANCE, what="X")
    return who, [normalised(header, scan.findings.volume) for header in scan.headers], finish


def _presentation(scan: Scan) -> Dataset:
    who, _, finish = _said(scan)
    at = local(build.PROVENANCE.started_at, who)
    (state,) = presentation.build(
        build.PROVENANCE, scan.findings, scan.headers, profile=GERMAN, series_number=NUMBER, at=at
    )
    finish(state)
    return state


def _key_images(scan: Scan) -> Dataset:
    _, sources, finish = _said(scan)
    selection = key_images.build(build.PROVENANCE, scan.findings, sources, profile=GERMAN, series_number=NUMBER)
    finish(selection)
    return selection


def _rejection(scan: Scan) -> Dataset:
    results = [content.as_reference(capture) for capture in scan.captures(GERMAN)]
    why = Rejected.SUPERSEDED
    return key_images.reject(build.PROVENANCE, results, scan.headers[0], why, profile=GERMAN, series_number=NUMBER)


def _pdf(scan: Scan) -> Dataset:
    who, sources, finish = _said(scan)
    at = local(build.PROVENANCE.started_at, who)
    document = encapsulated.build(
        build.PROVENANCE, scan.findings, sources, who, profile=GERMAN, series_number=NUMBER, at=at
    )
    finish(document)
    return document


def _notice(kind: NoticeKind, report: Report, scan: Scan) -> Dataset:
    profile = replace(GERMAN, notice=kind, report=report)
    return notice.build(build.PROVENANCE, NotRun.REFUSED, "too few", scan.headers, profile=profile)


def _older(kind: Report, scan: Scan) -> Dataset:
    report = compose(build.PROVENANCE, scan.findings, scan.headers, GERMAN)[-1]
    return older.build(build.PROVENANCE, report, profile=replace(GERMAN, report=kind))


def _capture(profile: Profile, number: int, scan: Scan) -> Dataset:
    return scan.captures(profile)[number]


OLDER = (Report.COMPREHENSIVE, Report.ENHANCED, Report.BASIC)
DOCUMENTS: dict[str, Callable[[Scan], Dataset]] = {
    "presentation": _presentation,
    "key images": _key_images,
    "rejection": _rejection,
    "pdf": _pdf,
    "notice as picture": partial(_notice, NoticeKind.SC, Report.NONE),
    "notice": partial(_notice, NoticeKind.SR, Report.NONE),
    "notice 3D": partial(_notice, NoticeKind.SR, Report.COMPREHENSIVE_3D),
    **{kind.value: partial(_older, kind) for kind in OLDER},
    "summary": partial(_capture, GERMAN, 0),
    "multi-frame capture": partial(_capture, replace(FULL, multiframe=True), 1),
}
SCANS: dict[str, Callable[[], Scan]] = {
    "oblique": lambda: pictures.scan("oblique", "anisotropic"),
    "multi-frame": lambda: pictures.scan(multiframe=True),
    "radiograph": pictures.radiograph,
}
CASES = [
    (document, scan)
    for document in DOCUMENTS
    for scan in SCANS
    # The report of a radiograph is the builder of the report's own matter.
    if scan != "radiograph" or document not in [kind.value for kind in OLDER]
]


@pytest.fixture(scope="module")
def scans() -> dict[str, Scan]:
    return {name: make() for name, make in SCANS.items()}


@pytest.mark.parametrize(("document", "scan"), CASES, ids=[f"{d}, {s}" for d, s in CASES])
def test_nothing_is_wrong_with_a_document(document: str, scan: str, scans: dict[str, Scan], tmp_path: Path) -> None:
    dataset = DOCUMENTS[document](scans[scan])
    (file,) = write([dataset], tmp_path)
    assert judges.dciodvfy(file.path) == []
    if dataset.Modality in ("SR", "KO"):
        assert judges.dsrdump(file.path) == []
    if dataset.Modality == "PR":
        checked = _run("dcmpschk", "-v", str(file.path))
        assert checked.returncode == 0
        assert "Test passed" in checked.stdout + checked.stderr
    if dataset.Modality == "OT":
        assert _run("dcmj2pnm", "+on", str(file.path), str(tmp_path / "picture.png")).returncode == 0
        with Image.open(tmp_path / "picture.png") as picture:
            frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns, 3)
            assert np.array_equal(np.asarray(picture), frames[0])


def test_dcmtk_shows_an_image_as_its_presentation_state_asks(tmp_path: Path) -> None:
    scan = pictures.scan()
    for header in scan.headers:
        header.RescaleIntercept, header.RescaleSlope = "-1024", "1"
    state = _presentation(scan)
    image = scan.headers[4]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 0
    # The middle of the window, and a fifth of its width above.
    pixels = np.full((pictures.ROWS, pictures.COLUMNS), 1024 + 40, np.uint16)
    pixels[:50] += 80
    image.PixelData = pixels.tobytes()
    files = write([image, state], tmp_path)
    shown = tmp_path / "shown.pgm"
    assert _run("dcmp2pgm", "-p", str(files[1].path), str(files[0].path), str(shown)).returncode == 0
    with Image.open(shown) as picture:
        grey = np.asarray(picture).astype(int)
    assert abs(grey[150, 90] - 127) <= 2
    assert abs(grey[20, 90] - (127 + 255 / 5)) <= 2


@pytest.mark.long
@pytest.mark.slow
def test_pixelmed_finds_no_error_in_an_older_report(scans: dict[str, Scan], tmp_path: Path) -> None:
    (file,) = write([_older(Report.COMPREHENSIVE, scans["oblique"])], tmp_path)
    assert judges.pixelmed(file.path, tmp_path) == []


def test_dcmpschk_finds_a_planted_error(scans: dict[str, Scan], tmp_path: Path) -> None:
    state = _presentation(scans["oblique"])
    del state.DisplayedAreaSelectionSequence
    (file,) = write([state], tmp_path)
    checked = _run("dcmpschk", "-v", str(file.path))
    assert "Test passed" not in checked.stdout + checked.stderr


def _run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(peers.program(program)), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
