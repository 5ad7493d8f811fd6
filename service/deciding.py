"""Decide, take feedback, explain: the routes of the bandits."""

from __future__ import annotations

import time
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Header, Path, Query

from bandits.errors import ContextError
from bandits.features import NAMES, text_context
from bandits.ids import bare
from bandits.keys import trusted_keys
from bandits.prompts import keep
from bandits.snapshots import list_versions
from bandits.types import Context, Outcome
from bandits.why import explain
from service.bodies import (
    FeedbackAnswer,
    FeedbackBody,
    RouteAnswer,
    RouteBody,
    SnapshotAnswer,
    SnapshotQuery,
    StoryAnswer,
    TenantOnly,
)
from service.call import Here, errors

router = APIRouter(tags=["decisions"])


@router.post("/route", summary="Decide", responses=errors(401, 403, 404, 413, 422, 429, 503))
def route(body: RouteBody, here: Here, _: Annotated[TenantOnly, Query()]) -> RouteAnswer:
    """Draw an arm and record the draw. Nothing is asked of a model: the caller does that, and reports what came back.

    Answered when the decision is durable. The prompt itself is not kept, only its features, unless the tenant
    says store_prompts: then it is, sealed with a key of the user's own.
    """
    parts = here.parts
    scope = parts.servers.scope(here.tenant, body.workspace, body.domain)
    domain = parts.config.domains[scope.domain]
    server = parts.servers.get(scope)
    start = time.perf_counter()
    decision = server.router.decide(_context(body, domain.features), parts.ids.pseudonym(here.tenant, body.user or ""))
    parts.metrics.decided(decision, time.perf_counter() - start)
    if body.prompt is not None:
        keep(parts.home, parts.config, decision, body.prompt)
    return RouteAnswer(
        decision_id=parts.ids.token(decision),
        arm=decision.arm,
        model=domain.arms[decision.action].model,
        propensity=decision.propensity,
        probabilities=dict(zip(decision.arms, decision.probabilities.tolist(), strict=True)),
        policy=decision.policy,
        slot=str(decision.slot),
        excluded=dict(decision.excluded),
    )


@router.post("/feedback", summary="Report", responses=errors(401, 403, 404, 413, 422, 503))
def feedback(
    body: FeedbackBody,
    here: Here,
    _: Annotated[TenantOnly, Query()],
    idempotency_key: Annotated[
        str, Header(max_length=200, description="Names this request: sent again, it is not recorded again.")
    ] = "",
) -> FeedbackAnswer:
    """Record what came back for a decision, once; late and in pieces is fine.

    Taken only for a decision that the key's tenant was answered with, from the user who asked.
    """
    parts = here.parts
    decision_id = parts.ids.check(body.decision_id, here.tenant, body.user or "")
    scope = parts.record.decision(decision_id, here.tenant).scope
    parts.servers.scope(scope.tenant, scope.workspace, scope.domain)
    measured = body.model_dump(include={"quality", "vote", "cost_usd", "latency_s"})
    outcome = Outcome(decision_id, parts.clock(), scope, **measured)
    server = parts.servers.get(scope)
    recorded = server.report_once(outcome, request=idempotency_key, event=body.event_id or "")
    if recorded:
        parts.metrics.reported(outcome)
    return FeedbackAnswer(recorded=recorded)


@router.get(
    "/decisions/{decision_id}",
    summary="Explain a decision",
    response_model=StoryAnswer,
    responses=errors(401, 403, 404, 422, 503),
)
def decision(
    decision_id: Annotated[str, Path(max_length=64)], here: Here, _: Annotated[TenantOnly, Query()]
) -> dict[str, Any]:
    """Why this arm: probabilities, estimates, what came back, and whether the policy gives the same numbers again."""
    parts, decision_id = here.parts, bare(decision_id)
    found = parts.record.decision(decision_id, here.tenant)
    parts.servers.scope(found.scope.tenant, found.scope.workspace, found.scope.domain)
    domain, trusted = parts.config.domains[found.scope.domain], trusted_keys(parts.home.root)
    outcomes = parts.record.outcomes(decision_id)
    return explain(found, outcomes, domain, parts.home.snapshots, trusted, parts.clock(), parts.record).as_dict()


@router.get("/snapshots", summary="List policies", responses=errors(401, 403, 404, 422, 503))
def snapshots(query: Annotated[SnapshotQuery, Query()], here: Here) -> list[SnapshotAnswer]:
    """The published policies of the key's tenant, newest last in each scope, and whether each still verifies."""
    parts, found = here.parts, []
    trusted, serving = trusted_keys(parts.home.root), parts.servers.serving()
    if query.workspace is not None:
        parts.servers.check_workspace(here.tenant, query.workspace)
    if query.domain is not None:
        parts.servers.check_domain(query.domain)
    for scope in parts.servers.scopes(here.tenant):
        if query.workspace not in (None, scope.workspace) or query.domain not in (None, scope.domain):
            continue
        for one in list_versions(parts.home.snapshots, scope, trusted=trusted, now=parts.clock()):
            m = one.manifest
            found.append(
                SnapshotAnswer(
                    scope=str(scope),
                    version=one.version,
                    kind=m.kind if m else None,
                    position=m.position if m else None,
                    created=m.created if m else None,
                    expires=m.expires if m else None,
                    content=m.content if m else None,
                    fault=one.fault,
                    serving=serving.get(scope) == one.version,
                )
            )
    return found


def _context(body: RouteBody, schema: str) -> Context:
    """The context that the body stands for. Raises ContextError."""
    if body.context is not None:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused by the router
            return np.array(body.context, dtype=np.float32)
    if body.prompt is None or schema not in NAMES:
        raise ContextError(f"a domain with features {schema!r} takes a context, but got a prompt; send its numbers.")
    return text_context(body.prompt)
