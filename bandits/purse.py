"""What a router holds for a request before it draws, and settles when its cost is told: the caps of its tenant."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bandits.allowing import explorable, only
from bandits.config import DomainConfig
from bandits.errors import LedgerError
from bandits.money.caps import Reservation, nano
from bandits.record.port import Record
from bandits.rewards import cost
from bandits.types import Scope, Vector, new_id

if TYPE_CHECKING:
    from bandits.money.ledger import Ledger


class Reach(NamedTuple):
    """What a request may be expected to cost, USD."""

    most: float
    least: float


def reach(domain: DomainConfig, prices: Vector, others: Sequence[Vector], pinned: str | None) -> Reach:
    """The most and the least that a request may cost by the prices of what serves, (K,), and of what others are tried.

    pinned: the arm that its caller insists on.
    """
    most = np.maximum.reduce([prices, *others])
    mask = explorable(domain, prices) if pinned is None else only(domain, pinned, "")[0]
    least = float(prices.min() if pinned is None else most[mask][0])
    return Reach(float(max(most[mask], default=least)), least)


class Purse:
    """The ledger as a router of one scope uses it. Any thread may call."""

    def __init__(self, ledger: Ledger, scope: Scope, record: Record) -> None:
        self.ledger, self._scope, self._record = ledger, scope, record

    def hold(self, user: str, now: float, reach: Reach, noise: bytes) -> Reservation:
        """Hold what the dearest arm in reach is expected to cost, or what the caps have left for a cheaper one.

        Before anything is drawn: a draw that a cap refused would be missing from the log and its propensity untrue.
        noise: of the decision's id. Raises BudgetExhaustedError.
        """
        id_, amount, least = new_id(now, noise), nano(reach.most), nano(reach.least)
        return self.ledger.reserve(self._scope.tenant, user, amount, now, least=least, id=id_)

    def let_go(self, held: Reservation) -> None:
        """Give back what is held for a decision that was not made; what cannot be given back now lapses."""
        with suppress(LedgerError):
            self.ledger.release(held)

    def settle(self, *decision_ids: str) -> None:
        """Count against the caps all that decisions have cost so far, each in the day it was made."""
        for decision_id in decision_ids:
            decision = self._record.decision(decision_id, self._scope.tenant)
            spent = cost(self._record.outcomes(decision_id)) or 0.0
            made = Reservation(decision_id, self._scope.tenant, decision.user, 0, decision.time)
            self.ledger.settle(made, nano(spent))
