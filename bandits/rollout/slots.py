"""Slots: who sees the canary, and who is its control. A hash, so every process gives the same answer at every time.

A unit (a user; where nobody in particular asks, the decision) has one place on [0, 1) in a rollout, by the rollout's
own seed. The canary serves those below the share of the stage, so a later stage only adds users. The control, of equal
size, is at the other end: those above 1 - share, whom the stable policy serves meanwhile. Who they were can be worked
out again from the record and the order.
"""

from __future__ import annotations

from bandits.assignment import BUCKETS, bucket


def place(seed: str, unit: str) -> int:
    """Where a unit stands, in 0 .. BUCKETS - 1."""
    return bucket(seed, unit, "rollout")


def canary_ends(share: float) -> int:
    """The canary serves the places below this one."""
    return round(share * BUCKETS)


def control_begins(share: float) -> int:
    """The control has this place and those above: as many as the canary, or all that it leaves."""
    return max(BUCKETS - canary_ends(share), canary_ends(share))
