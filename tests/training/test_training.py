"""Facts about the fold: it learns what is there to learn, honestly, and says so when there is nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bandits.config import NightConfig
from bandits.errors import NotEnoughDataError
from bandits.learners.doubly_robust import Parameters
from bandits.learners.frozen import thaw
from bandits.snapshots.manifest import content_hash
from bandits.training.training import prepare, train
from tests.logs import PRICES, domain, simulate, truth

BUDGET = 1.5e-3


def value(policy, contexts) -> tuple[float, float]:
    """True mean reward and price of a policy on fresh contexts."""
    allowed = np.ones((len(contexts), 3), dtype=bool) & policy.supported
    probabilities = policy.probabilities(contexts, allowed)
    return float((probabilities * truth(contexts)).sum(axis=1).mean()), float((probabilities @ PRICES).mean())


def test_the_learned_policy_beats_every_simple_one_at_its_budget():
    """On fresh contexts, by the truth that made the log."""
    trained = train(prepare(simulate(4000, 0), domain(BUDGET), 200), Parameters())
    fresh = np.random.default_rng(99).normal(size=(20_000, 2)).astype(np.float32)

    reward, cost = value(trained.policy, fresh)

    best_simple = max(truth(fresh).mean(axis=0)[:2]) + 0.25 * BUDGET / PRICES[2]  # generous: some share of the dear arm
    assert reward > best_simple + 0.05
    assert cost == pytest.approx(BUDGET * 0.97, rel=0.1)


def test_the_expected_cost_is_the_cost():
    """The price model's word for tomorrow against the truth."""
    trained = train(prepare(simulate(4000, 0), domain(BUDGET), 200), Parameters())
    fresh = np.random.default_rng(99).normal(size=(20_000, 2)).astype(np.float32)

    assert trained.cost_per_request == pytest.approx(value(trained.policy, fresh)[1], rel=0.1)


def test_same_log_same_snapshot_hash():
    """Exact fold: two runs, and a run on the log in two parts put together, give the same bits."""
    log = simulate(1200, 2)
    front, back = log.where(np.arange(1200) < 500), log.where(np.arange(1200) >= 500)
    names = ("times", "contexts", "actions", "propensities", "probabilities", "rewards", "costs")
    again = replace(
        log,
        ids=front.ids + back.ids,
        **{name: np.concatenate([getattr(front, name), getattr(back, name)]) for name in names},
    )

    hashes = {
        content_hash(train(prepare(one, domain(BUDGET), 200), Parameters()).policy.freeze().arrays)
        for one in (log, log, again)
    }

    assert len(hashes) == 1
    other = train(prepare(simulate(1200, 3), domain(BUDGET), 200), Parameters()).policy
    assert content_hash(other.freeze().arrays) not in hashes


def test_a_policy_survives_freezing_bit_for_bit():
    """What was judged is what serves."""
    policy = train(prepare(simulate(1200, 2), domain(BUDGET), 200), Parameters()).policy
    contexts = np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32)
    allowed = np.ones((50, 3), dtype=bool)

    again = thaw(policy.freeze())

    for pressure in (0.5, 1.0, 2.0):
        one, two = (p.probabilities(contexts, allowed, pressure) for p in (policy, again))
        assert one.tobytes() == two.tobytes()


def test_under_pressure_the_policy_spends_less():
    """The price of a dollar rises with spending, and mean cost falls."""
    policy = train(prepare(simulate(3000, 4), domain(BUDGET), 200), Parameters()).policy
    contexts = np.random.default_rng(1).normal(size=(2000, 2)).astype(np.float32)
    allowed = np.ones((2000, 3), dtype=bool)

    costs = [float((policy.probabilities(contexts, allowed, u) @ PRICES).mean()) for u in (0.5, 1.0, 2.0, 4.0)]

    assert costs == sorted(costs, reverse=True)
    assert costs[2] == pytest.approx(costs[1] / 2, rel=0.15)
    assert policy.price(0.5) < policy.price(1.0) < policy.price(2.0)


def test_scores_of_a_round_come_from_models_without_it():
    """Changing a reward changes no score of its own fold, and some of the others (the negative control)."""
    log = simulate(600, 5)
    changed = log.rewards.copy()
    changed[0] = 1.0 - changed[0]
    before = train(prepare(log, domain(BUDGET), 200), Parameters())
    after = train(prepare(replace(log, rewards=changed), domain(BUDGET), 200), Parameters())
    fold = prepare(log, domain(BUDGET), 200).events.folds
    same = (before.scores.q_hat == after.scores.q_hat).all(axis=1)

    assert same[fold == fold[0]].all()
    assert not same[fold != fold[0]].any()


def test_too_small_a_log_trains_nothing():
    """With how many rounds there are, and how many still wait for their reward."""
    log = replace(simulate(150, 0), missing=40)

    with pytest.raises(NotEnoughDataError, match=r"needs 200 rounds .* has 150 \(40 more wait"):
        prepare(log, domain(BUDGET), 200)


def test_one_trusted_arm_trains_nothing():
    """There is nothing to choose from."""
    log = simulate(400, 0, probabilities=(0.99, 0.005, 0.005))

    with pytest.raises(NotEnoughDataError, match="two arms with 15 draws"):
        prepare(log, domain(BUDGET), 200)


def test_settings_have_sane_defaults():
    """The night of a newcomer needs no section."""
    assert NightConfig().trials >= 1
