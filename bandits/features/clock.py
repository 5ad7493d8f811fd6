"""Hour of the day and day of the week, UTC, as points on circles: midnight is near 23 h. All 0 for an unknown time."""

from __future__ import annotations

from math import cos, sin, tau

from bandits.features.request import Reading

NAMES = ("hour_sin", "hour_cos", "weekday_sin", "weekday_cos")
_DAY, _WEEK = 86_400.0, 7 * 86_400.0


def features(reading: Reading) -> list[float]:
    """One number a name; a circle begins at midnight, and on Thursday, as the epoch does."""
    time = reading.request.time
    if time is None:
        return [0.0] * len(NAMES)
    hour, weekday = tau * (time % _DAY) / _DAY, tau * (time % _WEEK // _DAY) / 7
    return [sin(hour), cos(hour), sin(weekday), cos(weekday)]
