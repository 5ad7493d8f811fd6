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
    available = np.array([arm not in unavailable for arm in domain.arm_names])
    rules: list[tuple[str, Mask]] = [
        ("exploring it would cost more than a tenth of the budget", explorable(domain, prices)),
        ("the running cap of the budget is reached", pacer.within_cap(prices)),
    ]
    if room is not None:
        fits = np.array([nano(price) <= room for price in prices.tolist()])
        rules.append(("the caps of the tenant have too little left for it", fits))
    allowed = np.logical_and.reduce([available, *(mask for _, mask in rules)])
    if not allowed.any():  # a request that the cap blocks is answered by the cheapest arm
        allowed[int(np.argmin(np.where(available, prices, np.inf)))] = True
    excluded = {
        arm: unavailable.get(arm) or next(reason for reason, mask in rules if not mask[index])
        for index, arm in enumerate(domain.arm_names)
        if not allowed[index]
    }
    return allowed, excluded


def only(domain: DomainConfig, one: str, reason: str) -> tuple[Mask, dict[str, str]]:
    """One arm alone, (K,), and why the others may not be drawn."""
    names = domain.arm_names
    return np.array([arm == one for arm in names]), {arm: reason for arm in names if arm != one}


def explorable(domain: DomainConfig, prices: Vector) -> Mask:
    """Arms, (K,), that the budget can keep exploring at these prices, USD per request."""
    return affordable(prices, domain.floor, domain.budget_usd_per_request)
