"""How many requests a minute: settings, and the rule that says whether one may come now.

The rule is GCRA (ITU-T I.371; "leaky bucket as a meter"): of each account one number is kept, the time at which all
that it was let through so far would have come at an even pace. A minute's worth may come at once.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

WINDOW_S = 60.0
_PerMinute = Annotated[int, Field(ge=1, le=10_000_000)] | None


class RatesConfig(BaseModel):
    """Requests that a tenant may send in a minute, over all its keys, workers and hosts; none: no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: _PerMinute = None
    user_requests_per_minute: _PerMinute = Field(default=None, description="of each single user that it names")


class ServiceConfig(BaseModel):
    """What the HTTP service shares with those of other hosts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    redis: SecretStr | None = Field(
        default=None, description="redis://… that counts requests for all hosts; none: one file for all of this host"
    )


def admit(due: float, now: float, per_minute: int) -> tuple[float, float]:
    """Whether one more may come now.   due: the account's number, 0 at first.   now: UTC, seconds.

    Returns the number to keep, and how long to wait, in seconds: 0 when it may come.
    """
    apart = WINDOW_S / per_minute
    due = min(max(due, now), now + WINDOW_S)  # at most a window ahead, also after a clock was set back
    wait = due + apart - WINDOW_S - now
    return (due, wait) if wait > 1e-6 else (due + apart, 0.0)
