"""How fast objects come in, side by side in one run: ainode, DCMTK storescp, Orthanc, stock pynetdicom.

    python bench/ingest.py                          everything, medians of five
    python bench/ingest.py --quick                  a smoke run: small corpora, one round
    python bench/ingest.py --markdown RESULT.json   print a result as the section of docs/performance.md

Each measurement starts its receiver anew on an empty folder of the same file system. The order of the receivers turns
by one from round to round, so that a drift of the machine meets all alike. docs/performance.md says how to read it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from ingestion.corpus import CORPORA, Corpus, make, quick
from ingestion.machine import Machine
from ingestion.measure import measure
from ingestion.receivers import RECEIVERS, ROOT, BenchError, Receiver, dcmtk_version, system_program
from ingestion.report import Run, as_json, columns, heading, markdown, rows, summarise, verdicts
from rich.console import Console
from rich.table import Table

_Item = TypeVar("_Item")
_TABLE_WIDTH = 132


def main() -> None:
    """Read the arguments, then measure or print."""
    options = _options()
    if options.markdown is not None:
        print(markdown(json.loads(options.markdown.read_text())), end="")
        return
    console = Console(width=max(Console().width, _TABLE_WIDTH))
    if system_program("storescu") is None:
        raise SystemExit("DCMTK's storescu is not installed: it is the sender of every measurement")
    options.work.mkdir(parents=True, exist_ok=True)
    receivers, left_out = _able([RECEIVERS[key] for key in options.receivers])
    facts = _facts(options, receivers)
    runs, failed = _run(options, receivers, console)
    left_out |= failed
    for table in _tables(runs, facts["receivers"], facts["corpora"]):
        console.print(table)
    for name, why in left_out.items():
        console.print(f"not measured: {name}: {why}", markup=False)
    for verdict in verdicts(summarise(runs)):
        mark = {True: "[green]pass[/]", False: "[red]FAIL[/]", None: "    "}[verdict.met]
        console.print(f"{mark} {verdict.target}: {verdict.measured}")
    options.out.write_text(json.dumps(as_json(runs, {**facts, "left_out": left_out}), indent=2) + "\n")
    console.print(f"written to {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names, work = [corpus.name for corpus in CORPORA], ROOT / ".cache" / "bench-ingest"
    parser.add_argument("--repeat", type=int, default=5, help="rounds; odd, so that the median is one of them")
    parser.add_argument("--quick", action="store_true", help="50 objects, one round: shows that it works, no more")
    parser.add_argument("--corpora", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--associations", nargs="+", type=int, default=[1, 4, 8], metavar="N", help="1 4 8")
    parser.add_argument(
        "--receivers",
        nargs="+",
        choices=list(RECEIVERS),
        default=list(RECEIVERS),
        metavar="NAME",
        help=", ".join(RECEIVERS),
    )
    parser.add_argument("--work", type=Path, default=work, help="corpora and what is received; 4 GiB")
    parser.add_argument("--out", type=Path, help="the result file; WORK/result.json by default")
    parser.add_argument("--markdown", type=Path, metavar="RESULT", help="measure nothing, print this result file")
    options = parser.parse_args()
    options.work = options.work.absolute()
    options.out = options.out or options.work / "result.json"
    options.repeat = 1 if options.quick else options.repeat
    return options


def turned(items: Sequence[_Item], by: int) -> list[_Item]:
    """The items in their order, beginning with another one."""
    start = by % len(items) if items else 0
    return [*items[start:], *items[:start]]


def cases(corpora: Sequence[Corpus], associations: Sequence[int]) -> list[tuple[Corpus, int]]:
    """Every corpus over every number of associations for which it has objects enough."""
    return [(corpus, number) for corpus in corpora for number in corpus.associations(associations)]


def _able(receivers: Sequence[Receiver]) -> tuple[list[Receiver], dict[str, str]]:
    """Those that can run here, and why the others cannot."""
    problems = {receiver.key: receiver.problem() for receiver in receivers}
    left_out = {key: problem for key, problem in problems.items() if problem is not None}
    return [receiver for receiver in receivers if receiver.key not in left_out], left_out


def _facts(options: argparse.Namespace, receivers: Sequence[Receiver]) -> dict[str, Any]:
    """What a reader of the figures needs to know besides them."""
    return {
        "date": date.today().isoformat(),
        "machine": asdict(Machine.here(options.work)),
        "versions": {
            "DCMTK storescu (sender)": dcmtk_version(),
            **{receiver.title: receiver.version() for receiver in receivers},
        },
        "repeat": options.repeat,
        "quick": options.quick,
        "receivers": {receiver.key: receiver.title for receiver in receivers},
        "corpora": {corpus.name: corpus.title for corpus in _corpora(options)},
    }


def _corpora(options: argparse.Namespace) -> Iterator[Corpus]:
    for corpus in CORPORA:
        if corpus.name in options.corpora:
            yield quick(corpus) if options.quick else corpus


def _run(
    options: argparse.Namespace, receivers: Sequence[Receiver], console: Console
) -> tuple[list[Run], dict[str, str]]:
    """Every run, and why some gave no figure."""
    corpora = list(_corpora(options))
    with console.status("making the corpora"):
        files = {corpus.name: make(corpus, options.work / "corpora") for corpus in corpora}
    runs, failed = [], {}
    for number in range(options.repeat):
        for corpus, associations in cases(corpora, options.associations):
            for receiver in turned(receivers, number):
                where = f"{receiver.key}, {corpus.name}, {associations}"
                try:
                    run = measure(receiver, corpus, files[corpus.name], associations, options.work)
                except BenchError as error:
                    failed[f"{where}, round {number + 1}"] = str(error)
                    console.print(f"{number + 1}/{options.repeat} {where}: {error}", markup=False)
                    continue
                runs.append(run)
                console.print(
                    f"{number + 1}/{options.repeat} {where}: {run.objects / run.seconds:.1f} objects/s in "
                    f"{run.seconds:.2f} s (the sender's start: {run.start_seconds:.2f} s)",
                    markup=False,
                    highlight=False,
                )
    return runs, failed


def _tables(runs: Sequence[Run], titles: Mapping[str, str], corpora: Mapping[str, str]) -> Iterator[Table]:
    for case, of in summarise(runs).items():
        table = Table(title=heading(case, corpora), title_justify="left")
        for number, name in enumerate(columns()):
            table.add_column(name, justify="right" if number else "left")
        for row in rows(of, titles):
            table.add_row(*row)
        yield table


if __name__ == "__main__":
    main()
