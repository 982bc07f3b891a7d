"""Fetching a study: C-MOVE and C-GET SCU in the Study Root information model (PS3.4 annex C)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import build_context, build_role, evt
from pynetdicom.presentation import StoragePresentationContexts

from node.dicom.associate import end, name_of
from node.dicom.study_root import (
    GET,
    MOVE,
    SUCCESS,
    UNCOMPRESSED,
    broken,
    checked,
    comment_of,
    in_words,
    is_pending,
    open_study_root,
    texts,
)
from node.dicom.tls import Certificates
from node.domain.errors import Rejected
from node.domain.instance import Answer, Incoming
from node.domain.peer import Peer

_MAX_CONTEXTS = 127  # of 128 (PS3.8 9.3.2.2: odd numbers from 1 to 255); one is that of C-GET itself
# In this order while there is room for a presentation context: a peer that finds the syntax of its file among those
# accepted has nothing to transcode.
_COMPRESSED = (
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.51",  # JPEG extended
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.201",  # HTJ2K lossless
    "1.2.840.10008.1.2.4.202",  # HTJ2K lossless, RPCL
    "1.2.840.10008.1.2.4.203",  # HTJ2K
    "1.2.840.10008.1.2.1.99",  # deflated
    "1.2.840.10008.1.2.2",  # explicit VR big endian
)
# Pending responses are optional (PS3.4 C.4.2.3.1), and an archive may first have to fetch a study from slow storage.
_RETRIEVE_SECONDS = 600.0


@dataclass(frozen=True)
class SubOperations:
    """The C-STORE sub-operations of a retrieval, as the peer counts them; ``remaining`` is 0 at the end."""

    remaining: int = 0
    completed: int = 0
    failed: int = 0
    warning: int = 0


@dataclass(frozen=True)
class Retrieved:
    """How a retrieval ended that was carried out.

    ``problem`` says in words what the peer warned of; empty where it did not.
    """

    counts: SubOperations
    failed_sop_instance_uids: tuple[str, ...] = ()
    problem: str = ""


def move(
    peer: Peer,
    study_uid: str,
    *,
    destination: str,
    ae_title: str,
    tls: Certificates | None = None,
    on_progress: Callable[[SubOperations], None] = lambda counts: None,
) -> Retrieved:
    """C-MOVE: the peer sends a study to an AE title that it knows, over an association of its own.

    Args:
        destination: the AE title that gets the study: our own, for a node that listens.
        on_progress: told of the counts with every pending response.

    Raises:
        PeerUnreachable: no association, or it broke.
        Rejected: the peer refuses; says why and what mends it.
    """
    association = _opened(peer, MOVE, ae_title, tls)
    try:
        responses = association.send_c_move(_study(study_uid), destination, MOVE)
        return _followed(responses, peer, MOVE, on_progress, ae_title=ae_title, destination=destination)
    finally:
        end(association)


def get(
    peer: Peer,
    study_uid: str,
    *,
    sop_classes: Collection[str],
    ae_title: str,
    tls: Certificates | None = None,
    receive: Callable[[Incoming], Answer],
    on_progress: Callable[[SubOperations], None] = lambda counts: None,
) -> Retrieved:
    """C-GET: the peer sends a study over this very association, on which we are the SCP of its storage SOP classes.

    Args:
        sop_classes: the storage SOP classes of the study, as ``find_instances`` gives them. Where the peer did not tell
            them all (one is empty), those of the standard are proposed.
        receive: keeps an object and says what to answer; gets the data set as the bytes that came.
        on_progress: told of the counts with every pending response.

    Raises:
        PeerUnreachable: no association, or it broke.
        Rejected: the peer refuses; says why and what mends it.
    """
    classes = sorted(set(sop_classes))
    if not all(classes):
        classes = [str(context.abstract_syntax) for context in StoragePresentationContexts]

    def store(event: evt.Event) -> Dataset:
        return _answered(event, peer, receive)

    association = _opened(peer, GET, ae_title, tls, classes, [(evt.EVT_C_STORE, store)])
    try:
        if not any(context.as_scp for context in association.accepted_contexts):
            raise Rejected(f"{name_of(peer)} sends nothing over our association (no role selection). Use C-MOVE")
        responses = association.send_c_get(_study(study_uid), GET)
        return _followed(responses, peer, GET, on_progress, ae_title=ae_title)
    finally:
        end(association)


def _opened(
    peer: Peer,
    model: str,
    ae_title: str,
    tls: Certificates | None,
    classes: Sequence[str] = (),
    handlers: Sequence[tuple[Any, Any]] = (),
) -> Any:
    """An association for a retrieval, with storage proposed in the SCP role for ``classes``."""
    storage = [(uid, list(UNCOMPRESSED)) for uid in classes]
    storage += [(uid, [syntax]) for syntax in _COMPRESSED for uid in classes]
    association = open_study_root(
        peer,
        model,
        ae_title=ae_title,
        tls=tls,
        storage=[build_context(*pair) for pair in storage[:_MAX_CONTEXTS]],
        roles=[build_role(uid, scp_role=True) for uid in classes[:_MAX_CONTEXTS]],
        handlers=handlers,
    )
    association.dimse_timeout = max(_RETRIEVE_SECONDS, peer.timeout_seconds)
    return association


def _study(study_uid: str) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = study_uid
    return identifier


def _answered(event: evt.Event, peer: Peer, receive: Callable[[Incoming], Answer]) -> Dataset:
    """One C-STORE sub-operation of a C-GET."""
    request: Any = event.request
    answer = receive(
        Incoming(
            sop_class_uid=str(request.AffectedSOPClassUID),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            dataset=request.DataSet.getvalue(),
            peer=peer.ae_title,
        )
    )
    response = Dataset()
    response.Status = answer.status
    if answer.comment:
        response.ErrorComment = answer.comment
    return response


def _followed(
    responses: Iterator[tuple[Dataset, Dataset | None]],
    peer: Peer,
    model: str,
    on_progress: Callable[[SubOperations], None],
    *,
    ae_title: str,
    destination: str = "",
) -> Retrieved:
    """Follow a retrieval to its last response."""
    counts = SubOperations()
    for status, identifier in responses:
        code = checked(status, peer, model, ae_title=ae_title, destination=destination)
        counts = _counts(status, counts)
        if is_pending(code):
            on_progress(counts)
            continue
        words = in_words(code, comment_of(status), ae_title=ae_title)
        failed = texts(identifier, "FailedSOPInstanceUIDList") if identifier is not None else ()
        return Retrieved(counts, failed, "" if code == SUCCESS else words)
    raise broken(peer, model)


def _counts(status: Dataset, before: SubOperations) -> SubOperations:
    """The counts of a response; what it leaves out is as it was before."""
    pending = is_pending(int(status.Status))
    return SubOperations(
        remaining=int(status.get("NumberOfRemainingSuboperations", before.remaining)) if pending else 0,
        completed=int(status.get("NumberOfCompletedSuboperations", before.completed)),
        failed=int(status.get("NumberOfFailedSuboperations", before.failed)),
        warning=int(status.get("NumberOfWarningSuboperations", before.warning)),
    )
