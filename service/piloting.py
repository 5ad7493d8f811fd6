"""Run the content pilot: over the caller's documents, or over the packaged example."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query

from service.bodies import PilotAnswer, PilotBody, PilotQuery
from service.call import Call, Here, errors, own_tenant
from service.errors import InvalidRequestError

router = APIRouter(tags=["pilot"])
_T = TypeVar("_T")
_REFUSED = errors(401, 403, 404, 408, 413, 422, 429, 500, 503)


@router.get(
    "/pilot/run",
    name="pilot_example",
    summary="Run the pilot on the packaged example",
    response_model=PilotAnswer,
    response_model_exclude_unset=True,
    responses=_REFUSED,
)
async def pilot_example(query: Annotated[PilotQuery, Query()], here: Here) -> dict[str, Any]:
    """Ingest, segment, embed and analyse the packaged transcript of a stand-up."""
    return await _run(here, query, PilotBody())


@router.post(
    "/pilot/run",
    name="pilot_run",
    summary="Run the pilot on documents",
    response_model=PilotAnswer,
    response_model_exclude_unset=True,
    responses=_REFUSED,
)
async def pilot_run(query: Annotated[PilotQuery, Query()], here: Here, body: PilotBody | None = None) -> dict[str, Any]:
    """Ingest, segment, embed and analyse the documents of the body.

    What fails in segment or embed degrades the run, and the answer says so; documents that cannot be read are left out
    with their reason, and only when none is left is the request refused (422). A flag may stand in the query or in the
    body; where it stands in both, they must agree.
    """
    return await _run(here, query, body or PilotBody())


async def _run(here: Call, query: PilotQuery, body: PilotBody) -> dict[str, Any]:
    own_tenant(here.tenant, body.tenant)
    workspace = _agreed("workspace", query.workspace, body.workspace) or "main"
    here.parts.servers.check_workspace(here.tenant, workspace)
    segment = _agreed("enable_segment", query.enable_segment, body.enable_segment)
    embed = _agreed("enable_embed", query.enable_embed, body.enable_embed)
    inputs = None if body.inputs is None else [(one.name, one.text) for one in body.inputs]
    return await here.parts.pilot.run(here.tenant, workspace, inputs, segment is not False, embed is not False)


def _agreed(flag: str, in_query: _T | None, in_body: _T | None) -> _T | None:
    """The value of a flag. Raises InvalidRequestError where query and body differ."""
    if None not in (in_query, in_body) and in_query != in_body:
        raise InvalidRequestError(f"{flag} must be the same in query and body, but differs; leave one out.")
    return in_body if in_query is None else in_query
