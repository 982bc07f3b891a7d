"""What a pipeline costs around its network, side by side in one run.

    python bench/pipeline.py                          everything, medians of five
    python bench/pipeline.py --quick                  a smoke run: 40 slices, one round
    python bench/pipeline.py --parts reading          some parts only
    python bench/pipeline.py --markdown RESULT.json   print a result as the section of docs/performance.md

The parts: ``reading``, a series of files to an array, by ainode, SimpleITK, MONAI and a loop over pydicom; ``bundle``,
one study through the same network and weights by ainode and by the function behind ``monai.bundle run``; ``images``,
studies of one image one by one and together. All take turns in every round, so that a drift of the machine meets all
alike. docs/performance.md says how to read it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from engines import measure as engines
from ingest import turned
from ingestion.machine import Machine
from reading import report as reading_report
from reading.corpora import CORPORA, make, series
from reading.measure import ReadError, Run, measure
from reading.readers import READERS, warm_folder
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
_TABLE_WIDTH = 120
_WARM_SLICES = 3

Part = Callable[[argparse.Namespace, Console], dict[str, Any]]


def main() -> None:
    """Read the arguments, then measure or print."""
    options = _options()
    if options.markdown is not None:
        print(markdown(json.loads(options.markdown.read_text())), end="")
        return
    console = Console(width=max(Console().width, _TABLE_WIDTH))
    options.work.mkdir(parents=True, exist_ok=True)
    result = {
        "date": date.today().isoformat(),
        "machine": asdict(Machine.here(options.work)),
        "quick": options.quick,
        "parts": {name: PARTS[name](options, console) for name in options.parts},
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    console.print(f"written to {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--repeat", type=int, default=5, help="rounds; odd, so that the median is one of them")
    parser.add_argument("--quick", action="store_true", help="40 slices, one round: shows that it works, no more")
    parser.add_argument("--study", type=Path, help="a folder with one CT series; a phantom of 275 slices by default")
    parser.add_argument("--corpora", nargs="+", choices=list(CORPORA), default=list(CORPORA), metavar="SYNTAX")
    parser.add_argument("--readers", nargs="+", choices=list(READERS), default=list(READERS), metavar="READER")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "bench-pipeline", help="the corpora; 1 GiB")
    parser.add_argument("--out", type=Path, help="the result file; WORK/result.json by default")
    parser.add_argument("--markdown", type=Path, metavar="RESULT", help="measure nothing, print this result file")
    options = parser.parse_args()
    options.work = options.work.absolute()
    options.out = options.out or options.work / "result.json"
    options.repeat = 1 if options.quick else options.repeat
    return options


def markdown(result: dict[str, Any]) -> str:
    """A result file as the section of a document."""
    machine = result["machine"]
    lines = [
        f"## Pipelines, measured on {result['date']}",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB of memory, {machine['kernel']}; load "
        f"average at the start {machine['load']}."
        + (" A reduced series (`--quick`): no figures to compare." if result["quick"] else ""),
        "",
    ]
    reports: dict[str, Callable[[dict[str, Any]], str]] = {
        "reading": reading_report.markdown,
        "bundle": engines.bundles_markdown,
        "images": engines.batches_markdown,
    }
    return "\n".join(lines) + "\n" + "\n".join(reports[name](part) for name, part in result["parts"].items())


def reading(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """A series of files to an array: this part of the result file."""
    files = series(options.study, options.quick, options.work)
    runs: list[Run] = []
    left_out = [
        f"not measured: {CORPORA[name].title}: {why}" for name in options.corpora if (why := CORPORA[name].problem)
    ]
    for name in options.corpora:
        if CORPORA[name].problem:
            continue
        folder = options.work / "corpora" / name
        with console.status(f"encoding: {CORPORA[name].title}"):
            make(CORPORA[name], files, folder)
            make(CORPORA["uncompressed"], sorted(folder.iterdir())[:_WARM_SLICES], warm_folder(folder))
        for number in range(options.repeat):
            for reader in turned(options.readers, number):
                try:
                    run = measure(reader, name, folder, options.work / "reader.log")
                except ReadError as error:
                    left_out.append(f"failed: {reader}, {name}, round {number + 1}: {error}")
                    continue
                runs.append(run)
                console.print(
                    f"{number + 1}/{options.repeat} {name}: {reader} {run.seconds:.2f} s", markup=False, highlight=False
                )
    titles = {key: READERS[key].title for key in options.readers}
    _print(runs, titles, left_out, console)
    facts = {
        "series": f"{len(files)} slices, {'a phantom' if options.study is None else 'a CT'}",
        "repeat": options.repeat,
        "readers": titles,
        "corpora": {name: CORPORA[name].title for name in options.corpora},
        "left_out": left_out,
    }
    return reading_report.as_json(runs, facts)


def _print(runs: list[Run], titles: dict[str, str], left_out: list[str], console: Console) -> None:
    summaries = reading_report.summarise(runs)
    for corpus, of in summaries.items():
        table = Table(title=CORPORA[corpus].title, title_justify="left")
        for number, column in enumerate(reading_report.columns()):
            table.add_column(column, justify="right" if number else "left")
        for row in reading_report.rows(of, titles):
            table.add_row(*row)
        console.print(table)
    for problem in (*reading_report.disagreements(runs), *left_out):
        console.print(problem, markup=False)
    for verdict in reading_report.verdicts(summaries):
        mark = {True: "[green]pass[/]", False: "[red]FAIL[/]", None: "    "}[verdict.met]
        console.print(f"{mark} {verdict.target}: {verdict.measured}")


def bundle(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """A bundle through the node's engine and through MONAI: this part of the result file."""
    return _engines(engines.bundles, options, console)


def images(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Studies of one image, one by one and together: this part of the result file."""
    return _engines(engines.batches, options, console)


def _engines(measured: Callable[..., dict[str, Any]], options: argparse.Namespace, console: Console) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        part = measured(
            Path(work), repeat=options.repeat, quick=options.quick, tell=partial(console.print, highlight=False)
        )
    console.print({key: value for key, value in part.items() if key != "runs"})
    return part


PARTS: dict[str, Part] = {"reading": reading, "bundle": bundle, "images": images}


if __name__ == "__main__":
    main()
