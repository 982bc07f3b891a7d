"""Fetch a study from a peer: what ``ainode pull`` does.

With a node running on the data directory it asks the peer to send there (C-MOVE), and the running node receives as it
does from everybody. With none it takes the study itself (C-GET) into the data directory; the next start of the node
settles and routes it. Either way the last word is what lies here, not what the peer counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from node.app import Receiver, is_running, only_one
from node.console import err, out, peer_of
from node.core import Core
from node.dicom.query import FoundStudy, find_instances, find_studies
from node.dicom.retrieve import Retrieved, SubOperations, get, move
from node.domain.errors import InvalidInput, NotFound, Rejected
from node.domain.ids import checked_uid
from node.domain.instance import Answer, Incoming
from node.domain.peer import Peer

_ROWS_SECONDS = 10.0  # a running node writes rows in batches, shortly after it has answered


class Operation(StrEnum):
    """How a study is fetched."""

    GET = "get"
    MOVE = "move"


@dataclass(frozen=True)
class Pulled:
    """How it ended: the study, how many instances the peer holds and how many of those are here now."""

    study: FoundStudy
    operation: Operation
    held: int
    here: int
    counts: SubOperations
    problem: str
    seconds: float


def pull(
    core: Core,
    peer: Peer,
    study_uid: str,
    operation: Operation | None,
    on_progress: Callable[[Operation, int, int], None],
) -> Pulled:
    """Fetch one study.

    Args:
        operation: None chooses C-MOVE where a node runs on the data directory, else C-GET.
        on_progress: told of (what was chosen, instances done, instances that the peer holds).

    Raises:
        InvalidInput: this way of fetching cannot work here; says which does.
        NotFound: the peer does not hold the study.
        PeerUnreachable, Rejected: the peer is not there, or refuses.
    """
    started = time.monotonic()
    chosen = _choose(core, peer, operation)
    ours = core.settings.node.ae_title
    matches = find_studies(peer, ae_title=ours, tls=core.tls, StudyInstanceUID=study_uid)
    found = [study for study in matches if study.study_uid == study_uid]
    instances = find_instances(peer, study_uid, ae_title=ours, tls=core.tls) if found else []
    if not instances:
        raise NotFound(f"{peer.name} holds no study {study_uid}. Look for its StudyInstanceUID there")

    def progressed(counts: SubOperations) -> None:
        on_progress(chosen, counts.completed + counts.failed + counts.warning, len(instances))

    progressed(SubOperations())
    if chosen is Operation.MOVE:
        ended = move(peer, study_uid, destination=ours, ae_title=ours, tls=core.tls, on_progress=progressed)
    else:
        ended = _get(core, peer, study_uid, {instance.sop_class_uid for instance in instances}, progressed)
    here = _here(core, {instance.sop_instance_uid for instance in instances}, failed=ended.counts.failed)
    seconds = round(time.monotonic() - started, 1)
    return Pulled(found[0], chosen, len(instances), here, ended.counts, ended.problem, seconds)


def _choose(core: Core, peer: Peer, operation: Operation | None) -> Operation:
    running = is_running(core.data_dir)
    if operation is Operation.GET and running:
        raise InvalidInput("--with", f"a node is running on {core.data_dir}", "Give move, and it receives the study")
    chosen = operation or (Operation.MOVE if running else Operation.GET)
    welcome = core.settings.node.accept_unknown_peers or any(
        known.receive for known in core.peers.values() if known.ae_title == peer.ae_title
    )
    if chosen is Operation.MOVE and not welcome:
        raise InvalidInput(
            "peers",
            f"none with the AE title {peer.ae_title} has receive: true, so this node refuses what it sends",
            "Set that, and restart the node",
        )
    return chosen


def _get(
    core: Core,
    peer: Peer,
    study_uid: str,
    sop_classes: Collection[str],
    on_progress: Callable[[SubOperations], None],
) -> Retrieved:
    refused: list[Answer] = []

    def receive(store: Callable[[Incoming], Answer], incoming: Incoming) -> Answer:
        answer = store(incoming)
        if answer.status != 0:
            refused.append(answer)
        return answer

    with only_one(core.data_dir), Receiver(core, core.metrics()).not_listening() as store:
        try:
            return get(
                peer,
                study_uid,
                sop_classes=sop_classes,
                ae_title=core.settings.node.ae_title,
                tls=core.tls,
                receive=partial(receive, store),
                on_progress=on_progress,
            )
        except Rejected as error:
            if not refused:
                raise
            first = f"{refused[0].status:04X} {refused[0].comment}".strip()
            raise Rejected(f"{len(refused)} instances could not be kept here: {first}. {error}") from error


def _here(core: Core, sop_instance_uids: Collection[str], *, failed: int) -> int:
    """How many of the instances have a row; waits for those of a running node."""
    deadline = time.monotonic() + _ROWS_SECONDS
    while True:
        with core.database.read() as tx:
            here = len(tx.instances.known(sop_instance_uids))
        if here >= len(sop_instance_uids) - failed or time.monotonic() > deadline:
            return here
        time.sleep(0.1)


def pull_with_bar(core: Core, source: str, study_uid: str, operation: Operation | None) -> Pulled:
    """Fetch one study with a progress bar; arguments and errors as for ``pull``, the peer by name or address."""
    peer = peer_of(source, core.settings, "--from")
    uid = checked_uid(study_uid, "--study")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as progress:
        bar = progress.add_task(f"C-FIND at {peer.ae_title}", total=None)

        def progressed(chosen: Operation, done: int, held: int) -> None:
            progress.update(bar, description=f"C-{chosen.name} from {peer.ae_title}", completed=done, total=held)

        return pull(core, peer, uid, operation, progressed)


def show_pulled(pulled: Pulled) -> None:
    """Say how a fetch ended."""
    if pulled.problem:
        err.print(pulled.problem, markup=False)
    study = pulled.study
    what = ", ".join(filter(None, (study.date, "/".join(study.modalities), study.description)))
    out.print(f"{pulled.here} of {pulled.held} instances are here ({what}; {pulled.seconds} s)", markup=False)
