"""Golden probes: what can be seen of a policy without any traffic.

A few fixed contexts are put to it as a decision would: does it give distributions over the arms, with the floor, and
soon enough? A policy that fails here must not serve, whatever its outcomes say.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from bandits.config import DomainConfig
from bandits.features import width
from bandits.money.budget import affordable
from bandits.policy import Policy, served
from bandits.types import Context, Mask, Matrix

SLOWEST_S = 0.1  # for one decision
TRIES = 3  # of each context; the best time counts, since a busy machine is no fault of the policy
_ROWS = 6


def contexts(schema: str) -> Context:
    """The same rows for ever, (8, d): none, all, and what may come."""
    d = width(schema)
    drawn = np.random.default_rng(20_26).normal(size=(_ROWS, d))
    found: Context = np.vstack([np.zeros((1, d)), np.ones((1, d)), drawn]).astype(np.float32)
    return found


def fault(policy: Policy, domain: DomainConfig, clock: Callable[[], float] = time.perf_counter) -> str | None:
    """What is wrong with the policy, or None. clock: seconds, for how long it takes."""
    masks = _masks(policy, domain)
    least = min(policy.floor, domain.floor) * (1.0 - 1e-6)
    for row in contexts(domain.features):
        for allowed in masks:
            try:
                probabilities, seconds = _decide(policy, row, allowed, clock)
            except Exception as error:  # whatever a broken policy raises is what it would raise in a decision
                return f"a probe must be answered, but raised {type(error).__name__}: {error}"
            told = _wrong(probabilities, allowed, least, len(domain.arms))
            if told is None and seconds > SLOWEST_S:
                told = f"a decision must take under {SLOWEST_S:g} s, but took {seconds:.2f}"
            if told is not None:
                return f"{told}, when probed"
    return None


def _masks(policy: Policy, domain: DomainConfig) -> list[Mask]:
    """All arms that the budget allows to explore, and all but one of them."""
    every = affordable(policy.prices, domain.floor, domain.budget_usd_per_request)
    fewer = every.copy()
    fewer[int(np.flatnonzero(every)[0])] = False
    return [every, fewer] if fewer.any() else [every]


def _decide(policy: Policy, row: Context, allowed: Mask, clock: Callable[[], float]) -> tuple[Matrix, float]:
    best = np.inf
    for _ in range(TRIES):
        start = clock()
        found = served(policy, row[None, :], allowed[None, :])
        best = min(best, clock() - start)
        if best <= SLOWEST_S:
            break
    return found[0], best


def _wrong(row: Matrix, allowed: Mask, least: float, k: int) -> str | None:
    if row.shape != (k,) or not np.isfinite(row).all():
        return f"probabilities must be {k} finite numbers, but are {row.tolist()!r:.120}"
    if abs(float(row.sum()) - 1.0) > 1e-9 or float(row.min()) < 0.0 or row[~allowed].any():
        return f"probabilities must be >= 0 and sum to 1 over the allowed arms, but are {row.tolist()!r:.120}"
    floor = least / int(allowed.sum())
    if float(row[allowed].min()) < floor:
        return f"each allowed arm must have {floor:.2g} at least, but one has {float(row[allowed].min()):.2g}"
    return None
