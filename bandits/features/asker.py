"""Who asks, as far as their earlier requests tell (request.Asker). All 0 for somebody unknown."""

from __future__ import annotations

from math import log1p

from bandits.features.request import Reading

NAMES = ("is_known", "log_requests", "has_reward", "mean_reward", "favourite_share", "log_days")


def features(reading: Reading) -> list[float]:
    """One number a name."""
    asker = reading.request.asker
    if asker is None:
        return [0.0] * len(NAMES)
    return [
        1.0,
        log1p(asker.requests),
        float(asker.mean_reward is not None),
        asker.mean_reward or 0.0,
        asker.favourite_share,
        log1p(asker.days),
    ]
