"""What is served on associations beside C-STORE: built here, whichever process the associations run in."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial

from node.core import Core
from node.dicom import dimse
from node.dicom.announcements import (
    INSTANCE_AVAILABILITY,
    PROCEDURE_STEP,
    instance_availability,
    procedure_step,
)
from node.dicom.commitment import STORAGE_COMMITMENT, commitment, report_there, reports_here
from node.dicom.dimse import Handler
from node.dicom.notice import Notices
from node.dicom.request_commitment import taken
from node.domain.peer import Peer
from node.schedule import Ticker
from node.services.announce import Announce
from node.services.commitment import AskCommitment, JudgeCommitments, ReportCommitments
from node.services.patience import Patience
from node.services.request_commitment import TakeReports

_TICK = timedelta(seconds=0.5)
_GIVE_UP_EVERY = timedelta(seconds=15)
_FORGET_EVERY = timedelta(minutes=10)


def services(core: Core) -> Mapping[str, Handler]:
    """Handlers of every DIMSE service, by abstract syntax."""
    announce = Announce(core.database.write, core.clock)
    return {
        **dimse.SERVICES,
        STORAGE_COMMITMENT: commitment(
            AskCommitment(core.database.write, core.clock).ask, taken(take_reports(core).take)
        ),
        PROCEDURE_STEP: procedure_step(announce),
        INSTANCE_AVAILABILITY: instance_availability(announce),
    }


def notices(core: Core) -> Mapping[str, Notices]:
    """What peers are told on associations that they open, by abstract syntax."""
    reports = _reports(core)
    return {STORAGE_COMMITMENT: reports_here(reports.claim, reports.answered, {p.ae_title for p in called(core)})}


def called(core: Core) -> list[Peer]:
    """The peers that are told of their commitments on associations of ours: those whose address is known."""
    return [p for p in core.peers.values() if p.receive and p.port is not None]


def keep_up(core: Core, ticker: Ticker, index_is_whole: Callable[[], bool]) -> None:
    """Judge what was asked for, tell the peers that can be called, each on its own tick, and forget what is stale.

    Args:
        index_is_whole: whether every kept instance has its row, or will have it in a moment.
    """
    give_up = timedelta(days=core.settings.deliver.give_up_days)
    judge = JudgeCommitments(core.database.write, core.database.read, core.clock, core.files, give_up=give_up)
    ticker.every(_TICK, "commitments", lambda: judge.judge(index_is_whole=index_is_whole()))
    ticker.every(_GIVE_UP_EVERY, "commitments to give up", judge.give_up)
    ticker.every(_FORGET_EVERY, "announcements to forget", Announce(core.database.write, core.clock).forget)
    reports = _reports(core)
    report = partial(report_there, ae_title=core.settings.node.ae_title, tls=core.tls)
    for peer in called(core):
        ticker.every(_TICK, f"report to {peer.name}", partial(reports.tell, peer, report))


def take_reports(core: Core) -> TakeReports:
    """The service that hears what peers committed to."""
    return TakeReports(core.database.write, core.clock, patience(core))


def patience(core: Core) -> Patience:
    """How long a peer is tried."""
    deliver = core.settings.deliver
    return Patience(
        retry=timedelta(seconds=deliver.retry_seconds),
        retry_max=timedelta(seconds=deliver.retry_max_seconds),
        give_up=timedelta(days=deliver.give_up_days),
        draw=random.random,
    )


def _reports(core: Core) -> ReportCommitments:
    deliver = core.settings.deliver
    return ReportCommitments(
        core.database.write,
        core.database.read,
        core.clock,
        owner=core.owner,
        lease=timedelta(seconds=deliver.lease_seconds),
        retry=timedelta(seconds=deliver.retry_seconds),
        retry_max=timedelta(seconds=deliver.retry_max_seconds),
    )
