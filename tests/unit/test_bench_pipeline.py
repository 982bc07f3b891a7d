"""The reading part of the pipeline bench: its sums, its readers and its tables. What it measures is never tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pipeline import markdown
from reading.corpora import CORPORA, make, series
from reading.measure import ReadError, Run, measure
from reading.readers import READERS, warm_folder
from reading.report import TARGETS, as_json, columns, disagreements, faster, rows, summarise, verdicts

from tests.builders import tiny_series

BENCH = Path(__file__).resolve().parents[2] / "bench" / "pipeline.py"
TITLES = {key: reader.title for key, reader in READERS.items()}


def a_run(reader: str, *, seconds: float = 1.0, corpus: str = "uncompressed", total: float = 5.0) -> Run:
    return Run(reader, corpus, "1.0", seconds, 2 * seconds, int(seconds * 100) << 20, 8, total, "float32")


def test_a_summary_holds_medians_and_the_highest_memory() -> None:
    summary = summarise([a_run("ainode", seconds=seconds) for seconds in (1.0, 5.0, 2.0)])["uncompressed"]["ainode"]
    assert (summary.runs, summary.seconds, summary.fastest, summary.slowest) == (3, 2.0, 1.0, 5.0)
    assert (summary.cpu_seconds, summary.peak_mib) == (4.0, 500)


def test_how_many_times_faster_is_told_within_one_corpus() -> None:
    of = summarise([a_run("ainode", seconds=2), a_run("monai", seconds=5), a_run("monai", corpus="rle")])
    assert faster(of["uncompressed"], "monai") == 2.5
    assert faster(of["uncompressed"], "simpleitk") is None


def test_a_target_is_met_failed_or_not_measured() -> None:
    runs = [a_run("ainode"), a_run("monai", seconds=6.0), a_run("simpleitk", seconds=1.4)]
    found = {verdict.target: verdict for verdict in verdicts(summarise(runs))}
    assert len(found) == len(TARGETS)
    assert found["uncompressed: ainode ≥ 6 × MONAI"].met is True
    assert found["uncompressed: ainode ≥ 1.5 × SimpleITK"].met is False
    assert found["jpeg-ls: ainode ≥ 1 × SimpleITK"].met is None


def test_readers_that_read_other_values_are_named() -> None:
    assert disagreements([a_run("ainode"), a_run("monai")]) == []
    assert disagreements([a_run("monai", total=4.0), a_run("ainode")]) == [
        "uncompressed: monai reads other values than ainode"
    ]


def test_the_result_file_prints_as_a_section() -> None:
    runs = [a_run("ainode"), a_run("simpleitk", seconds=1.75)]
    facts = {"series": "8 slices", "repeat": 1, "readers": TITLES, "left_out": ["failed: monai"]}
    facts["corpora"] = {name: corpus.title for name, corpus in CORPORA.items()}
    machine = {"cpu": "X", "cores": 2, "memory_gib": 4, "kernel": "Linux", "load": 0.1}
    part = json.loads(json.dumps(as_json(runs, facts)))
    text = markdown({"date": "2026-01-02", "machine": machine, "quick": False, "parts": {"reading": part}})
    assert text.startswith("## Pipelines, measured on 2026-01-02\n")
    assert "| SimpleITK ImageSeriesReader | 1.75 | 1.75–1.75 | 3.50 | 175 | 1.75 × |" in text
    assert "| uncompressed: ainode ≥ 1.5 × SimpleITK | 1.75 × | yes |" in text
    assert "- failed: monai" in text


def test_rows_come_in_the_order_of_the_readers() -> None:
    of = summarise([a_run("pydicom"), a_run("ainode")])["uncompressed"]
    found = rows(of, TITLES)
    assert [row[0] for row in found] == [TITLES["ainode"], TITLES["pydicom"]]
    assert {len(row) for row in found} == {len(columns())}


@pytest.mark.parametrize("reader", ["ainode", "pydicom"])
def test_a_measurement_reads_the_series(tmp_path: Path, reader: str) -> None:
    tiny_series(tmp_path / "study")
    files = series(tmp_path / "study", quick=False, cache=tmp_path)
    folder = make(CORPORA["rle"], files, tmp_path / "rle")
    make(CORPORA["uncompressed"], sorted(folder.iterdir())[:3], warm_folder(folder))
    run = measure(reader, "rle", folder, tmp_path / "log")
    assert run.voxels == 24 * 32 * 40
    assert run.dtype == "float32"
    assert run.seconds > 0
    assert run.peak_bytes > 0


def test_a_reader_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReadError, match="is not there"):
        measure("ainode", "rle", tmp_path / "empty", tmp_path / "log")


def test_the_bench_prints_its_help() -> None:
    done = subprocess.run([sys.executable, str(BENCH), "--help"], capture_output=True, text=True, check=True)
    assert "--parts" in done.stdout
