"""Sums that add, subtract and merge exactly: what a pass makes of events, by day where evidence is to fade.

Every array holds multiples of a grid (grid.py) or whole numbers, so a sum rounds nothing: any order, any partition and
any number of workers give the same bits, and taking a part away is as if it had never been added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.errors import ShapeError


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Named arrays that are added one by one; two can be added if they have the same names and shapes."""

    arrays: Mapping[str, NDArray[Any]]

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    def __add__(self, other: Sums) -> Sums:
        self._check(other)
        return Sums({name: np.asarray(mine + other[name]) for name, mine in self.arrays.items()})

    def __sub__(self, other: Sums) -> Sums:
        self._check(other)
        return Sums({name: np.asarray(mine - other[name]) for name, mine in self.arrays.items()})

    def times(self, weight: float) -> Sums:
        """Every sum as if each event had counted `weight` times."""
        return Sums({name: weight * mine for name, mine in self.arrays.items()})

    def _check(self, other: Sums) -> None:
        mine, theirs = ({name: a.shape for name, a in one.arrays.items()} for one in (self, other))
        if mine != theirs:
            raise ShapeError(f"sums must be of one pass over the same arms and features, but got {mine} and {theirs}.")


Days = Mapping[int, Sums]  # UTC day since the epoch -> the sums of its events


def merged(parts: Iterable[Days]) -> dict[int, Sums]:
    """The sums of all parts, day by day; exact, so in whatever order they come."""
    found: dict[int, Sums] = {}
    for part in parts:
        for day, sums in part.items():
            found[day] = found[day] + sums if day in found else sums
    return found


def faded(days: Days, half_life_days: float | None) -> Sums:
    """All days as one, where a day counts half as much as one that is `half_life_days` younger; None: all the same.

    The newest day of the log counts fully, so the result depends on the record and not on when it is asked for. Days
    are weighted when they are whole, in their order: weights are not on the grid.
    """
    newest = max(days)
    total: Sums | None = None
    for day in sorted(days):
        sums = days[day] if half_life_days is None else days[day].times(2.0 ** ((day - newest) / half_life_days))
        total = sums if total is None else total + sums
    assert total is not None
    return total
