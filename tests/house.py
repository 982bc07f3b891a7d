"""A node's inner rooms on a temporary directory: real files, a real database, a clock that tests move."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from node.domain.instance import Instance, Origin
from node.domain.job import Job, JobInput, JobOutput, Outcome, Provenance, ResultFile
from node.domain.model import ModelVersion, Qualification
from node.domain.peer import Peer
from node.domain.profile import Profile
from node.domain.retention import Keep
from node.domain.route import Condition, Operator, Route
from node.domain.trial import Trial, TrialInput, TrialOutput
from node.files.disk import DiskFiles
from node.files.models import ModelFiles
from node.files.trash import DiskTrash
from node.ports import CommitmentRequester, Verifier
from node.services.assemble import Assemble
from node.services.beside import Beside
from node.services.breaker import Breaker
from node.services.deliver import Deliver
from node.services.dispatch import Dispatch
from node.services.gate import Gate
from node.services.locate import Locate
from node.services.models import Models
from node.services.outbox import Outbox
from node.services.oversight import Oversight
from node.services.patience import Patience
from node.services.prune import Prune
from node.services.receive import read_kept
from node.services.register import Register
from node.services.replay import Replay
from node.services.request_commitment import RequestCommitments, TakeReports
from node.services.requeue import Requeue
from node.services.rollout import Rollouts
from node.services.verify import VerifyByQuery
from node.services.work import Work
from node.store.database import Database
from tests.fakes import FakeClock, FakeEngine, FakeSender

MODEL = ModelVersion("lung", "1.0", "a" * 64, "Lung")
CHEST = Route("chest-ct", (Condition("Modality", Operator.EQUALS, ("CT",)),), "lung", ("PACS",))
PACS = Peer("PACS", "PACS", "127.0.0.1", 104, send=True)
QUIET = timedelta(seconds=10)
LEASE = timedelta(seconds=60)
RETRY = timedelta(seconds=10)
PATIENCE = Patience(RETRY, timedelta(seconds=600), timedelta(days=7), draw=lambda: 0.5)
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


class House:
    """Assemble, dispatch, work and deliver over one directory."""

    def __init__(self, root: Path, *, routes: Sequence[Route] = (CHEST,)) -> None:
        self.clock = FakeClock()
        self.files = DiskFiles(root, min_free_bytes=0)
        self.database = Database(f"sqlite:///{root}/node.db")
        self.database.prepare()
        self.sender = FakeSender()
        self.beside = Beside()
        self.assemble = Assemble(
            self.database.write, self.database.read, self.clock, default=QUIET, quiet={"SLOW": 6 * QUIET}
        )
        self.installed = MODEL
        self.dispatch = Dispatch(
            self.database.write,
            self.database.read,
            self.clock,
            self.files,
            routes,
            lambda name: self.installed,
            node="2.25.1",
        )

        self.locate = Locate(self.database.read, self.files)
        self.rollouts = Rollouts(
            self.database.write, self.clock, lambda name: self.installed, lambda: ["lung"], node="2.25.1"
        )
        self.models = Models(
            self.database.write,
            self.database.read,
            self.clock,
            self.files,
            self.rollouts,
            lambda name: self.installed,
            self.locate,
        )
        self.register = Register(self.clock, ModelFiles(root, max_bytes=1 << 20), self.models)
        self.replay = Replay(self.database.write, self.clock, node="2.25.1")
        self.requeue = Requeue(self.database.write, self.clock)
        self._transactions = itertools.count(1001)
        self.take_reports = TakeReports(self.database.write, self.clock, PATIENCE)
        self.oversight = Oversight(self.database.write, self.clock, self.rollouts)

    def receive(self, uid: str, *, study: str = "1.2", series: str = "1.2.3", peer: str = "CT1") -> Instance:
        """Keep an object on disk, as the receiver does, without its row."""
        dataset = b"\x08\x00\x60\x00CS\x02\x00CT" + uid.encode()
        head = part10_head(CT, uid)
        path = self.files.keep(head=head, dataset=dataset, study_uid=study, series_uid=series, sop_instance_uid=uid)
        digest = hashlib.sha256(dataset).hexdigest()
        return Instance(
            uid, CT, study, series, EXPLICIT, digest, len(dataset), path, Origin.RECEIVED, self.clock.now(), peer
        )

    def settled_job(self, uid: str = "1.2.3.1") -> Job:
        """One study received, settled and routed."""
        self.assemble.index([self.receive(uid)])
        self.clock.tick(11)
        self.assemble.settle()
        self.dispatch.route()
        with self.database.read() as tx:
            return tx.jobs.latest()[0]

    def job_of_another_study(self) -> None:
        """Study 1.9, whose job has one result, 2.25.91."""
        self.assemble.index([self.receive("1.9.3.1", study="1.9", series="1.9.3")])
        self.clock.tick(11)
        self.assemble.settle()
        self.dispatch.route()
        self.worker(lambda job: succeed(job, results=1, prefix="9")).work()

    def worker(
        self,
        run: Callable[[JobInput], JobOutput],
        *,
        stopping: bool = False,
        attempts: int = 3,
        profiles: Mapping[str, Profile] | None = None,
    ) -> Work:
        """A worker whose engine is a function."""
        return Work(
            self.database.write,
            self.database.read,
            self.clock,
            self.files,
            FakeEngine(run),
            provenance,
            self.locate,
            self.oversight,
            self.beside,
            owner="here/1/1",
            device="cpu",
            attempts=attempts,
            lease=LEASE,
            timeout=timedelta(seconds=900),
            retry=RETRY,
            profiles=profiles or {},
            stopping=lambda: stopping,
        )

    def gate(self, try_out: Callable[[TrialInput], TrialOutput] | None = None, *, stopping: bool = False) -> Gate:
        """A worker's gate; without a function every version passes."""
        engine = FakeEngine(succeed) if try_out is None else FakeEngine(succeed, try_out)
        return Gate(
            self.database.write,
            self.clock,
            self.files,
            engine,
            self.rollouts,
            trial_provenance,
            self.locate,
            owner="here/1/1",
            device="cpu",
            lease=LEASE,
            timeout=timedelta(seconds=900),
            stopping=lambda: stopping,
        )

    def outbox(self, *, batch: int = 500, peer: Peer = PACS) -> Deliver:
        """A courier of a peer, with an outbox of its own."""
        return self.couriers(1, batch=batch, peer=peer)[0]

    def couriers(self, number: int, *, batch: int = 500, peer: Peer = PACS) -> list[Deliver]:
        """Couriers that share the outbox of a peer; no chance in their pauses."""
        write, read = self.database.write, self.database.read
        breaker = Breaker(write, self.clock, self.sender, peer, PATIENCE)
        outbox = Outbox(write, self.database.write_unsynced, read, self.clock, peer, breaker, PATIENCE, LEASE)
        return [Deliver(outbox, self.files, self.sender, owner="here/1/1", batch=batch) for _ in range(number)]

    def by_query(self, verifier: Verifier, peer: Peer) -> VerifyByQuery:
        """What looks for the results at a peer that answers queries."""
        return VerifyByQuery(self.database.write, self.database.read, self.clock, verifier, peer, PATIENCE)

    def by_commitment(self, requester: CommitmentRequester, peer: Peer) -> RequestCommitments:
        """What asks a peer to commit to the results; its transactions are 2.25.1001, 2.25.1002, …"""
        return RequestCommitments(
            self.database.write,
            self.database.read,
            self.clock,
            requester,
            self.take_reports,
            peer,
            PATIENCE,
            new_uid=lambda: f"2.25.{next(self._transactions)}",
        )

    def prune(self, keep: Keep, **changes: Any) -> Prune:
        """What removes what is old enough."""
        return Prune(
            self.database.write,
            self.database.read,
            self.clock,
            self.files,
            DiskTrash(self.files),
            keep,
            **{
                "verified": (),
                "index": self.assemble.index,
                "read_kept": lambda path: read_kept(self.files, path),
            }
            | changes,
        )

    def close(self) -> None:
        self.database.close()


