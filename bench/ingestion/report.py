"""From measurements to medians, ratios, targets and tables. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

PEERS = {"dcmtk": "DCMTK", "orthanc": "Orthanc", "pynetdicom": "pynetdicom"}
MEMORY_LIMIT_MIB = 150
_OURS = "ainode"
_MIB = 1 << 20


@dataclass(frozen=True)
class Run:
    """One measurement. Sizes in bytes; ``start_seconds``, the sender's own start, is not part of ``seconds``."""

    receiver: str
    corpus: str
    associations: int
    objects: int
    bytes: int
    seconds: float
    start_seconds: float
    cpu_seconds: float
    peak_process_bytes: int
    peak_total_bytes: int


@dataclass(frozen=True, order=True)
class Case:
    """What is compared: the same objects over as many associations."""

    corpus: str
    associations: int


@dataclass(frozen=True)
class Summary:
    """Medians of the runs of one receiver in one case; ``slowest`` and ``fastest`` in objects/s; memory at its peak."""

    runs: int
    objects_per_second: float
    slowest: float
    fastest: float
    mb_per_second: float
    cpu_seconds_per_1000: float
    start_seconds: float
    peak_process_mib: float
    peak_total_mib: float


Summaries = Mapping[Case, Mapping[str, Summary]]


@dataclass(frozen=True)
class Target:
    """``receiver`` takes at least ``factor`` × the objects/s of ``peer`` in ``case``."""

    case: Case
    receiver: str
    factor: float
    peer: str


TARGETS = (
    Target(Case("ct", 1), "ainode-none", 0.9, "dcmtk"),
    Target(Case("ct", 1), "ainode-instance", 2.5, "orthanc"),
    Target(Case("ct", 1), "ainode-instance", 4.0, "pynetdicom"),
    Target(Case("ct", 4), "ainode-none", 0.95, "dcmtk"),
    Target(Case("ct", 4), "ainode-instance", 0.8, "dcmtk"),
    Target(Case("ct", 4), "ainode-instance", 2.0, "orthanc"),
    *(
        Target(Case("mr", associations), receiver, 0.7, "dcmtk")
        for associations in (1, 4)
        for receiver in ("ainode-none", "ainode-instance")
    ),
)


@dataclass(frozen=True)
class Verdict:
    """What came of a target; ``met`` is None where it was not measured."""

    target: str
    measured: str
    met: bool | None


def summarise(runs: Iterable[Run]) -> dict[Case, dict[str, Summary]]:
    """Medians by case and receiver, in the order in which both first appear."""
    grouped: dict[Case, dict[str, list[Run]]] = {}
    for run in runs:
        grouped.setdefault(Case(run.corpus, run.associations), {}).setdefault(run.receiver, []).append(run)
    return {case: {key: _summary(each) for key, each in of.items()} for case, of in grouped.items()}


def _summary(runs: Sequence[Run]) -> Summary:
    def median(value: Callable[[Run], float]) -> float:
        return statistics.median(map(value, runs))

    rates = [run.objects / run.seconds for run in runs]
    return Summary(
        runs=len(runs),
        objects_per_second=statistics.median(rates),
        slowest=min(rates),
        fastest=max(rates),
        mb_per_second=median(lambda run: run.bytes / run.seconds / 1e6),
        cpu_seconds_per_1000=median(lambda run: 1000 * run.cpu_seconds / run.objects),
        start_seconds=median(lambda run: run.start_seconds),
        peak_process_mib=max(run.peak_process_bytes for run in runs) / _MIB,
        peak_total_mib=max(run.peak_total_bytes for run in runs) / _MIB,
    )


def ratio(of: Mapping[str, Summary], receiver: str, peer: str) -> float | None:
    """The receiver's objects/s over the peer's; None where one of them is missing."""
    if receiver not in of or peer not in of:
        return None
    return of[receiver].objects_per_second / of[peer].objects_per_second


def verdicts(summaries: Summaries) -> list[Verdict]:
    """Every target of throughput, and that of memory over all cases of ours."""
    return [*(_throughput(target, summaries) for target in TARGETS), _memory(summaries)]


def _throughput(target: Target, summaries: Summaries) -> Verdict:
    case, found = target.case, ratio(summaries.get(target.case, {}), target.receiver, target.peer)
    plural = "association" if case.associations == 1 else "associations"
    wanted = f"{case.corpus}, {case.associations} {plural}: {target.receiver} ≥ {target.factor:g} × {target.peer}"
    if found is None:
        return Verdict(wanted, "not measured", None)
    return Verdict(wanted, f"{found:.2f} ×", found >= target.factor)


