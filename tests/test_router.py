"""Facts about deciding: the record has it, the propensity is exact, money and trust exclude arms by name."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from scipy.stats import chisquare

from bandits.config import NightConfig
from bandits.errors import ContextError, ForeignDecisionError, UnknownArmError, UnknownDecisionError
from bandits.learners.baselines import ContextFree
from bandits.night import night
from bandits.record.memory import MemoryRecord
from bandits.record.sql import SqlRecord
from bandits.rewards import activated
from bandits.router import Router
from bandits.served import Serving
from bandits.types import Decision, Outcome, Scope
from tests.logs import ARMS, domain, simulate

SCOPE = Scope("acme", "main", "model_routing")
CONTEXT = np.zeros(2, np.float32)


def router(budget: float = 1e-2, record=None, seed: int = 0, clock=lambda: 0.0, **settings) -> Router:
    record = MemoryRecord() if record is None else record
    return Router(SCOPE, domain(budget, **settings), record, np.random.default_rng(seed), clock)


def test_a_decision_is_in_the_record_when_it_is_returned():
    """Acknowledged means durable."""
    record = MemoryRecord()

    made = router(record=record).decide(CONTEXT)

    assert record.decision(made.id, "acme") is made


@pytest.mark.parametrize("bad", [np.array([np.nan, 0.0]), np.zeros(3), np.zeros((1, 2))])
def test_a_bad_context_is_refused_before_anything_is_written(bad):
    """NaN, another length, another shape."""
    record = MemoryRecord()
    made = router(record=record)

    with pytest.raises(ContextError):
        made.decide(bad)

    assert record.head() == 0
    assert made.pacer.requests == 0
    made.decide(CONTEXT)
    assert record.head() == 1


def test_realised_draws_agree_with_logged_propensities():
    """4,000 decisions: shares by chi-square, and the mean of 1[a=k]/p_k is 1 within 4 standard errors."""
    made = router(budget=1.0)
    decisions = [made.decide(CONTEXT) for _ in range(4000)]
    probabilities = np.stack([d.probabilities for d in decisions])
    drawn = np.stack([np.eye(3)[d.action] for d in decisions])

    assert chisquare(drawn.sum(axis=0), probabilities.sum(axis=0)).pvalue > 1e-6
    ratio = drawn / probabilities
    assert (np.abs(ratio.mean(axis=0) - 1) < 4 * ratio.std(axis=0) / np.sqrt(4000)).all()


def test_same_seed_same_decisions():
    """All chance comes from the generator that was passed, ids included."""
    one, two = router(seed=5), router(seed=5)

    pairs = [(one.decide(CONTEXT), two.decide(CONTEXT)) for _ in range(50)]

    assert all(a.id == b.id and a.action == b.action for a, b in pairs)


def test_an_arm_that_the_budget_cannot_explore_is_excluded_with_its_reason():
    """Probability 0, and a sentence that says why."""
    made = router(budget=2e-4).decide(CONTEXT)

    assert made.probabilities[2] == 0.0
    assert made.excluded == {"dear": "exploring it would cost more than a tenth of the budget"}


def test_at_the_cap_the_cheapest_arm_answers_and_says_so():
    """Every allowed arm was dear: one is left, and its propensity is 1."""
    made = router(budget=1e-3, burst=1)
    for _ in range(40):
        decision = made.decide(CONTEXT)
        made.report(Outcome(decision.id, 0.0, SCOPE, cost_usd=1e-2))

    decision = made.decide(CONTEXT)

    assert decision.arm == "cheap"
    assert decision.propensity == 1.0
    assert set(decision.excluded.values()) == {"the running cap of the budget is reached"}


def test_an_outcome_of_a_foreign_or_unknown_decision_changes_nothing():
    """Neither the record nor the money."""
    record = MemoryRecord()
    made = router(record=record)
    decision = made.decide(CONTEXT)
    foreign = Scope("other", "main", "model_routing")

    with pytest.raises(ForeignDecisionError):
        made.report(Outcome(decision.id, 0.0, foreign, quality=1.0, cost_usd=5.0))
    with pytest.raises(UnknownDecisionError):
        made.report(Outcome("no such id", 0.0, SCOPE, cost_usd=5.0))

    assert record.head() == 1
    assert made.pacer.spent < 5.0


def test_a_restart_remembers_what_was_spent_today(tmp_path):
    """Known costs and promised ones, from the record alone; yesterday's do not count."""
    url = f"sqlite:///{tmp_path / 'record.db'}"
    now = [0.0]
    with SqlRecord(url) as record:
        before = router(record=record, clock=lambda: now[0])
        before.report(Outcome(before.decide(CONTEXT).id, 0.0, SCOPE, cost_usd=3.0))
        now[0] = 86_400.0
        decision = before.decide(CONTEXT)
        before.report(Outcome(decision.id, now[0], SCOPE, cost_usd=2e-3))
        before.decide(CONTEXT)
    with SqlRecord(url) as record:
        after = router(record=record, clock=lambda: now[0])

    assert after.pacer.requests == before.pacer.requests == 2
    assert after.pacer.spent == pytest.approx(before.pacer.spent)
    assert after.pacer.spent < 1.0


