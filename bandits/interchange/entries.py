"""Imported feedback as entries of the record: a log from elsewhere is learned from like our own."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bandits.types import Decision, LoggedFeedback, Outcome, Scope

POLICY = "imported"  # what the decisions name as the policy that acted
_EXCLUDED = "the imported log gives it probability 0"


def entries(feedback: LoggedFeedback, scope: Scope) -> Iterator[tuple[Decision, Outcome]]:
    """Each round as a decision of `scope` and what came back for it, in order; folding them gives `feedback` again.

    The reward becomes a measured quality, of the time of its decision. Raises what Decision and Outcome raise.
    """
    columns = (feedback.times, feedback.actions, feedback.propensities, feedback.rewards, feedback.costs)
    for index, (id_, *numbers) in enumerate(zip(feedback.ids, *(each.tolist() for each in columns), strict=True)):
        time, action, propensity, reward, cost = numbers
        probabilities = feedback.probabilities[index].copy()
        decision = Decision(
            id=id_,
            time=time,
            scope=scope,
            schema=feedback.schema,
            context=feedback.contexts[index].copy(),
            arms=feedback.arms,
            excluded={arm: _EXCLUDED for arm, p in zip(feedback.arms, probabilities, strict=True) if p == 0.0},
            probabilities=probabilities,
            action=action,
            propensity=propensity,
            policy=POLICY,
        )
        spent = None if math.isnan(cost) else cost
        yield decision, Outcome(id_, time, scope, quality=reward, cost_usd=spent, source="import")
