"""What the command line prints."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from config.profiles import TRANSFER_SYNTAXES, profiles
from config.settings import Settings, peers
from config.values import did_you_mean
from node.core import certificates
from node.dicom.scu import StorageSender
from node.dicom.send_dir import Collected, Sent, collect, send_files
from node.dicom.tls import Certificates
from node.domain.delivery import Delivery, DeliveryState
from node.domain.errors import InvalidInput, PeerUnreachable
from node.domain.ids import checked_ae_title
from node.domain.job import Job, JobOutput, Outcome, Role
from node.domain.peer import Peer, Verify
from node.domain.profile import Profile
from node.domain.retention import Kind
from node.domain.study import Study
from node.services.prune import Due
from node.services.queries import NodeStatus, PeerStatus

if TYPE_CHECKING:  # it brings all that writes results, a quarter of what a command takes to start
    from node.offline import Explained

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

_ADDRESS = re.compile(r"(?P<ae>[^@]+)@(?P<host>[^@]+):(?P<port>\d+)")
_SHOWN_FAILURES = 5


def peer_of(to: str, settings: Settings, option: str = "--to") -> Peer:
    """A configured peer by its name, or any by ``AE@host:port``; ``option`` is where it was given.

    Raises:
        InvalidInput: neither.
    """
    configured = peers(settings).get(to)
    if configured is not None and configured.port is not None:
        return configured
    address = _ADDRESS.fullmatch(to)
    if address is None:
        known = ", ".join(name for name, peer in peers(settings).items() if peer.port) or "none"
        raise InvalidInput(option, f"{to!r} is no peer with a port", f"Give AE@host:port, or one of: {known}")
    return Peer(to, checked_ae_title(address["ae"], option), address["host"], int(address["port"]), send=True)


def send_folder(folder: Path, to: str, settings: Settings) -> int:
    """Send a folder with a progress bar; returns the exit code."""
    peer = peer_of(to, settings)
    collected = collect(folder)
    if not collected.files:
        err.print(f"{folder}: no DICOM files")
        return 1
    failed = send_collected(collected, peer, settings.node.ae_title, certificates(settings))
    for sent in failed[:_SHOWN_FAILURES]:
        err.print(f"{sent.path}: {sent.status:04X} {sent.comment}")
    accepted = len(collected.files) - len(failed)
    skipped = f", {collected.skipped} files were no DICOM files" if collected.skipped else ""
    out.print(f"{accepted} of {len(collected.files)} accepted by {peer.ae_title}{skipped}")
    return 1 if failed else 0


def echo(to: str, settings: Settings) -> None:
    """C-ECHO, and say how long it took.

    Raises:
        PeerUnreachable: no association, or another answer than success.
    """
    peer = peer_of(to, settings)
    started = time.monotonic()
    StorageSender(settings.node.ae_title, certificates(settings)).echo(peer)
    out.print(f"{peer.ae_title} answered in {(time.monotonic() - started) * 1000:.0f} ms")


def send_collected(collected: Collected, peer: Peer, ae_title: str, tls: Certificates | None = None) -> list[Sent]:
    """Send files with a progress bar; returns those that the peer did not accept, unanswered ones included."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    answered: list[Sent] = []
    with Progress(*columns, console=err) as progress:
        bar = progress.add_task(f"C-STORE to {peer.ae_title}", total=len(collected.files))

        def one(sent: Sent) -> None:
            answered.append(sent)
            progress.advance(bar)

        try:
            send_files(StorageSender(ae_title, tls), peer, collected.files, one)
        except PeerUnreachable as error:
            done = {sent.path for sent in answered}
            answered += [Sent(path, 0x0110, str(error)) for path in collected.files if path not in done]
    return [sent for sent in answered if not sent.accepted]


def show_run(output: JobOutput, *, as_json: bool) -> int:
    """Print how a run ended; returns the exit code: 0 succeeded, 2 refused, 1 failed."""
    code = {Outcome.SUCCEEDED: 0, Outcome.REFUSED: 2, Outcome.FAILED: 1}[output.outcome]
    results = [str(r.path) for r in output.results]
    if as_json:
        document = {
            "outcome": output.outcome.value,
            "reason": output.reason,
            "findings": dict(output.findings),
            "seconds": dict(output.timings),
            "results": results,
        }
        out.print_json(json.dumps(document))
        return code
    if output.outcome is not Outcome.SUCCEEDED:
        err.print(f"{output.outcome.value}: {output.reason}")
        return code
    out.print(findings_table(output.findings))
    for note in output.findings.get("notes", []):
        out.print(f"  {escape(note)}")
    spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in output.timings.items())
    out.print(f"{len(results)} result objects in {output.results[0].path.parent} ({spent})")
    return code


def findings_table(findings: Any, truth: dict[tuple[str, str], float] | None = None) -> Table:
    """The measurements of a findings summary; with ``truth`` ((region, measurement) to value) beside them."""
    table = Table("region", "measurement", box=None, pad_edge=False)
    table.add_column("found", justify="right")
    if truth is not None:
        table.add_column("truth", justify="right")
    table.add_column("unit")
    for region_key, region in findings["regions"].items():
        for key, m in region["measurements"].items():
            known = (truth or {}).get((region_key, key))
            beside = [] if truth is None else ["" if known is None else f"{known:,.2f}"]
            table.add_row(escape(region["label"]), escape(m["name"]), f"{m['value']:,.2f}", *beside, escape(m["unit"]))
    return table


@dataclass(frozen=True)
class NamedProfile:
    """A profile, and the peers that have it."""

    profile: Profile
    peers: tuple[str, ...]


