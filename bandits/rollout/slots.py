"""Slots: who sees the canary, and who is its control. A hash, so every process gives the same answer at every time.

A unit (a user; where nobody in particular asks, the decision) has one place on [0, 1) in a rollout, by the rollout's
own seed. The canary serves those below the share of the stage, so a later stage only adds users. The control, of equal
size, is at the other end: those above 1 - share, whom the stable policy serves meanwhile. Who they were can be worked
out again from the record and the order.
"""

from __future__ import annotations

from bandits.experiments.assignment import BUCKETS, bucket


def place(seed: str, unit: str) -> int:
    """Where a unit stands, in 0 .. BUCKETS - 1."""
    return bucket(seed, unit, "rollout")


def is_canary(at: int, share: float) -> bool:
    """Whether the canary serves a unit at this place."""
    return at < round(share * BUCKETS)


def is_control(at: int, share: float) -> bool:
    """Whether it is of the control: as many as the canary has, or those that it leaves."""
    size = round(share * BUCKETS)
    return at >= max(BUCKETS - size, size)
