"""Decide, take feedback: the routes that write."""

from __future__ import annotations

import time
from typing import Annotated, Any

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Header, Query

from bandits.explaining.why import served_by
from bandits.features import Asker, Request, Turn, context
from bandits.privacy.prompts import keep
from bandits.types import Context, Decision, Outcome
from service.bodies import FeedbackAnswer, FeedbackBody, RouteAnswer, RouteBody, TenantOnly
from service.call import Here, Parts, errors

router = APIRouter(tags=["decisions"])


async def route(body: RouteBody, here: Here, _: Annotated[TenantOnly, Query()]) -> dict[str, Any]:
    """Draw an arm and record the draw. Nothing is asked of a model: the caller does that, and reports what came back.

    Answered when the decision is durable. The prompt itself is not kept, only its features, unless the tenant
    says store_prompts: then it is, sealed with a key of the user's own.
    """
    return await decide(here.parts, here.tenant, body)


router.add_api_route(
    "/route",
    route,
    methods=["POST"],
    summary="Decide",
    response_model=RouteAnswer,
    responses=errors(401, 402, 403, 404, 408, 413, 422, 429, 503),
)


@router.post("/feedback", summary="Report", responses=errors(401, 403, 404, 408, 413, 422, 429, 503))
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
    made = parts.record.decision(decision_id, here.tenant)
    scope = parts.servers.scope(made.scope.tenant, made.scope.workspace, made.scope.domain)
    measured = body.model_dump(include={"quality", "vote", "cost_usd", "latency_s"})
    outcome = Outcome(decision_id, parts.clock(), scope, **measured, arm=_told_of(body, made, parts))
    server = parts.servers.get(scope)
    recorded = server.report_once(outcome, request=idempotency_key, event=body.event_id or "")
    if recorded:
        parts.metrics.reported(outcome)
    return FeedbackAnswer(recorded=recorded)


async def decide(parts: Parts, tenant: str, body: RouteBody) -> dict[str, Any]:
    """What POST /route answers with, a RouteAnswer; the body has been checked."""
    await parts.check_user(tenant, body.user)
    scope = parts.servers.scope(tenant, body.workspace, body.domain)
    domain = parts.config.domains[scope.domain]
    server = await parts.servers.soon(scope)
    start = time.perf_counter()
    known = _context(body, domain.features, parts.clock())
    user = parts.ids.pseudonym(tenant, body.user or "")
    if server.router.blocks:
        decision = await to_thread.run_sync(server.router.decide, known, user)
    else:
        decision = await server.router.decide_soon(known, user)
    parts.metrics.decided(decision, time.perf_counter() - start)
    if body.prompt is not None and parts.config.tenants[tenant].store_prompts:
        await to_thread.run_sync(keep, parts.home, parts.config, decision, body.prompt)
    return {
        "decision_id": parts.ids.token(decision),
        "arm": decision.arm,
        "model": domain.arms[decision.action].model,
        "propensity": decision.propensity,
        "probabilities": dict(zip(decision.arms, decision.probabilities.tolist(), strict=True)),
        "policy": decision.policy,
        "slot": str(decision.slot),
        "excluded": dict(decision.excluded),
    }


def _told_of(body: FeedbackBody, decision: Decision, parts: Parts) -> str:
    """The arm that the report is about; "" for the one drawn. Raises UnknownArmError.

    Who likes the answer of a stand-in says nothing of the arm that failed.
    """
    arm = body.arm or served_by(decision, parts.record.outcomes(decision.id)) or decision.arm
    parts.config.domains[decision.scope.domain].arm(arm)
    return "" if arm == decision.arm else arm


def _context(body: RouteBody, schema: str, now: float) -> Context:
    """The context that the body stands for at a time, UTC seconds. Raises ContextError."""
    if body.prompt is None:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused by the router
            return np.array(body.context, dtype=np.float32)
    turns = tuple(Turn(**turn.model_dump()) for turn in body.conversation)
    asker = Asker(**body.asker.model_dump()) if body.asker else None
    return context(Request(body.prompt, turns, now, asker), schema)
