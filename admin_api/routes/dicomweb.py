"""STOW-RS (PS3.18 section 10.5): DICOM files by HTTP, into the same receive service as those by C-STORE."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from admin_api.auth import PeerCredentials, sender_of
from admin_api.deps import Dicomweb, Services
from admin_api.errors import Answers, Refusal
from admin_api.multipart import Malformed, Parts
from admin_api.schemas import ErrorAnswer
from admin_api.store_response import dataset_of, status_of
from node.domain.errors import Interrupted, InvalidInstance, Transient
from node.domain.ids import checked_uid
from node.domain.peer import Peer
from node.services.stow import Stored, StoreTransaction, Stow

log = logging.getLogger(__name__)

router = APIRouter(prefix="/dicomweb", tags=["DICOMweb"])

DICOM_JSON = "application/dicom+json"
_RETRY = {"Retry-After": "30"}
Body = AsyncGenerator[bytes, None]
_ACCEPTED = 'multipart/related; type="application/dicom"'
# RFC 2046 section 5.1.1 has 70; Orthanc sends 73.
_BOUNDARY_LENGTH = 200
_SERVED = (DICOM_JSON, "application/json", "application/*", "*/*")
# Of a request that is refused before its body was read: a client that still sends would else be cut off before it
# reads why.
_DRAINED_BYTES, _DRAINED_SECONDS = 1 << 24, 5.0

_BODY = {
    "requestBody": {
        "required": True,
        "description": "DICOM files (PS3.10), one a part.",
        "content": {_ACCEPTED: {"schema": {"type": "string", "format": "binary"}}},
    }
}


def _module(description: str) -> dict[str, Any]:
    return {"description": description, "content": {DICOM_JSON: {"schema": {"type": "object"}}}}


def _error(description: str) -> dict[str, Any]:
    return {"model": ErrorAnswer, "description": description}


_ANSWERS: Answers = {
    200: _module("All instances are durable here (Store Instances Response Module, PS3.18 table I.1-1)."),
    202: _module("Some instances are durable here; FailedSOPSequence and OtherFailuresSequence tell of the others."),
    400: _error("No boundary, no parts, a body that breaks off, or a study that is no UID."),
    401: _error("The token is missing, or is that of no peer."),
    403: _error("The peer may not store from this address."),
    406: _error("The answer is application/dicom+json only."),
    408: _error("Nothing came for a minute."),
    409: _module("None of the instances could be stored; FailureReason is the status that C-STORE would answer."),
    413: _module("No object was small enough for node.max_object_mb."),
    415: _error(f"The body is not {_ACCEPTED}."),
    503: _error("Nothing is taken now, for instance because free space is below the watermark: see Retry-After."),
}


class DicomJSON(JSONResponse):
    """A data set in the DICOM JSON model."""

    media_type = DICOM_JSON


@router.post("/studies", response_class=DicomJSON, summary="Store instances", responses=_ANSWERS, openapi_extra=_BODY)
async def store(request: Request, services: Services, credentials: PeerCredentials) -> DicomJSON:
    """Every part is a DICOM file, kept by the rules of C-STORE. What is said to be stored is durable."""
    return await _store(request, services.dicomweb, credentials, None)


@router.post(
    "/studies/{study_uid}",
    response_class=DicomJSON,
    summary="Store instances of one study",
    responses=_ANSWERS,
    openapi_extra=_BODY,
)
async def store_in_study(
    request: Request,
    services: Services,
    credentials: PeerCredentials,
    study_uid: Annotated[str, Path(description="StudyInstanceUID.")],
) -> DicomJSON:
    """As above; instances of another study fail with A901 and are kept aside."""
    return await _store(request, services.dicomweb, credentials, study_uid)


async def _store(
    request: Request, dicomweb: Dicomweb | None, credentials: HTTPAuthorizationCredentials | None, study_uid: str | None
) -> DicomJSON:
    body = request.stream()
    try:
        address = request.client.host if request.client else ""
        sender = await run_in_threadpool(sender_of, dicomweb, credentials, address)
        assert dicomweb is not None
        boundary = _boundary(request, study_uid)
        transaction = await run_in_threadpool(_open, dicomweb.stow, sender, study_uid)
        try:
            broken = await _take(body, Parts(boundary, transaction), transaction, dicomweb.idle_seconds)
        finally:
            await run_in_threadpool(transaction.close)
        if broken is not None:
            await _drain(request, body)
        return _answer(transaction.answers, broken)
    except Refusal:
        await _drain(request, body)
        raise


def _boundary(request: Request, study_uid: str | None) -> bytes:
    """The boundary of the body, where the request is one that is served.

    Raises:
        Refusal: 400, 406 or 415.
    """
    accepted = [each.partition(";")[0].strip().lower() for each in request.headers.get("accept", "*/*").split(",")]
    if not any(each in _SERVED for each in accepted):
        raise Refusal(406, "Accept", f"does not allow {DICOM_JSON}", f"Send 'Accept: {DICOM_JSON}'")
    media_type, parameters = parse_options_header(request.headers.get("content-type"))
    if media_type.lower() != b"multipart/related" or parameters.get(b"type", b"").lower() != b"application/dicom":
        fix = f"Send '{_ACCEPTED}; boundary=...' with DICOM files (PS3.10), one a part; the node takes nothing else"
        raise Refusal(415, "Content-Type", "is not one that is stored", fix)
    if not 0 < len(parameters.get(b"boundary", b"")) <= _BOUNDARY_LENGTH:
        problem = f"has no boundary of at most {_BOUNDARY_LENGTH} characters"
        raise Refusal(400, "Content-Type", problem, f"Send '{_ACCEPTED}; boundary=...'")
    if study_uid is not None:
        try:
            checked_uid(study_uid, "StudyInstanceUID")
        except InvalidInstance as error:
            raise Refusal(400, error.field, error.problem, error.fix) from None
    return parameters[b"boundary"]


def _open(stow: Stow, sender: Peer, study_uid: str | None) -> StoreTransaction:
    try:
        return stow.open(sender, study_uid)
    except Transient as error:
        log.warning("STOW-RS of %s refused: %s", sender.name, error)
        raise _later(error) from None


async def _take(body: Body, parts: Parts, transaction: StoreTransaction, idle_seconds: float) -> str | None:
    """Read the body; returns why its end was not found, None where it was.

    What works on the disk does so on another thread, and nothing more is read meanwhile.

    Raises:
        Refusal: 400 or 408, the client went away or fell silent; 503, the node is being stopped.
    """
    try:
        while chunk := await asyncio.wait_for(anext(body, b""), idle_seconds):
            await run_in_threadpool(parts.feed, chunk)
    except Malformed as error:
        return str(error)
    except ClientDisconnect:
        raise Refusal(400, "body", "breaks off", "Send the whole of it") from None
    except TimeoutError:
        raise Refusal(408, "body", f"nothing came for {idle_seconds:.0f} s", "Send it again") from None
    except Interrupted as error:
        raise _later(error) from None
    if not parts.complete:
        return "The body ends before its last boundary"
    await run_in_threadpool(transaction.release)
    return None


async def _drain(request: Request, body: Body) -> None:
    """Throw away what is left of a body, within limits, unless the client waits to be asked for it (100-continue)."""
    if "expect" in request.headers:
        return
    drained = 0
    with suppress(ClientDisconnect, TimeoutError):
        async with asyncio.timeout(_DRAINED_SECONDS):
            while drained < _DRAINED_BYTES and (chunk := await anext(body, b"")):
                drained += len(chunk)


def _answer(answers: Sequence[Stored], broken: str | None) -> DicomJSON:
    if not answers:
        raise Refusal(400, "body", broken or "has no parts", f"Send '{_ACCEPTED}' with one DICOM file a part")
    status = status_of(answers, complete=broken is None)
    return DicomJSON(dataset_of(answers, broken=broken), status, _RETRY if status == 503 else None)


def _later(error: Transient) -> Refusal:
    return Refusal(503, None, str(error), "Send it again later", _RETRY)