def test_an_arm_that_left_the_configuration_today_does_not_stop_a_restart():
    """What it was promised is forgotten; what it is known to have cost is not."""
    record = MemoryRecord()
    before = router(record=record, seed=1)
    for _ in range(20):
        decision = before.decide(CONTEXT)
        before.report(Outcome(decision.id, 0.0, SCOPE, cost_usd=1e-3))
    fewer = domain(1e-2).model_copy(update={"arms": domain(1e-2).arms[:2]})

    after = Router(SCOPE, fewer, record, np.random.default_rng(0), lambda: 0.0)

    assert after.pacer.spent == pytest.approx(20e-3)
    assert after.decide(CONTEXT).arm in ("cheap", "middle")


def test_a_policy_for_other_arms_is_not_served():
    """The one that serves goes on serving."""
    made = router()
    stranger = ContextFree("fixed", ("x", "y"), "vector-2", np.ones(2), np.ones(2), 1.0, 0.02)

    with pytest.raises(ContextError, match="train again"):
        made.swap(Serving(stranger, "000001"))

    assert made.serving.version == "explore"
    made.decide(CONTEXT)


def test_a_learned_policy_keeps_the_floor_logs_its_price_and_never_plays_an_arm_it_cannot_afford_to_explore():
    """After a night in which the dear arm was never drawn: exploring it would take too much of the budget."""
    log = simulate(1500, 1, probabilities=(0.5, 0.5, 0.0))
    learned = night.learn(log, domain(6e-4), NightConfig(trials=1))
    made = router(budget=6e-4)
    made.swap(Serving(learned.trained.policy, "000001"))

    rng = np.random.default_rng(0)
    decisions = [made.decide(rng.normal(size=2).astype(np.float32)) for _ in range(300)]

    for d in decisions:
        allowed = [arm not in d.excluded for arm in ARMS]
        assert (d.probabilities[allowed] >= 0.02 / sum(allowed) - 1e-12).all()
        assert d.probabilities[2] == 0.0
        assert d.policy == "000001"
        assert d.price > 0.0
    assert {d.arm for d in decisions} == {"cheap", "middle"}


def test_a_pinned_arm_answers_and_is_logged_as_forced():
    """Whatever the budget says of it; nothing is learned from it, and an arm that is not there is refused."""
    record = MemoryRecord()
    made = router(budget=1e-4, record=record)

    pinned = made.decide(CONTEXT, conversation="c-1", pinned=ARMS[2])

    assert (pinned.arm, pinned.propensity, pinned.forced) == (ARMS[2], 1.0, True)
    assert pinned.excluded == {ARMS[0]: "another was pinned", ARMS[1]: "another was pinned"}
    assert record.conversation("acme", "c-1") is pinned
    assert not activated(pinned)
    with pytest.raises(UnknownArmError, match="must be one of"):
        made.decide(CONTEXT, pinned="nobody")
    assert record.head() == 1


def test_many_threads_decide_at_once_and_nothing_is_lost():
    """8 threads x 50 decisions: 400 rows, 400 ids, 400 requests counted."""
    record = MemoryRecord()
    made = router(record=record)
    decisions: list[Decision] = []

    def work() -> None:
        decisions.extend(made.decide(CONTEXT) for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({d.id for d in decisions}) == record.head() == made.pacer.requests == 400
