"""Numbers as people read them: money per 1,000 requests, ages, intervals. UTC throughout."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from dashboard.figures import Estimate

MINUS = "\N{MINUS SIGN}"
_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


def dollars(usd: float, like: float | None = None) -> str:
    """At least two decimals, and three digits that count: $0.287, $15.00, −$0.0312.

    like: another amount (USD) whose decimals to take, so that a value and its interval look alike.
    """
    if not math.isfinite(usd):
        return "unknown"
    size = abs(usd if like is None else like)
    decimals = 2 if size == 0.0 else min(8, max(2, 2 - math.floor(math.log10(size))))
    return f"{MINUS if usd < 0.0 else ''}${abs(usd):,.{decimals}f}"


def per_thousand(usd: float, like: float | None = None) -> str:
    """USD per request as money per 1,000 requests: one request costs too little to read."""
    return dollars(1_000.0 * usd, None if like is None else 1_000.0 * like)


def percent(share: float) -> str:
    """A share as whole percent."""
    return f"{100.0 * share:.0f} %"


def signed(value: float) -> str:
    """A difference of rewards: +0.100, −0.021."""
    return f"{MINUS if value < 0.0 else '+'}{abs(value):.3f}"


def reward_interval(estimate: Estimate, *, sign: bool = False) -> str:
    """95 % interval of a reward, or of a difference of rewards."""
    if not math.isfinite(estimate.low):
        return "no interval from one reward"
    low, high = (signed(end) if sign else f"{end:.3f}" for end in (estimate.low, estimate.high))
    return f"95 %: {low} to {high}"


def money_interval(estimate: Estimate) -> str:
    """95 % interval of USD per request, per 1,000 requests."""
    return f"95 %: {per_thousand(estimate.low, estimate.value)} to {per_thousand(estimate.high, estimate.value)}"


def age(seconds: float) -> str:
    """Whole units of the largest kind that fits: 3 d, 12 min, 5 s."""
    size, unit = next((pair for pair in _UNITS if seconds >= pair[0]), _UNITS[-1])
    return f"{int(max(0.0, seconds) // size)} {unit}"


def moment(time: float) -> str:
    """A time, UTC seconds since the epoch, to the minute."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M UTC")
