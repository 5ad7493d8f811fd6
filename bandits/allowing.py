"""Which arms may be drawn for a decision, and why the others may not: availability, budget, caps. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bandits.config import DomainConfig
from bandits.errors import UnavailableError
from bandits.money.budget import Pacer, affordable
from bandits.money.caps import nano
from bandits.types import Mask, Scope, Vector


def check_available(scope: Scope, domain: DomainConfig, unavailable: Mapping[str, str]) -> Mapping[str, str]:
    """The same arms and reasons. Raises UnknownArmError, and UnavailableError where no arm is left."""
    for arm in unavailable:
        domain.arm(arm)
    if len(unavailable) == len(domain.arms):
        said = "; ".join(f"{arm}: {reason}" for arm, reason in unavailable.items())
        raise UnavailableError(f"one arm must be available, but none of {scope} is ({said}); try again later.")
    return unavailable


def allow(
    domain: DomainConfig, prices: Vector, pacer: Pacer, room: int | None, unavailable: Mapping[str, str]
) -> tuple[Mask, dict[str, str]]:
    """Arms that may be drawn now, (K,), and why the others may not. At least one always may.

    prices: (K,) USD that the policy expects of a request.   room: nano-dollars that the caps hold for it; None: no cap.
    """
    affordable, within = explorable(domain, prices).tolist(), pacer.within_cap(prices).tolist()
    fits = [True] * len(prices) if room is None else [nano(price) <= room for price in prices.tolist()]
    excluded: dict[str, str] = {}
    for index, arm in enumerate(domain.arm_names):
        if arm in unavailable:
            excluded[arm] = unavailable[arm]
        elif not affordable[index]:
            excluded[arm] = "exploring it would cost more than a tenth of the budget"
        elif not within[index]:
            excluded[arm] = "the running cap of the budget is reached"
        elif not fits[index]:
            excluded[arm] = "the caps of the tenant have too little left for it"
    if len(excluded) == len(prices):  # a request that the cap blocks is answered by the cheapest arm
        available = np.array([arm not in unavailable for arm in domain.arm_names])
        del excluded[domain.arm_names[int(np.argmin(np.where(available, prices, np.inf)))]]
    return np.array([arm not in excluded for arm in domain.arm_names]), excluded


def only(domain: DomainConfig, one: str, reason: str) -> tuple[Mask, dict[str, str]]:
    """One arm alone, (K,), and why the others may not be drawn."""
    names = domain.arm_names
    return np.array([arm == one for arm in names]), {arm: reason for arm in names if arm != one}


def explorable(domain: DomainConfig, prices: Vector) -> Mask:
    """Arms, (K,), that the budget can keep exploring at these prices, USD per request."""
    return affordable(prices, domain.floor, domain.budget_usd_per_request)
