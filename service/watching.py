"""For whoever keeps the service running: is it alive, is it ready, what has it counted."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import Response

from bandits.record.sql import SqlRecord
from service.bodies import Alive, Ready, TenantOnly
from service.call import Here, Parts, errors
from service.errors import presentable

router = APIRouter(tags=["operations"])
_PATIENCE_S = 1.0  # how long the record may be busy before it counts as not writable


@router.get("/healthz", summary="Alive?")
async def healthz() -> Alive:
    """The process answers. Needs no key."""
    return Alive()


@router.get("/readyz", summary="Ready?", responses=errors(401, 429, 503))
def readyz(request: Request) -> Ready:
    """Can decisions be made and recorded? 503 with the reason otherwise.

    A snapshot or key that is refused does not make the service unready, for an older policy goes on serving; its scope
    is counted as stale. Needs no key; with one, the reasons that concern its tenant are told.
    """
    parts: Parts = request.app.state.parts
    parts.keys.current()
    with SqlRecord(parts.home.record_url, busy_s=_PATIENCE_S):  # opening one takes the lock of a writer
        pass
    serving, faults = parts.servers.serving(), parts.servers.faults()
    learned = sum(version.isdigit() for version in serving.values())
    own = [text for scope, text in sorted(faults.items()) if scope.tenant == request.state.tenant]
    told = [presentable(text, parts.home.root) for text in own]
    return Ready(learned=learned, first=len(serving) - learned, stale=len(faults), faults=told)


@router.get(
    "/metrics",
    summary="Counts for Prometheus",
    response_class=Response,
    responses=errors(401, 403, 422, 429, 503)
    | {200: {"description": "Prometheus text", "content": {CONTENT_TYPE_PLAIN_0_0_4: {"schema": {"type": "string"}}}}},
)
async def metrics(here: Here, _: Annotated[TenantOnly, Query()]) -> Response:
    """Counts of the whole process, and the policies that serve the key's tenant. Needs a key, of any tenant."""
    parts = here.parts
    serving = {scope: v for scope, v in parts.servers.serving().items() if scope.tenant == here.tenant}
    quarantined = {scope: arms for scope, arms in parts.servers.quarantined().items() if scope.tenant == here.tenant}
    orders = {scope: order for scope, order in parts.servers.orders().items() if scope.tenant == here.tenant}
    text = parts.metrics.render(serving, quarantined, parts.pilot.numbers(), orders)
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)
