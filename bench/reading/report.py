"""From measurements to medians, ratios, targets and tables. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reading.measure import Run

OURS = "ainode"
PEERS = {"simpleitk": "SimpleITK", "monai": "MONAI", "pydicom": "pydicom"}
_MIB = 1 << 20


@dataclass(frozen=True)
class Summary:
    """The runs of one reader on one corpus: median, fastest and slowest seconds; memory at its peak."""

    runs: int
    seconds: float
    fastest: float
    slowest: float
    cpu_seconds: float
    peak_mib: float


@dataclass(frozen=True)
class Target:
    """ainode reads ``corpus`` in at most 1/``factor`` of the time that ``peer`` takes."""

    corpus: str
    peer: str
    factor: float


TARGETS = (
    Target("uncompressed", "monai", 6.0),
    Target("uncompressed", "simpleitk", 1.5),
    *(Target(corpus, "simpleitk", 1.0) for corpus in ("jpeg-ls", "jpeg-2000", "rle", "jpeg-lossless")),
)


@dataclass(frozen=True)
class Verdict:
    """What came of a target; ``met`` is None where it was not measured."""

    target: str
    measured: str
    met: bool | None


Summaries = Mapping[str, Mapping[str, Summary]]


def summarise(runs: Iterable[Run]) -> dict[str, dict[str, Summary]]:
    """By corpus and reader, in the order in which both first appear."""
    grouped: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        grouped.setdefault(run.corpus, {}).setdefault(run.reader, []).append(run)
    return {corpus: {key: _summary(each) for key, each in of.items()} for corpus, of in grouped.items()}


def _summary(runs: Sequence[Run]) -> Summary:
    seconds = [run.seconds for run in runs]
    return Summary(
        runs=len(runs),
        seconds=statistics.median(seconds),
        fastest=min(seconds),
        slowest=max(seconds),
        cpu_seconds=statistics.median(run.cpu_seconds for run in runs),
        peak_mib=max(run.peak_bytes for run in runs) / _MIB,
    )


def faster(of: Mapping[str, Summary], peer: str) -> float | None:
    """How many times as long as ainode a peer takes; None where one of them is missing."""
    if OURS not in of or peer not in of:
        return None
    return of[peer].seconds / of[OURS].seconds


def disagreements(runs: Iterable[Run]) -> list[str]:
    """Runs whose values are not those of ainode's first run of the same corpus."""
    runs = list(runs)
    ours = {run.corpus: run for run in reversed(runs) if run.reader == OURS}
    return sorted(
        {
            f"{run.corpus}: {run.reader} reads other values than ainode"
            for run in runs
            if (mine := ours.get(run.corpus)) and (run.voxels, run.sum) != (mine.voxels, mine.sum)
        }
    )


def verdicts(summaries: Summaries) -> list[Verdict]:
    """Every target."""
    found = []
    for target in TARGETS:
        ratio = faster(summaries.get(target.corpus, {}), target.peer)
        wanted = f"{target.corpus}: ainode ≥ {target.factor:g} × {PEERS[target.peer]}"
        if ratio is None:
            found.append(Verdict(wanted, "not measured", None))
        else:
            found.append(Verdict(wanted, f"{ratio:.2f} ×", ratio >= target.factor))
    return found


def columns() -> list[str]:
    """The heads of ``rows``."""
    return ["reader", "s", "from–to", "CPU s", "peak MiB", "ainode is faster"]


def rows(of: Mapping[str, Summary], titles: Mapping[str, str]) -> list[list[str]]:
    """One row for each reader of a corpus, in the order of ``titles``."""
    return [_row(of, key, title) for key, title in titles.items() if key in of]


def _row(of: Mapping[str, Summary], key: str, title: str) -> list[str]:
    summary, ratio = of[key], faster(of, key)
    return [
        title,
        f"{summary.seconds:.2f}",
        f"{summary.fastest:.2f}–{summary.slowest:.2f}",
        f"{summary.cpu_seconds:.2f}",
        f"{summary.peak_mib:.0f}",
        "" if ratio is None or key == OURS else f"{ratio:.2f} ×",
    ]


def as_json(runs: Sequence[Run], facts: Mapping[str, Any]) -> dict[str, Any]:
    """This part of the result file."""
    summaries = summarise(runs)
    return {
        **facts,
        "summaries": [
            {"corpus": corpus, "reader": key, **asdict(summary)}
            for corpus, of in summaries.items()
            for key, summary in of.items()
        ],
        "targets": [asdict(verdict) for verdict in verdicts(summaries)],
        "disagreements": disagreements(runs),
        "runs": [asdict(run) for run in runs],
    }


def markdown(result: Mapping[str, Any]) -> str:
    """This part of the result file as part of a document."""
    runs = [Run(**run) for run in result["runs"]]
    summaries = summarise(runs)
    versions = {run.reader: run.version for run in runs}
    told = ", ".join(f"{title} {versions[key]}" for key, title in result["readers"].items() if key in versions)
    lines = [f"### Reading: {result['series']}", "", f"{told}. Medians of {result['repeat']} rounds."]
    for corpus, of in summaries.items():
        lines += ["", f"#### {result['corpora'][corpus]}", "", *_table(columns(), rows(of, result["readers"]), "---:")]
    met = {True: "yes", False: "no", None: "–"}
    judged = [[verdict.target, verdict.measured, met[verdict.met]] for verdict in verdicts(summaries)]
    lines += ["", "#### Targets", "", *_table(["target", "measured", "met"], judged, "---"), ""]
    lines += [f"- {problem}" for problem in (*disagreements(runs), *result["left_out"])]
    return "\n".join(lines).rstrip() + "\n"


def _table(head: Sequence[str], body: Iterable[Sequence[str]], align: str) -> list[str]:
    rule = ["---", *(align for _ in head[1:])]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *body)]
