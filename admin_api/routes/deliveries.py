"""The outbox, and another chance for a dead delivery."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from admin_api.auth import Actor
from admin_api.deps import Limit, Services
from admin_api.errors import NOT_DEAD, NOT_FOUND
from admin_api.schemas import DeliveryOut
from node.domain.delivery import Delivery, DeliveryState

router = APIRouter(prefix="/deliveries", tags=["deliveries"])

# The largest id that every database can hold.
DeliveryId = Annotated[int, Path(ge=1, le=2**31 - 1)]


@router.get("", response_model=list[DeliveryOut], summary="The latest deliveries")
def deliveries(services: Services, state: DeliveryState | None = None, limit: Limit = 100) -> list[Delivery]:
    """Of one state, or of all."""
    return services.queries.deliveries(limit=limit, state=state)


@router.post(
    "/{delivery_id}/requeue",
    response_model=DeliveryOut,
    summary="Requeue a dead delivery",
    responses=NOT_FOUND | NOT_DEAD,
)
def requeue(delivery_id: DeliveryId, services: Services, actor: Actor) -> Delivery:
    """Its time and its attempts begin anew."""
    return services.requeue.requeue_delivery(delivery_id, actor)


@router.post(
    "/{delivery_id}/dismiss",
    response_model=DeliveryOut,
    summary="Dismiss a dead delivery",
    responses=NOT_FOUND | NOT_DEAD,
)
def dismiss(delivery_id: DeliveryId, services: Services, actor: Actor) -> Delivery:
    """Somebody has looked at it, and it is not to be sent; nothing of its study is kept for its sake any more."""
    return services.requeue.dismiss_delivery(delivery_id, actor)