def _memory(summaries: Summaries) -> Verdict:
    peaks = {
        f"{key}, {case.corpus}, {case.associations}": summary.peak_process_mib
        for case, of in summaries.items()
        for key, summary in of.items()
        if key.startswith(_OURS)
    }
    wanted = f"every case: peak memory of each process of ainode < {MEMORY_LIMIT_MIB} MiB"
    if not peaks:
        return Verdict(wanted, "not measured", None)
    largest = max(peaks, key=lambda name: peaks[name])
    return Verdict(wanted, f"{peaks[largest]:.0f} MiB ({largest})", peaks[largest] < MEMORY_LIMIT_MIB)


def columns() -> list[str]:
    """The heads of ``rows``."""
    measures = ["objects/s", "from–to", "MB/s", "CPU s/1,000", "peak MiB", "sum MiB"]
    return ["receiver", *measures, *(f"× {name}" for name in PEERS.values())]


def rows(of: Mapping[str, Summary], titles: Mapping[str, str]) -> list[list[str]]:
    """One row for each receiver of a case, in the order of ``titles``."""
    return [_row(of, key, title) for key, title in titles.items() if key in of]


def _row(of: Mapping[str, Summary], key: str, title: str) -> list[str]:
    summary = of[key]
    ratios = [ratio(of, key, peer) for peer in PEERS]
    return [
        title,
        _number(summary.objects_per_second),
        f"{_number(summary.slowest)}–{_number(summary.fastest)}",
        _number(summary.mb_per_second),
        _number(summary.cpu_seconds_per_1000),
        f"{summary.peak_process_mib:.0f}",
        f"{summary.peak_total_mib:.0f}",
        *("" if each is None else f"{each:.2f}" for each in ratios),
    ]


def _number(value: float) -> str:
    """Three digits, which is more than a run repeats."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def as_json(runs: Sequence[Run], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The result file: ``facts`` of the bench, each run, and what they come to."""
    summaries = summarise(runs)
    return {
        **facts,
        "summaries": [
            {**asdict(case), "receiver": key, **asdict(summary), **_ratios(of, key)}
            for case, of in summaries.items()
            for key, summary in of.items()
        ],
        "targets": [asdict(verdict) for verdict in verdicts(summaries)],
        "runs": [asdict(run) for run in runs],
    }


def _ratios(of: Mapping[str, Summary], key: str) -> dict[str, float | None]:
    return {f"over_{peer}": ratio(of, key, peer) for peer in PEERS}


def heading(case: Case, corpora: Mapping[str, str]) -> str:
    """The title of a case's table; ``corpora`` gives those of the corpora by name."""
    plural = "association" if case.associations == 1 else "associations"
    return f"{corpora[case.corpus]}, {case.associations} {plural}"


def markdown(result: Mapping[str, Any]) -> str:
    """The result file as the section of a document."""
    summaries, machine = summarise(Run(**run) for run in result["runs"]), result["machine"]
    lines = [
        f"## Measured on {result['date']}",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB of memory, {machine['kernel']}, "
        f"{machine['file_system']} on {machine['disk']}; load average at the start {machine['load']}. Medians of "
        f"{result['repeat']} rounds"
        + ("; reduced corpora (`--quick`): no figures to compare." if result["quick"] else "."),
        "",
        *_markdown_table(["program", "version"], [[k, v] for k, v in result["versions"].items()]),
    ]
    for case, of in summaries.items():
        table = _markdown_table(columns(), rows(of, result["receivers"]), align="---:")
        lines += ["", f"### {heading(case, result['corpora'])}", "", *table]
    judged = [[v.target, v.measured, _met(v)] for v in verdicts(summaries)]
    lines += ["", "### Targets", "", *_markdown_table(["target", "measured", "met"], judged)]
    lines += ["", *(f"- not measured: {name}: {why}" for name, why in result["left_out"].items())]
    return "\n".join(lines).rstrip() + "\n"


def _met(verdict: Verdict) -> str:
    return {True: "yes", False: "no", None: "–"}[verdict.met]


def _markdown_table(head: Sequence[str], body: Iterable[Sequence[str]], align: str = "---") -> list[str]:
    """The lines of a table; ``align`` is that of every column but the first."""
    rule = ["---", *(align for _ in head[1:])]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *body)]
