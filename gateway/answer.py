"""Decide, ask the model, report what came back: the path of every answered prompt."""

from __future__ import annotations

from dataclasses import dataclass

from bandits import features
from bandits.router import Router
from bandits.types import Context, Decision, Outcome
from gateway.adapter import Adapter, GatewayError, Reply


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision and the reply of the arm that it drew."""

    decision: Decision
    reply: Reply


def answer(router: Router, adapter: Adapter, prompt: str, context: Context | None = None, user: str = "") -> Answer:
    """Answer `prompt` with the arm that `router` draws; the outcome is recorded before this returns.

    context: the request's features where the caller knows more than the prompt, or has vectors of its own.
    user: the pseudonym of whoever asks; "" for nobody in particular.
    A model that fails earns quality 0 for its arm, with source "failed" and its own cost, and the error is raised:
    a dead arm must not look like an arm without news.
    """
    if context is None:
        context = features.context(features.Request(prompt), router.domain.features)
    decision = router.decide(context, user)
    arm = router.domain.arms[decision.action]
    try:
        reply = adapter.complete(arm.model, prompt)
    except GatewayError as error:
        failed = Outcome(
            decision.id, decision.time, decision.scope, quality=0.0, cost_usd=error.cost_usd, source="failed"
        )
        router.report(failed)
        raise
    outcome = Outcome(
        decision.id,
        decision.time + reply.latency_s,
        decision.scope,
        quality=reply.quality,
        cost_usd=reply.cost_usd,
        latency_s=reply.latency_s,
        source=arm.provider,
    )
    router.report(outcome)
    return Answer(decision, reply)
