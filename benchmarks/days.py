"""Serve the days of an outcome table through the product's own path, and what hindsight says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bandits.learners.baselines import best_fixed, best_mix
from bandits.router import Router
from bandits.types import Actions, Matrix, Outcome, Vector
from benchmarks.outcome_table import Day
from gateway.replay import Replay


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """What happened on a day.   actions: (n,).   rewards: (n,).   costs: (n,) USD."""

    actions: Actions
    rewards: Vector
    costs: Vector
    last_id: str  # of the last decision


def serve(
    router: Router, replay: Replay, day: Day, order: Actions, on_request: Callable[[], None] = lambda: None
) -> Served:
    """Answer every request of `day` in `order`, each through router, record and recording.

    The router reads the record after each, as every process does within seconds. A recording neither fails nor takes
    time, so there is nothing here for the gateway to do.
    """
    actions, rewards, costs, last_id = [], [], [], ""
    for row in order.tolist():
        decision = router.decide(day.contexts[row])
        told = replay.recorded(router.domain.arms[decision.action].model, day.keys[row])
        router.report(
            Outcome(
                decision.id,
                decision.time,
                decision.scope,
                quality=told.quality,
                cost_usd=told.cost_usd,
                source="replay",
                result="stop",
            )
        )
        actions.append(decision.action)
        rewards.append(told.quality)
        costs.append(told.cost_usd)
        last_id = decision.id
        router.catch_up()
        on_request()
    return Served(np.array(actions), np.array(rewards, dtype=np.float64), np.array(costs), last_id)


def hindsight(day: Day, budget: float) -> Mapping[str, Matrix]:
    """What a day's whole truth makes of each simple policy, as probabilities (n, K).

    best_fixed: the arm of highest mean quality among those of mean cost <= budget.   mix: the context-free mix of
    highest mean quality at that budget.   random: uniform, whatever it costs.   oracle: the best arm of each request,
    at the price of a dollar that just meets the budget.
    """
    n, k = day.quality.shape
    quality, cost = day.quality.mean(axis=0), day.cost.mean(axis=0)
    return {
        "best_fixed": _same(np.eye(k)[best_fixed(quality, cost, budget)], n),
        "mix": _same(best_mix(quality, cost, budget), n),
        "random": _same(np.full(k, 1.0 / k), n),
        "oracle": _oracle(day, budget),
    }


def value(day: Day, probabilities: Matrix) -> tuple[float, float]:
    """Mean quality and mean cost (USD per request) of a policy on a day."""
    return float((probabilities * day.quality).sum(axis=1).mean()), float((probabilities * day.cost).sum(axis=1).mean())


def _same(row: Vector, n: int) -> Matrix:
    return np.broadcast_to(row, (n, len(row)))


def _oracle(day: Day, budget: float) -> Matrix:
    def at(price: float) -> Matrix:
        # Of arms equally good, the cheapest: the tiny price breaks ties.
        return np.eye(day.quality.shape[1])[(day.quality - (price + 1e-9) * day.cost).argmax(axis=1)]

    if value(day, at(0.0))[1] <= budget:
        return at(0.0)
    low, high = 0.0, 1e3 / float(day.cost.min())
    for _ in range(80):
        price = 0.5 * (low + high)
        low, high = (price, high) if value(day, at(price))[1] > budget else (low, price)
    return at(high)
