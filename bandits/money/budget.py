"""Money: what a scope may spend, and how spending so far steers the next decision.

The price of a dollar (lambda) is solved over a whole night's log, not per request, which would oscillate: with arms
that cost 1 : 500, one dear answer is worth twenty budgets. By day only a slow `pressure` divides the budget that the
night solved for, and a hard cap takes dear arms out of reach.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from bandits.types import Mask, Vector

TARGET = 0.97  # aim a little under the budget: rewards bend little there, and spend is noisy
_GAIN = 8  # of the correction, see Pacer.pressure
_RANGE = (0.25, 20.0)  # of the pressure: a day that began in silence must not spend four budgets at once
_MEMORY = 100.0  # requests' worth of belief that spending is on target: the slowness of the correction
_PROMISES = 50_000  # decisions whose cost may still be told; of older ones the promise stays counted, and the name goes
_EXPLORATION_SHARE = 0.1  # an arm is affordable if keeping it explored costs at most this share of the budget


def affordable(prices: Vector, floor: float, budget: float) -> Mask:
    """Arms, (K,), whose share of the exploration floor fits the budget; the cheapest always does.

    Read only.   prices: (K,) USD a request.   floor: probability shared among allowed arms.   budget: USD a request.
    """
    return _affordable(prices.astype(np.float64, copy=False).tobytes(), floor, budget)


@lru_cache(maxsize=1024)  # asked of the same prices at each decision
def _affordable(raw: bytes, floor: float, budget: float) -> Mask:
    prices = np.frombuffer(raw)
    fits = floor / len(prices) * prices <= _EXPLORATION_SHARE * budget
    fits[int(np.argmin(prices))] = True
    fits.flags.writeable = False
    return fits


@dataclass(slots=True)
class Pacer:
    """Spend of one scope on one day; see folds/state.py for how it follows from the record.

    budget: USD per request on average.   burst: requests' worth of budget that may be spent ahead of time.
    """

    budget: float
    burst: int
    requests: int = 0
    settled: float = 0.0  # USD known to be spent
    reserved: dict[str, float] = field(default_factory=dict)  # decision id -> USD expected, until its cost is known
    promised: float = 0.0  # sum of `reserved`, kept beside it: many decisions never hear of their cost

    @property
    def spent(self) -> float:
        """USD spent or promised."""
        return self.settled + self.promised

    @property
    def pressure(self) -> float:
        """What to divide the budget by: 1 at the start of the day, slow to move, above 1 when too much was spent.

        The eighth power of spending over target: dividing by the ratio itself would leave half of a lasting error in
        the expected costs uncorrected (in logarithms), this leaves a ninth.
        """
        target = TARGET * self.budget
        ratio = (self.spent + _MEMORY * target) / ((self.requests + _MEMORY) * target)
        return min(max(ratio**_GAIN, _RANGE[0]), _RANGE[1])

    def within_cap(self, prices: Vector) -> Mask:
        """Arms, (K,), that the running cap allows: spend may never pass budget * (requests + burst)."""
        return self.spent + prices <= self.budget * (self.requests + 1 + self.burst)

    def reserve(self, decision_id: str, price: float) -> None:
        """Count a decision and hold the price that is expected of it.

        An app that never tells costs must not fill the memory: beyond _PROMISES the oldest counts as spent as promised,
        and a cost that is told of it after all comes on top.
        """
        self.requests += 1
        self.reserved[decision_id] = price
        self.promised += price
        if len(self.reserved) > _PROMISES:
            promised = self.reserved.pop(next(iter(self.reserved)))
            self.promised -= promised
            self.settled += promised

    def cancel(self, decision_id: str) -> None:
        """Take back a decision that never came to be."""
        self.requests -= 1
        self.promised -= self.reserved.pop(decision_id)

    def settle(self, decision_id: str, cost: float) -> None:
        """Replace what was held for a decision by what it cost; a second cost of the same decision adds up."""
        self.promised -= self.reserved.pop(decision_id, 0.0)
        self.settled += cost
