"""Facts about the estimate of one fixed model from the log of others."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from bandits.errors import NotEnoughDataError
from bandits.evaluation.intervals import normal
from bandits.evaluation.moments import moments
from bandits.what_if.counterfactual import Log, Models, fit, fixed_arm, share, weighted
from tests.dashboard.worlds import ARMS, DOMAIN, PRICES, truth, two_days

TRUTH = truth()


def flat(n, value=0.5, usd=2e-4):
    """Models that know nothing."""
    return Models(np.full((n, 3), value), np.full((n, 3), usd))


def by_hand(log, models, arm, what):
    """The estimate in the words of its docstring, one round at a time."""
    f = log.feedback
    q, y = (models.q_hat, f.rewards) if what == "reward" else (models.cost_hat, f.costs)
    total = weight = 0.0
    for version in sorted(set(log.policies.tolist())):
        rounds = [i for i in range(len(f)) if log.policies[i] == version and f.probabilities[i, arm] > 0.0]
        c = 1.0 / (sum(1.0 / f.probabilities[i, arm] for i in rounds) / len(rounds))
        for i in rounds:
            hit = (y[i] - q[i, arm]) / f.propensities[i] if f.actions[i] == arm else 0.0
            total += c * (q[i, arm] + hit)
            weight += c
    return total / weight


@pytest.mark.parametrize("arm", [0, 1])
def test_it_is_the_weighted_mean_of_doubly_robust_scores(arm):
    """Vectors and a loop that a student could write agree, for rewards and for costs."""
    log = two_days(1)
    models = fit(log.feedback, DOMAIN)
    found = fixed_arm(log, models, arm)
    assert found.rewards.mean() == pytest.approx(by_hand(log, models, arm, "reward"), abs=1e-12)
    assert found.costs.mean() == pytest.approx(by_hand(log, models, arm, "cost"), abs=1e-15)
    assert (found.name, found.drawn) == (ARMS[arm], int((log.feedback.actions == arm).sum()))


def test_intervals_cover_the_truth():
    """95 % intervals hold each arm's true reward and cost in at least 89 % of 240, however ignorant the models.

    One that is exact fails that once in 10,000.
    The control: the plain mean of the arm's own draws, which the learned policy made where it is good, does not.
    """
    hits = {"reward": 0, "usd": 0, "control": 0}
    for seed in range(120):
        log = two_days(seed)
        for arm in (0, 1):
            found = fixed_arm(log, flat(len(log.feedback)), arm)
            low, high = normal(moments(found.rewards), 0.05)
            hits["reward"] += low <= TRUTH.rewards[arm] <= high
            low, high = normal(moments(found.costs), 0.05)
            hits["usd"] += low <= TRUTH.usd[arm] <= high
        low, high = normal(moments(log.feedback.rewards[log.feedback.actions == 0]), 0.05)
        hits["control"] += low <= TRUTH.rewards[0] <= high
    least = binom.ppf(1e-4, 240, 0.95)
    assert hits["reward"] >= least
    assert hits["usd"] >= least
    assert hits["control"] < 30


def test_versions_are_weighted_by_what_they_can_say():
    """A day of rare draws hardly moves the estimate of a day of many: the interval is no wider than the good day's."""
    log = two_days(3)
    first = log.where(log.policies == "explore")
    both = moments(fixed_arm(log, flat(len(log.feedback)), 0).rewards).standard_error
    alone = moments(fixed_arm(first, flat(len(first.feedback)), 0).rewards).standard_error
    assert both < 1.02 * alone


def test_an_arm_that_was_never_possible_has_no_support():
    """Nothing is said of its reward or cost, and it needs no more rounds but a policy that tries it."""
    log = two_days(1, explore=(0.6, 0.4, 0.0))
    f = log.feedback
    p = f.probabilities.copy()
    p[:, 2] = 0.0
    kept = f.actions != 2
    p /= p.sum(axis=1, keepdims=True)
    never = Log(replace(f, probabilities=p, propensities=p[np.arange(len(f)), f.actions].clip(1e-9)), log.policies)
    found = fixed_arm(never.where(kept), flat(int(kept.sum())), 2)
    assert (found.verdict, found.ess, found.drawn) == ("no support", 0.0, 0)
    assert np.isnan(found.rewards).all()
    assert np.isnan(found.costs).all()


def test_an_arm_that_was_rarely_drawn_has_not_enough_data():
    """60 and some draws at 1 in 10 are no 200 effective rounds."""
    log = two_days(1)
    found = fixed_arm(log, flat(len(log.feedback)), 2)
    assert found.verdict == "not enough data"
    assert 0.0 < found.ess < 200.0


def test_rounds_without_a_cost_tell_of_reward_alone():
    """Rewards use every round, costs only those that have one; none counts as free."""
    log = two_days(2)
    costs = log.feedback.costs.copy()
    costs[::5] = np.nan
    holes = Log(replace(log.feedback, costs=costs), log.policies)
    models = flat(len(costs))
    found, whole = fixed_arm(holes, models, 0), fixed_arm(log, models, 0)
    assert found.rewards.tolist() == whole.rewards.tolist()
    priced = holes.where(np.isfinite(costs))
    assert found.costs.mean() == pytest.approx(by_hand(priced, flat(len(priced.feedback)), 0, "cost"), abs=1e-15)
    assert found.costs.mean() == pytest.approx(PRICES[0], rel=0.15)


def test_models_never_saw_the_round_that_they_score():
    """Changing a round's own reward and cost changes nothing that is predicted for it."""
    log = two_days(4)
    before = fit(log.feedback, DOMAIN)
    rewards, costs = log.feedback.rewards.copy(), log.feedback.costs.copy()
    rewards[7], costs[7] = 1.0 - rewards[7], 5.0 * costs[7]
    after = fit(replace(log.feedback, rewards=rewards, costs=costs), DOMAIN)
    assert after.q_hat[7].tolist() == before.q_hat[7].tolist()
    assert after.cost_hat[7].tolist() == before.cost_hat[7].tolist()
    assert after.q_hat.tolist() != before.q_hat.tolist()
    assert after.cost_hat.tolist() != before.cost_hat.tolist()


def test_a_small_log_fits_nothing():
    """Below 200 rewards there is no model, and the error says so."""
    log = two_days(1, n=90)
    with pytest.raises(NotEnoughDataError, match="needs 200 rounds"):
        fit(log.feedback, DOMAIN)


def test_weighted_scores_of_equal_weights_are_the_scores():
    """The plain mean is a special case: same mean, same spread; a share of the rounds has that share's own."""
    scores = np.random.default_rng(0).random(50)
    everywhere = np.ones(50, dtype=bool)
    assert weighted(scores, share(everywhere)) == pytest.approx(scores)
    half = np.arange(50) < 25
    found, wanted = moments(weighted(scores, share(half))), moments(scores[half])
    assert found.mean == pytest.approx(wanted.mean)
    assert found.standard_error == pytest.approx(wanted.standard_error * math.sqrt(24 / 25 * 50 / 49))
