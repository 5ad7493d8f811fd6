"""Run the content pilot: over the caller's documents and addresses, or over the packaged example; follow it, end it."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Header, Path, Query
from fastapi.responses import JSONResponse, StreamingResponse

from service.bodies import PilotAccepted, PilotAnswer, PilotBody, PilotQuery, PilotRun, TenantOnly
from service.call import Call, Here, errors, own_tenant
from service.errors import InvalidRequestError

router = APIRouter(tags=["pilot"])
_T = TypeVar("_T")
_REFUSED = errors(401, 403, 404, 408, 409, 413, 422, 429, 500, 503)
_ACCEPTED: dict[int | str, dict[str, Any]] = {202: {"model": PilotAccepted, "description": "It goes on by itself."}}


_RUN = "/pilot/runs/{run_id}"
RunId = Annotated[str, Path(max_length=64, description="As it was answered.")]


@router.get(
    "/pilot/run",
    name="pilot_example",
    summary="Run the pilot on the packaged example",
    response_model=PilotAnswer,
    response_model_exclude_unset=True,
    responses=_REFUSED | _ACCEPTED,
)
async def pilot_example(query: Annotated[PilotQuery, Query()], here: Here) -> Any:  # noqa: ANN401 - 200 or 202
    """Ingest, segment, embed and analyse the packaged transcript of a stand-up."""
    return await _run(here, query, PilotBody())


@router.post(
    "/pilot/run",
    name="pilot_run",
    summary="Run the pilot on documents",
    response_model=PilotAnswer,
    response_model_exclude_unset=True,
    responses=_REFUSED | _ACCEPTED,
)
async def pilot_run(query: Annotated[PilotQuery, Query()], here: Here, body: PilotBody | None = None) -> Any:  # noqa: ANN401 - 200 or 202
    """Ingest, segment, embed and analyse the documents of the body.

    What fails in segment or embed degrades the run, and the answer says so; documents that cannot be read are left out
    with their reason, and only when none is left is the request refused (422). A flag may stand in the query or in the
    body; where it stands in both, they must agree.
    """
    return await _run(here, query, body or PilotBody())


@router.get(_RUN, name="pilot_state", summary="How a run stands", responses=errors(401, 403, 404, 422, 503))
async def pilot_state(run_id: RunId, here: Here, _: Annotated[TenantOnly, Query()]) -> PilotRun:
    """What happened so far, step by step; the result once it has ended. Runs are kept for thirty days."""
    return PilotRun(**await here.parts.pilot.view(run_id, here.tenant))


@router.get(
    f"{_RUN}/events",
    name="pilot_events",
    summary="Follow a run",
    response_class=StreamingResponse,
    responses=errors(401, 403, 404, 422, 503)
    | {200: {"content": {"text/event-stream": {}}, "description": "Server-sent events: `step`, then one `end`."}},
)
async def pilot_events(
    run_id: RunId,
    here: Here,
    _: Annotated[TenantOnly, Query()],
    last_event_id: Annotated[int, Header(ge=0, description="Go on behind this number.")] = 0,
) -> StreamingResponse:
    """Each event of a run as it happens. A stream ends after half a minute at most: come back with Last-Event-ID."""
    await here.parts.pilot.view(run_id, here.tenant)  # an unknown run is refused before anything is streamed
    told = here.parts.pilot.events(run_id, here.tenant, last_event_id)
    return StreamingResponse(told, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.delete(
    _RUN, name="pilot_cancel", summary="Cancel a run", status_code=202, responses=errors(401, 403, 404, 422, 503)
)
async def pilot_cancel(run_id: RunId, here: Here, _: Annotated[TenantOnly, Query()]) -> PilotRun:
    """Ask a run to stop before its next step. One that has ended stays as it is."""
    return PilotRun(**await here.parts.pilot.cancel(run_id, here.tenant))


async def _run(here: Call, query: PilotQuery, body: PilotBody) -> dict[str, Any] | JSONResponse:
    own_tenant(here.tenant, body.tenant)
    workspace = _agreed("workspace", query.workspace, body.workspace) or "main"
    here.parts.servers.check_workspace(here.tenant, workspace)
    segment = _agreed("enable_segment", query.enable_segment, body.enable_segment) is not False
    embed = _agreed("enable_embed", query.enable_embed, body.enable_embed) is not False
    given = [*((one.name, one.text) for one in body.inputs or ()), *(body.urls or ())]
    pilot, asked = here.parts.pilot, (here.tenant, workspace, given or None, segment, embed)
    if query.mode == "wait":
        return await pilot.run(*asked)
    if query.mode == "background":
        accepted = PilotAccepted(run_id=await pilot.start(*asked), mode="background")
    else:
        run_id, flow_run_id = await pilot.enqueue(*asked)
        accepted = PilotAccepted(run_id=run_id, mode="enqueue", flow_run_id=flow_run_id)
    place = f"/pilot/runs/{accepted.run_id}"
    return JSONResponse(accepted.model_dump(exclude_none=True), 202, headers={"Location": place})


def _agreed(flag: str, in_query: _T | None, in_body: _T | None) -> _T | None:
    """The value of a flag. Raises InvalidRequestError where query and body differ."""
    if None not in (in_query, in_body) and in_query != in_body:
        raise InvalidRequestError(f"{flag} must be the same in query and body, but differs; leave one out.")
    return in_body if in_query is None else in_query
