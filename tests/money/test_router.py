"""Facts about deciding under hard caps: refused before anything is drawn, and what is drawn is logged as drawn."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from bandits.errors import BudgetExhaustedError, DuplicateDecisionError
from bandits.money.caps import HOLD_S, NANO, nano
from bandits.money.ledger import Ledger
from bandits.record.memory import MemoryRecord
from bandits.router import Router
from bandits.settings.caps import CapsConfig
from bandits.types import Outcome, Scope
from tests.logs import PRICES, domain

SCOPE = Scope("acme", "main", "model_routing")
CONTEXT = np.zeros(2, np.float32)
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()


@pytest.fixture
def open_ledger(tmp_path):
    """Opens a ledger with these caps for the tenant, on one file."""
    opened = []

    def make(**caps: float) -> Ledger:
        opened.append(Ledger(f"sqlite:///{tmp_path / 'record.db'}", {"acme": CapsConfig(**caps)}))
        return opened[-1]

    yield make
    for ledger in opened:
        ledger.close()


def router(ledger: Ledger, clock=lambda: NOW, seed: int = 0, record=None) -> Router:
    record = MemoryRecord() if record is None else record
    return Router(SCOPE, domain(1.0), record, np.random.default_rng(seed), clock, ledger=ledger)


def settled(ledger: Ledger) -> tuple[int, int]:
    standing = ledger.standings("acme", "", NOW)[0]
    return standing.settled, standing.reserved


def test_an_exhausted_cap_refuses_before_anything_is_drawn(open_ledger):
    """No decision, no spending of the pacer, and the time to ask again; tomorrow there is money again."""
    now, ledger = NOW, open_ledger(usd_per_day=0.0101)
    record = MemoryRecord()
    made = router(ledger, lambda: now, record=record)
    first = made.decide(CONTEXT)
    made.report(Outcome(first.id, now, SCOPE, quality=1.0, cost_usd=0.01005))

    with pytest.raises(BudgetExhaustedError) as caught:
        made.decide(CONTEXT)
    assert (record.head(), made.pacer.requests) == (2, 1)
    assert caught.value.resets == datetime(2026, 11, 23, tzinfo=UTC).timestamp()
    now = caught.value.resets
    assert made.decide(CONTEXT).id


def test_near_the_cap_the_dear_arms_are_out_of_reach_and_say_so(open_ledger):
    """Their probability is 0 and the rest is drawn and logged as one distribution, not censored after the draw."""
    ledger = open_ledger(usd_per_day=0.1)
    ledger.settle(ledger.reserve("acme", "", NANO // 10, NOW), NANO // 10 - nano(2e-3))
    made = router(ledger).decide(CONTEXT)

    assert made.excluded == {"dear": "the caps of the tenant have too little left for it"}
    assert made.probabilities[2] == 0.0
    assert made.propensity == made.probabilities[made.action] > 0.0
    assert settled(ledger)[1] == nano(2e-3)


def test_all_costs_of_a_decision_are_counted_once(open_ledger):
    """They add up, however often they are told, in place of what was held; an outcome without cost changes nothing."""
    ledger = open_ledger(usd_per_day=1.0)
    made = router(ledger)
    decision = made.decide(CONTEXT, "u-1")
    assert settled(ledger) == (0, nano(PRICES.max()))
    made.report(Outcome(decision.id, NOW, SCOPE, vote=1))
    assert settled(ledger) == (0, nano(PRICES.max()))
    for usd in (0.1, 0.2):
        made.report(Outcome(decision.id, NOW, SCOPE, cost_usd=usd))

    assert settled(ledger) == (nano(0.1 + 0.2), 0)
    assert decision.user == "u-1"


def test_a_cost_that_comes_after_the_hold_lapsed_counts(open_ledger):
    """In the day of the decision."""
    now, ledger = NOW, open_ledger(usd_per_day=1.0)
    made = router(ledger, lambda: now)
    decision = made.decide(CONTEXT)
    now += HOLD_S
    made.decide(CONTEXT)
    made.report(Outcome(decision.id, now, SCOPE, cost_usd=0.3))

    assert settled(ledger) == (nano(0.3), nano(PRICES.max()))


def test_two_processes_share_a_cap(open_ledger):
    """Each with a ledger of its own on one database."""
    one, two = (router(open_ledger(usd_per_day=0.03), seed=seed) for seed in (1, 2))
    for made in (one, two, one):
        made.decide(CONTEXT)

    with pytest.raises(BudgetExhaustedError):
        two.decide(CONTEXT)


def test_each_user_has_a_cap_of_their_own(open_ledger):
    """Another goes on asking."""
    made = router(open_ledger(usd_per_user_day=float(PRICES.max())))
    made.decide(CONTEXT, "u-1")

    with pytest.raises(BudgetExhaustedError, match="user day"):
        made.decide(CONTEXT, "u-1")
    assert made.decide(CONTEXT, "u-2").user == "u-2"


def test_a_decision_that_the_record_refuses_holds_nothing(open_ledger):
    """The money is free at once, not after a minute."""

    class Refusing(MemoryRecord):
        def append(self, *entries):
            raise DuplicateDecisionError("no")

    ledger = open_ledger(usd_per_day=1.0)
    with pytest.raises(DuplicateDecisionError):
        router(ledger, record=Refusing()).decide(CONTEXT)

    assert settled(ledger) == (0, 0)
