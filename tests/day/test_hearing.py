"""Facts about what is heard: an outcome is learned once, when its decision's reward is first known."""

from __future__ import annotations

import numpy as np
import pytest

from bandits.day import learning as module
from bandits.day.learning import Learning
from bandits.record.port import Row
from bandits.settings.reward import RewardConfig
from bandits.types import Outcome, Slot
from tests.day.days import SCOPE, decision, plain
from tests.logs import domain


def heard(policy, *entries, **reward):
    """How often the arm of `decision` was learned from, and the mean of its rewards less the estimate."""
    learning = Learning(SCOPE, domain(1.0, reward=RewardConfig(**reward)), policy, "000001", 0)
    learning.fold([Row(i, entry) for i, entry in enumerate(entries, start=1)])
    return learning


def test_an_outcome_is_learned_once_when_the_reward_is_first_known(policy):
    """Not at the cost alone; not again when it is corrected."""
    d = decision()
    cost, quality = Outcome("d", 1.0, SCOPE, cost_usd=0.1), Outcome("d", 2.0, SCOPE, quality=1.0)

    assert heard(policy, d, cost).counts.sum() == 0
    once = heard(policy, d, cost, quality)
    assert once.counts.tolist() == [1, 0, 0]
    assert plain(heard(policy, d, cost, quality, Outcome("d", 3.0, SCOPE, quality=0.0)))[2:] == plain(once)[2:]
    estimate = policy.scores(d.context[None]).q_hat[0, 0]
    assert once.means[0] == 1.0 - estimate


@pytest.mark.parametrize(
    "skipped",
    [
        {"forced": True},
        {"slot": Slot.SHADOW},
        {"schema": "vector-3"},
        {"arms": ("cheap", "middle", "other")},
    ],
    ids=["forced", "shadow", "schema", "arms"],
)
def test_what_tells_nothing_of_these_arms_is_skipped(policy, skipped):
    """Forced and shadow decisions; other features, other arms."""
    assert heard(policy, decision(**skipped), Outcome("d", 1.0, SCOPE, quality=1.0)).counts.sum() == 0


def test_a_window_that_closed_is_left_to_the_night(policy):
    """The outcome came too late, or its decision was let go of."""
    late = Outcome("d", 99.0, SCOPE, quality=1.0)
    learning = heard(policy, decision(), decision("e", time=100.0), late, window_s=50.0)

    assert learning.counts.sum() == 0
    assert list(learning.waiting) == ["e"]


def test_where_silence_has_a_worth_good_news_waits_for_it(policy):
    """Answered and silent decisions are learned together when their windows close, so that neither biases."""
    entries = [decision("a"), decision("b"), Outcome("a", 1.0, SCOPE, quality=1.0)]

    assert heard(policy, *entries, default=0.0, window_s=50.0).counts.sum() == 0
    closed = heard(policy, *entries, decision("c", time=60.0), default=0.0, window_s=50.0)
    assert closed.counts.tolist() == [2, 0, 0]
    estimate = policy.scores(np.zeros((1, 2), np.float32)).q_hat[0, 0]
    assert closed.means[0] == pytest.approx(0.5 - estimate)


def test_no_more_decisions_wait_than_stated(policy, monkeypatch):
    """The oldest is let go of."""
    monkeypatch.setattr(module, "WAITING", 3)

    assert list(heard(policy, *[decision(str(i)) for i in range(5)]).waiting) == ["2", "3", "4"]