def profiles_of(settings: Settings) -> list[NamedProfile]:
    """Every profile, the built-in ones first."""
    having = {name: tuple(n for n, p in settings.peers.items() if p.profile == name) for name in profiles(settings)}
    return [NamedProfile(profile, having[name]) for name, profile in profiles(settings).items()]


def profile_of(name: str, settings: Settings) -> Profile:
    """A profile by its name.

    Raises:
        InvalidInput: there is none.
    """
    known = profiles(settings)
    if name not in known:
        fix = did_you_mean(name, known) or f"They are {', '.join(known)}"
        raise InvalidInput("profile", f"no profile is named {name}", fix)
    return known[name]


def show_profiles(found: list[NamedProfile]) -> None:
    """Profiles, with what tells them apart."""
    table = Table("profile", "SR", "SEG", "captures", "also", "notice", "language", "peers", box=None)
    for named in found:
        p = named.profile
        also = ", ".join(key for key, value in vars(p).items() if value is True)
        table.add_row(p.name, p.report, p.segments, p.captures, also, p.notice, p.language, ", ".join(named.peers))
    out.print(table)


def show_profile(profile: Profile) -> None:
    """Every key of a profile, as the settings have it."""
    words = {str(uid): word for word, uid in TRANSFER_SYNTAXES.items()}
    for key, value in vars(profile).items():
        match value:
            case bool():
                said = str(value).lower()
            case Mapping():
                said = ", ".join(f"{kind}: {text}" for kind, text in value.items()) or "those of the node"
            case None:
                said = "that of the node"
            case _:
                said = words.get(str(value), str(value))
        out.print(f"{key:16}{escape(said)}")


def show_routes(explained: list[Explained]) -> None:
    """What each route says of a study."""
    if not explained:
        out.print("no routes are configured")
    for route in explained:
        to = ", ".join(route.send_to) or "nobody"
        verdict = f"[green]takes it[/]: {route.pipeline}, results to {to}" if route.matched else "does not take it"
        out.print(f"[bold]{route.route}[/] {verdict}")
        for series in route.series:
            out.print(f"  series {series.series_uid}: {series.reason}", style=None if series.matched else "dim")


def show_status(status: NodeStatus) -> None:
    """The node at one moment."""
    ready = "[green]ready[/]" if status.ready else "[red]not ready[/]: " + "; ".join(status.problems)
    out.print(f"[bold]{status.ae_title}[/] ainode {status.version}, {ready}")
    for name, counts in (("studies", status.studies), ("jobs", status.jobs), ("deliveries", status.deliveries)):
        said = ", ".join(f"{count} {state.value}" for state, count in counts.items() if count) or "none"
        out.print(f"  {name:11}{said}")
    out.print(
        f"  {'instances':11}{status.instances} kept, {status.asides} aside, {status.free_bytes / 1e9:.1f} GB free"
    )
    for peer in status.peers:
        if peer.send:
            waiting = peer.deliveries[DeliveryState.PENDING] + peer.deliveries[DeliveryState.SENDING]
            dead = peer.deliveries[DeliveryState.DEAD]
            since = f", the oldest for {peer.oldest_pending_seconds:.0f} s" if peer.oldest_pending_seconds else ""
            out.print(f"  to {peer.name:8}{waiting} waiting{since}, {_arrived(peer)}, {dead} dead")
            if peer.circuit is not None and not peer.circuit.is_up:
                out.print(
                    f"     {'':8}does not answer since {peer.circuit.since:%Y-%m-%d %H:%M}: {peer.circuit.reason}"
                )


def _arrived(peer: PeerStatus) -> str:
    """What the peer has answered with success, and what of it was verified."""
    delivered, committed = peer.deliveries[DeliveryState.DELIVERED], peer.deliveries[DeliveryState.COMMITTED]
    if peer.verify is Verify.NONE:
        return f"{delivered + committed} delivered"
    since = f", the oldest for {peer.oldest_unverified_seconds:.0f} s" if peer.oldest_unverified_seconds else ""
    return f"{peer.unverified} delivered and not verified{since}, {committed} committed"


def show_studies(studies: list[Study]) -> None:
    """Studies, the latest first."""
    table = Table("StudyInstanceUID", "state", "revision", "instances", "from", "last instance", box=None)
    for s in studies:
        last = f"{s.last_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(s.study_uid, s.state.value, str(s.revision), str(s.instances), s.peer or "", last)
    out.print(table)


def show_jobs(jobs: list[Job]) -> None:
    """Jobs, the latest first."""
    table = Table("job", "state", "attempt", "model", "StudyInstanceUID", "revision", "reason", box=None)
    for j in jobs:
        model = f"{j.model.name}@{j.model.version}" + ("" if j.role is Role.CHAMPION else f" ({j.role.value})")
        table.add_row(j.id, j.state.value, str(j.attempt), model, j.study_uid, str(j.revision), j.reason or "")
    out.print(table)


def show_deliveries(deliveries: list[Delivery]) -> None:
    """Deliveries, the latest first."""
    table = Table("delivery", "peer", "state", "attempt", "SOPInstanceUID", "reason", box=None)
    for d in deliveries:
        table.add_row(str(d.id), d.peer, d.state.value, str(d.attempt), d.sop_instance_uid, d.reason or "")
    out.print(table)


_COUNTED = {
    Kind.STUDIES: "studies",
    Kind.ASIDE: "objects aside",
    Kind.QUARANTINE: "runs in quarantine",
    Kind.HISTORY: "rows",
}


def show_due(due: Due, *, removed: bool) -> None:
    """What is old enough, and what keeps the rest of it."""
    said = "removed" if removed else "would go"
    for kind, amount in due.amounts.items():
        out.print(f"{amount.number} {_COUNTED[kind]}, {amount.size / 1e6:.1f} MB: {said}")
    for why, number in due.held.most_common():
        out.print(f"{number} studies stay: {why}", style="dim")