def part10_head(sop_class_uid: str, uid: str) -> bytes:
    """Preamble and file meta of an object."""
    from node.domain.instance import Incoming
    from node.domain.part10 import head

    return head(Incoming(sop_class_uid, uid, EXPLICIT, b"", "CT1"))


def provenance(job: Job, started_at: datetime) -> Provenance:
    """Who makes the results of a job."""
    return Provenance(job.id, job.model, Qualification.RESEARCH, started_at, "ainode", "2.25.1", "0.1", job.revision)


def trial_provenance(trial: Trial, started_at: datetime) -> Provenance:
    """Who makes what a golden case gives."""
    return Provenance(trial.id, trial.model, Qualification.RESEARCH, started_at, "ainode", "2.25.1", "0.1")


def succeed(job: JobInput, *, results: int = 3, prefix: str = "") -> JobOutput:
    """A run that writes result files for each profile, the last one of each playing the SR."""
    made = []
    for place, profile in enumerate(job.profiles):
        for number in range(results):
            uid = f"2.25.{prefix}{results * place + number + 1}"
            path = job.out_dir / f"{uid}.dcm"
            path.write_bytes(part10_head("1.2.840.10008.5.1.4.1.1.88.34", uid) + b"result")
            digest = hashlib.sha256(b"result").hexdigest()
            made.append(ResultFile(uid, CT, "2.25.9", job.study.study_uid, EXPLICIT, digest, 6, path, profile.name))
    return JobOutput(Outcome.SUCCEEDED, results=tuple(made), findings={"regions": {}}, timings={"read": 0.1})


def everything(outbox: Deliver) -> int:
    """Deliver until nothing is due; returns how many."""
    return sum(iter(outbox.deliver, 0))
