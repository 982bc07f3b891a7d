"""Modality Performed Procedure Step SCP (PS3.4 annex F) and Instance Availability Notification SCP (annex R).

Read is what evidence needs. Attributes that are wrong elsewhere are no reason to refuse what a modality says.
"""

from __future__ import annotations

import uuid
from itertools import chain

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import N_CREATE, N_SET

from node.dicom.dimse import Handler, Request
from node.dicom.normalized import (
    INVALID_ATTRIBUTE_VALUE,
    MISSING_ATTRIBUTE,
    attributes,
    command_uid,
    handler,
    items,
    references,
    uid,
)
from node.domain.errors import InvalidRequest
from node.domain.manifest import ManifestState
from node.services.announce import Announce

PROCEDURE_STEP = "1.2.840.10008.3.1.2.3.3"
INSTANCE_AVAILABILITY = "1.2.840.10008.5.1.4.33"


def procedure_step(announce: Announce) -> Handler:
    """Serves N-CREATE and N-SET."""

    def create(request: Request) -> str:
        step_uid = _affected(request)
        studies, named = attributes(request, request.primitive.AttributeList, _begun)
        announce.step_begun(step_uid, request.calling, studies, named)
        return step_uid

    def change(request: Request) -> str:
        step_uid = command_uid(request.primitive.RequestedSOPInstanceUID, "RequestedSOPInstanceUID")
        state, named = attributes(request, request.primitive.ModificationList, _changed)
        announce.step_changed(step_uid, state, named)
        return step_uid

    return handler(PROCEDURE_STEP, {N_CREATE: create, N_SET: change})


def instance_availability(announce: Announce) -> Handler:
    """Serves N-CREATE."""

    def create(request: Request) -> str:
        notification_uid = _affected(request)
        study_uid, named = attributes(request, request.primitive.AttributeList, _available)
        announce.available(notification_uid, request.calling, study_uid, named)
        return notification_uid

    return handler(INSTANCE_AVAILABILITY, {N_CREATE: create})


def _affected(request: Request) -> str:
    """The UID of what is created; where the SCU leaves it to us (PS3.7 10.1.5.1.4), a new one."""
    given = request.primitive.AffectedSOPInstanceUID
    return command_uid(given, "AffectedSOPInstanceUID") if given else f"2.25.{uuid.uuid4().int}"


def _begun(step: Dataset) -> tuple[list[str], frozenset[str]]:
    state = _state(step)
    if state is None:
        raise InvalidRequest("PerformedProcedureStepStatus", "is missing", "Send IN PROGRESS", MISSING_ATTRIBUTE)
    if state is not ManifestState.IN_PROGRESS:
        raise InvalidRequest(
            "PerformedProcedureStepStatus",
            "is not IN PROGRESS",
            "Create the step when it begins (PS3.4 F.7.2.1)",
            INVALID_ATTRIBUTE_VALUE,
        )
    scheduled = items(step, "ScheduledStepAttributesSequence")
    studies = dict.fromkeys(uid(each, "StudyInstanceUID", path) for path, each in scheduled)
    return list(studies), _performed(step) or frozenset()


def _changed(step: Dataset) -> tuple[ManifestState | None, frozenset[str] | None]:
    return _state(step), _performed(step)


def _state(step: Dataset) -> ManifestState | None:
    value = step.get("PerformedProcedureStepStatus")
    try:
        return None if value is None else ManifestState(value)
    except ValueError:
        raise InvalidRequest(
            "PerformedProcedureStepStatus",
            "is none of its values",
            "Send IN PROGRESS, COMPLETED or DISCONTINUED",
            INVALID_ATTRIBUTE_VALUE,
        ) from None


def _performed(step: Dataset) -> frozenset[str] | None:
    """What the series of a step refer to; None where it does not speak of series."""
    if "PerformedSeriesSequence" not in step:
        return None
    sequences = ("ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence")
    series = items(step, "PerformedSeriesSequence", required=False)
    named = (references(each, keyword, path, required=False) for path, each in series for keyword in sequences)
    return frozenset(reference.sop_instance_uid for reference in chain.from_iterable(named))


def _available(notification: Dataset) -> tuple[str, frozenset[str]]:
    series = items(notification, "ReferencedSeriesSequence")
    named = (references(each, "ReferencedSOPSequence", path) for path, each in series)
    instances = frozenset(reference.sop_instance_uid for reference in chain.from_iterable(named))
    return uid(notification, "StudyInstanceUID"), instances
