"""The ingest bench: its sums, its corpora and its tables. What it measures is never part of a test."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from ingest import cases, turned
from ingestion.corpus import CORPORA, make, quick, share, split
from ingestion.machine import cpu_seconds, tree
from ingestion.receivers import RECEIVERS, held
from ingestion.report import TARGETS, Case, Run, as_json, columns, markdown, ratio, rows, summarise, verdicts
from pydicom import dcmread

BENCH = Path(__file__).resolve().parents[2] / "bench" / "ingest.py"
TITLES = {key: receiver.title for key, receiver in RECEIVERS.items()}
CT_1 = Case("ct", 1)
TINY = replace(CORPORA[0], objects=5, size=8)


def a_run(receiver: str, *, seconds: float = 1.0, case: Case = CT_1, memory_mib: int = 100) -> Run:
    return Run(
        receiver=receiver,
        corpus=case.corpus,
        associations=case.associations,
        objects=500,
        bytes=250_000_000,
        seconds=seconds,
        start_seconds=0.05,
        cpu_seconds=0.7,
        peak_process_bytes=memory_mib << 20,
        peak_total_bytes=(memory_mib + 20) << 20,
    )


def test_a_summary_holds_medians_and_the_highest_memory() -> None:
    runs = [a_run("dcmtk", seconds=seconds, memory_mib=int(10 * seconds)) for seconds in (1.0, 5.0, 2.0)]
    summary = summarise(runs)[CT_1]["dcmtk"]
    assert (summary.runs, summary.objects_per_second, summary.slowest, summary.fastest) == (3, 250, 100, 500)
    assert summary.mb_per_second == 125
    assert summary.cpu_seconds_per_1000 == pytest.approx(1.4)
    assert (summary.peak_process_mib, summary.peak_total_mib) == (50, 70)


def test_ratios_compare_medians_within_one_case() -> None:
    of = summarise([a_run("ainode-none", seconds=2), a_run("dcmtk"), a_run("dcmtk", case=Case("ct", 4))])[CT_1]
    assert ratio(of, "ainode-none", "dcmtk") == 0.5
    assert ratio(of, "ainode-none", "orthanc") is None


def test_a_target_is_met_failed_or_not_measured() -> None:
    runs = [a_run("ainode-none", seconds=1 / 0.9), a_run("dcmtk"), a_run("orthanc", seconds=4)]
    found = {verdict.target: verdict for verdict in verdicts(summarise([*runs, a_run("ainode-instance", seconds=2)]))}
    assert len(found) == len(TARGETS) + 1
    assert found["ct, 1 association: ainode-none ≥ 0.9 × dcmtk"].met is True
    assert found["ct, 1 association: ainode-instance ≥ 2.5 × orthanc"].met is False
    assert found["ct, 1 association: ainode-instance ≥ 2.5 × orthanc"].measured == "2.00 ×"
    assert found["ct, 1 association: ainode-instance ≥ 4 × pynetdicom"].met is None


@pytest.mark.parametrize(("memory_mib", "met"), [(149, True), (150, False)])
def test_the_memory_target_looks_at_our_largest_process_only(memory_mib: int, met: bool) -> None:
    runs = [a_run("ainode-none"), a_run("ainode-instance", memory_mib=memory_mib), a_run("orthanc", memory_mib=999)]
    verdict = verdicts(summarise(runs))[-1]
    assert verdict.met is met
    assert verdict.measured == f"{memory_mib} MiB (ainode-instance, ct, 1)"


def test_a_table_has_a_row_for_each_receiver_measured_and_blanks_for_missing_peers() -> None:
    of = summarise([a_run("dcmtk"), a_run("ainode-none", seconds=2)])[CT_1]
    table = [dict(zip(columns(), row, strict=True)) for row in rows(of, TITLES)]
    assert [row["receiver"] for row in table] == ["ainode, sync none", "DCMTK storescp --fork"]
    assert (table[0]["objects/s"], table[0]["MB/s"], table[0]["× DCMTK"]) == ("250", "125", "0.50")
    assert table[0]["× Orthanc"] == ""


def test_the_document_section_comes_from_the_result_file_alone() -> None:
    facts = {
        "date": "2026-01-02",
        "machine": {
            "cpu": "Some CPU",
            "cores": 2,
            "memory_gib": 8.0,
            "kernel": "Linux 6",
            "file_system": "ext4",
            "disk": "/dev/a",
            "load": 0.1,
        },
        "versions": {"Orthanc": "Orthanc 1.10.1"},
        "repeat": 5,
        "quick": False,
        "receivers": TITLES,
        "corpora": {"ct": "CT, 512 KiB"},
        "left_out": {"orthanc": "Orthanc is not installed"},
    }
    result = json.loads(json.dumps(as_json([a_run("ainode-none"), a_run("dcmtk")], facts)))
    text = markdown(result)
    assert "## Measured on 2026-01-02" in text
    assert "### CT, 512 KiB, 1 association\n" in text
    assert "| ainode, sync none | 500 | 500–500 | 250 | 1.4 | 100 | 120 | 1.00 |  |  |" in text
    assert "| ct, 1 association: ainode-none ≥ 0.9 × dcmtk | 1.00 × | yes |" in text
    assert "- not measured: orthanc: Orthanc is not installed" in text
    assert result["summaries"][0]["over_dcmtk"] == 1


def test_shares_are_even_and_lose_nothing() -> None:
    shares = split(range(10), 4)
    assert sorted(map(len, shares)) == [2, 2, 3, 3]
    assert Counter(item for each in shares for item in each) == Counter(range(10))


def test_a_single_object_goes_over_one_association_only() -> None:
    assert [(c.name, n) for c, n in cases(CORPORA, [1, 4])] == [
        ("ct", 1),
        ("ct", 4),
        ("mr", 1),
        ("mr", 4),
        ("multiframe", 1),
    ]


def test_every_receiver_comes_first_once_in_as_many_rounds() -> None:
    assert {turned("abc", number)[0] for number in range(3)} == set("abc")
    assert turned("abc", 4) == ["b", "c", "a"]


def test_the_corpora_are_what_the_documentation_says() -> None:
    sizes = [(corpus.objects, corpus.pixel_bytes) for corpus in CORPORA]
    assert sizes == [(500, 512 << 10), (2000, 128 << 10), (1, 512 << 20)]
    assert all(quick(corpus).objects <= 50 and quick(corpus).pixel_bytes <= 32 << 20 for corpus in CORPORA)


def test_a_corpus_is_readable_distinct_and_the_same_each_time(tmp_path: Path) -> None:
    first, again = make(TINY, tmp_path / "one"), make(TINY, tmp_path / "two")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    objects = [dcmread(path) for path in first]
    assert len({o.SOPInstanceUID for o in objects}) == len({o.PixelData for o in objects}) == 5
    assert len({o.StudyInstanceUID for o in objects}) == 1
    assert all(len(o.PixelData) == TINY.pixel_bytes for o in objects)


def test_a_multiframe_object_places_every_frame(tmp_path: Path) -> None:
    (path,) = make(replace(CORPORA[2], size=8, frames=3), tmp_path)
    found = dcmread(path)
    assert (found.NumberOfFrames, found.pixel_array.shape) == (3, (3, 8, 8))
    positions = [f.PlanePositionSequence[0].ImagePositionPatient[2] for f in found.PerFrameFunctionalGroupsSequence]
    assert positions == [0, 1, 2]


def test_only_whole_objects_count_as_held(tmp_path: Path) -> None:
    directories = share(make(TINY, tmp_path / "corpora"), 2, tmp_path / "shares")
    assert [held(directory, TINY.pixel_bytes) for directory in directories] == [3, 2]
    cut = directories[0] / "00000.dcm"
    content = cut.read_bytes()
    cut.unlink()
    cut.write_bytes(content[: TINY.pixel_bytes])
    (directories[0] / "index.db").write_bytes(bytes(10_000))
    assert held(directories[0], TINY.pixel_bytes + 132) == 2


BURN = """
import os, time
child = os.fork()
if not child:
    while time.process_time() < 0.5:
        pass
    os._exit(0)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
print("ended", flush=True)
input()
os.wait()
print("waited for", flush=True)
input()
"""


def test_the_time_of_a_child_counts_once_before_and_after_its_parent_waited_for_it() -> None:
    with subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"ended\n"
        assert len(tree(process.pid)) == 2
        ended = cpu_seconds(process.pid)
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"waited for\n"
        assert tree(process.pid) == [process.pid]
        waited_for = cpu_seconds(process.pid)
        process.communicate(b"\n")
    assert ended >= 0.45
    assert waited_for == pytest.approx(ended, abs=0.1)


def test_help_says_what_it_does() -> None:
    done = subprocess.run([sys.executable, BENCH, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--markdown" in done.stdout
    assert "multiframe" in done.stdout
