"""Off-policy evaluation: identities, enumeration, merge laws, known truth, coverage, and the report."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bandits.errors import EvidenceError
from bandits.evaluation import dm, dr, ips, sndr, snips, switch
from bandits.evaluation.moments import moments
from bandits.evaluation.weights import importance
from bandits.types import LoggedFeedback

QUICK = settings(max_examples=60, deadline=None)


def log(actions, probabilities, rewards, propensities=None):
    """A log of what the router did; propensities are the probabilities of the actions unless stated otherwise."""
    actions = np.asarray(actions, dtype=np.int64)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    n, k = probabilities.shape
    if propensities is None:
        propensities = probabilities[np.arange(n), actions]
    return LoggedFeedback(
        arms=tuple(f"arm-{a}" for a in range(k)),
        schema="none-1",
        ids=tuple(f"{i:032x}" for i in range(n)),
        times=np.arange(n, dtype=np.float64),
        contexts=np.zeros((n, 1), dtype=np.float32),
        actions=actions,
        propensities=propensities,
        probabilities=probabilities,
        rewards=np.asarray(rewards, dtype=np.float64),
        costs=np.full(n, np.nan),
    )


def rows_of_probabilities(rng, n, k):
    """Random distributions over k arms, none below 0.1 / k."""
    return rng.dirichlet(np.full(k, 2.0), size=n) * 0.9 + 0.1 / k


def drawn(rng, probabilities):
    """One action per row of probabilities."""
    below = probabilities.cumsum(axis=1) < rng.random((len(probabilities), 1))
    return np.minimum(below.sum(axis=1), probabilities.shape[1] - 1)


@st.composite
def cases(draw):
    """A log with rewards in [0, 1/2], a target policy and a reward model, of 1 to 12 rounds and 2 to 5 arms."""
    n, k = draw(st.integers(1, 12)), draw(st.integers(2, 5))
    unit = hnp.arrays(np.float64, (n, k), elements=st.floats(0.01, 1.0))
    logging, target = (p / p.sum(axis=1, keepdims=True) for p in (draw(unit), draw(unit)))
    actions = draw(hnp.arrays(np.int64, n, elements=st.integers(0, k - 1)))
    rewards = draw(hnp.arrays(np.float64, n, elements=st.floats(0.0, 0.5)))
    return log(actions, logging, rewards), target, draw(unit)


class TestIdentities:
    """Equalities that hold for every log, without chance."""

    @QUICK
    @given(cases())
    def test_dr_without_a_reward_model_is_ips(self, case):
        feedback, target, q_hat = case
        assert np.array_equal(dr.scores(feedback, target, 0 * q_hat), ips.scores(feedback, target))

    @QUICK
    @given(cases())
    def test_dr_with_a_model_that_foresees_every_reward_is_dm(self, case):
        feedback, target, q_hat = case
        q_hat[np.arange(len(feedback)), feedback.actions] = feedback.rewards
        assert np.array_equal(dr.scores(feedback, target, q_hat), dm.scores(feedback, target, q_hat))

    @QUICK
    @given(cases())
    def test_ips_and_snips_of_the_logging_policy_are_the_mean_reward(self, case):
        feedback, _, _ = case
        for estimator in (ips, snips):
            mean = moments(estimator.scores(feedback, feedback.probabilities)).mean
            assert mean == pytest.approx(feedback.rewards.mean(), abs=1e-12)

    @QUICK
    @given(cases())
    def test_mean_of_snips_scores_is_the_ratio(self, case):
        feedback, target, _ = case
        w = importance(feedback, target)
        ratio = (w * feedback.rewards).sum() / w.sum()
        assert moments(snips.scores(feedback, target)).mean == pytest.approx(ratio, abs=1e-12)

    @QUICK
    @given(cases())
    def test_spread_of_snips_scores_is_that_of_the_ratio(self, case):
        """The delta method's variance of a ratio, sum of w^2 (r - R)^2 over (sum w)^2, but for n / (n - 1)."""
        feedback, target, _ = case
        w, n = importance(feedback, target), len(feedback)
        ratio = (w * feedback.rewards).sum() / w.sum()
        textbook = (w**2 * (feedback.rewards - ratio) ** 2).sum() / w.sum() ** 2
        if n > 1:
            error = moments(snips.scores(feedback, target)).standard_error
            assert error**2 * (n - 1) / n == pytest.approx(textbook, rel=1e-9, abs=1e-14)

    @QUICK
    @given(cases(), st.floats(0.0, 0.5))
    def test_snips_moves_with_the_reward(self, case, shift):
        feedback, target, _ = case
        moved = log(feedback.actions, feedback.probabilities, feedback.rewards + shift)
        before, after = (moments(snips.scores(f, target)).mean for f in (feedback, moved))
        assert after == pytest.approx(before + shift, abs=1e-12)

    def test_ips_does_not_move_with_the_reward(self):
        feedback, moved = (log([0, 1], [[0.5, 0.5]] * 2, [r, r]) for r in (0.0, 0.5))
        target = np.array([[0.9, 0.1], [0.1, 0.9]])  # the log happened to draw what the target plays
        assert moments(ips.scores(feedback, target)).mean == 0.0
        assert moments(ips.scores(moved, target)).mean == pytest.approx(0.9)  # not 0.5

    @QUICK
    @given(cases(), st.randoms(use_true_random=False))
    def test_the_order_of_arms_changes_nothing(self, case, random):
        feedback, target, q_hat = case
        order = list(range(feedback.k))
        random.shuffle(order)
        place = np.argsort(order)
        other = log(place[feedback.actions], feedback.probabilities[:, order], feedback.rewards)
        for scores in (
            lambda f, p, q: ips.scores(f, p),
            lambda f, p, q: snips.scores(f, p),
            dm.scores,
            dr.scores,
            sndr.scores,
            lambda f, p, q: switch.scores(f, p, q, 1.5),
        ):
            there = scores(other, target[:, order], q_hat[:, order])
            assert there == pytest.approx(scores(feedback, target, q_hat), abs=1e-12)

    @QUICK
    @given(cases())
    def test_sndr_without_a_reward_model_is_snips(self, case):
        feedback, target, q_hat = case
        assert np.array_equal(sndr.scores(feedback, target, 0 * q_hat), snips.scores(feedback, target))

    @QUICK
    @given(cases())
    def test_mean_of_sndr_scores_is_dm_plus_the_ratio_of_residuals(self, case):
        feedback, target, q_hat = case
        w = importance(feedback, target)
        residuals = feedback.rewards - q_hat[np.arange(len(feedback)), feedback.actions]
        wanted = dm.scores(feedback, target, q_hat).mean() + (w * residuals).sum() / w.sum()
        assert moments(sndr.scores(feedback, target, q_hat)).mean == pytest.approx(wanted, abs=1e-12)

    @QUICK
    @given(cases())
    def test_sndr_of_equal_weights_is_dr(self, case):
        feedback, _, q_hat = case
        there, here = (one.scores(feedback, feedback.probabilities, q_hat) for one in (sndr, dr))
        assert there == pytest.approx(here, abs=1e-12)

    @QUICK
    @given(cases())
    def test_switch_goes_from_dm_to_dr(self, case):
        feedback, target, q_hat = case
        assert np.array_equal(switch.scores(feedback, target, q_hat, 0.0), dm.scores(feedback, target, q_hat))
        assert np.array_equal(switch.scores(feedback, target, q_hat, math.inf), dr.scores(feedback, target, q_hat))

    @QUICK
    @given(cases())
    def test_switch_uses_the_reward_where_the_weight_is_at_most_tau(self, case):
        feedback, target, q_hat = case
        w = importance(feedback, target)
        tau = float(np.median(w))
        expected = np.where(w <= tau, dr.scores(feedback, target, q_hat), dm.scores(feedback, target, q_hat))
        assert np.array_equal(switch.scores(feedback, target, q_hat, tau), expected)

    @QUICK
    @given(cases(), st.floats(0.0, 0.5))
    def test_sndr_moves_with_the_reward_whatever_the_model(self, case, shift):
        feedback, target, q_hat = case
        moved = log(feedback.actions, feedback.probabilities, feedback.rewards + shift)
        before, after = (moments(sndr.scores(f, target, q_hat)).mean for f in (feedback, moved))
        assert after == pytest.approx(before + shift, abs=1e-12)

    def test_dr_does_not_move_with_the_reward_unless_its_model_does(self):
        feedback, moved = (log([0, 1], [[0.5, 0.5]] * 2, [r, r]) for r in (0.0, 0.5))
        target, q_hat = np.array([[0.9, 0.1], [0.1, 0.9]]), np.full((2, 2), 0.2)
        before, after = (moments(dr.scores(f, target, q_hat)).mean for f in (feedback, moved))
        assert after - before == pytest.approx(0.9)  # not 0.5

    @QUICK
    @given(cases())
    def test_scores_are_those_of_a_loop_that_a_student_could_write(self, case):
        feedback, target, q_hat = case
        by_ips, by_dm, by_dr = [], [], []
        for i, a in enumerate(feedback.actions):
            w = target[i, a] / feedback.probabilities[i, a]
            model = sum(target[i, b] * q_hat[i, b] for b in range(feedback.k))
            by_ips.append(w * feedback.rewards[i])
            by_dm.append(model)
            by_dr.append(model + w * (feedback.rewards[i] - q_hat[i, a]))
        assert ips.scores(feedback, target) == pytest.approx(by_ips, abs=1e-12)
        assert dm.scores(feedback, target, q_hat) == pytest.approx(by_dm, abs=1e-12)
        assert dr.scores(feedback, target, q_hat) == pytest.approx(by_dr, abs=1e-12)


class TestEnumeration:
    """Expectations summed over every action, without seeds."""

    def one_round_per_action(self, rng, contexts=5, k=3):
        """Every context with every action; the reward is its own expectation, since scores are linear in it."""
        logging, target, q, q_hat = (np.repeat(rows_of_probabilities(rng, contexts, k), k, axis=0) for _ in range(4))
        actions = np.tile(np.arange(k), contexts)
        feedback = log(actions, logging, q[np.arange(len(q)), actions])
        truth = (target * q).sum() / (contexts * k)
        return feedback, target, q_hat, truth

    def test_ips_and_dr_expect_the_true_value_whatever_the_reward_model(self):
        feedback, target, q_hat, truth = self.one_round_per_action(np.random.default_rng(1))
        for scores in (ips.scores(feedback, target), dr.scores(feedback, target, q_hat)):
            expected = (feedback.propensities * scores).sum() / 5
            assert expected == pytest.approx(truth, abs=1e-12)

    def test_switch_below_every_weight_expects_its_model_and_above_them_the_truth(self):
        feedback, target, q_hat, truth = self.one_round_per_action(np.random.default_rng(1))
        expected = [
            (feedback.propensities * switch.scores(feedback, target, q_hat, tau)).sum() / 5 for tau in (1.0, 1e9)
        ]
        assert expected[1] == pytest.approx(truth, abs=1e-12)
        assert abs(expected[0] - truth) > 1e-3

    def test_dm_expects_its_model_and_not_the_truth(self):
        feedback, target, q_hat, truth = self.one_round_per_action(np.random.default_rng(1))
        expected = (feedback.propensities * dm.scores(feedback, target, q_hat)).sum() / 5
        assert abs(expected - truth) > 1e-3

    def test_difference_bound_is_what_the_worst_reward_and_model_attain(self):
        rng = np.random.default_rng(2)
        logging, one, other = (rows_of_probabilities(rng, 1, 3) for _ in range(3))
        worst = 0.0
        for action, reward, *q in itertools.product(range(3), (0.0, 1.0), *[(0.0, 1.0)] * 3):
            feedback, q_hat = log([action], logging, [reward]), np.array([q])
            apart = dr.scores(feedback, one, q_hat) - dr.scores(feedback, other, q_hat)
            worst = max(worst, abs(apart[0]))
        assert dr.difference_bound(feedback, one, other) == pytest.approx(worst, abs=1e-12)

    @QUICK
    @given(cases())
    def test_difference_bound_never_exceeds_one_over_the_least_propensity(self, case):
        feedback, target, other = case
        other = other / other.sum(axis=1, keepdims=True)
        bound = dr.difference_bound(feedback, target, other)
        assert 0.0 <= bound <= (1.0 + 1e-9) / feedback.probabilities.min()

    def test_difference_bound_of_a_policy_and_itself_is_zero(self):
        probs = np.array([[0.3, 0.7]])
        assert dr.difference_bound(log([0], [[0.5, 0.5]], [1.0]), probs, probs) == 0.0


class TestKnownTruth:
    """DR survives one wrong nuisance and not two (n = 4,000, fixed seed; wrong means biased, not noisy)."""

    def z(self, q_hat_power, propensity_power):
        """Standard errors between the DR estimate and the truth, with q^power and p^power in place of q and p."""
        rng = np.random.default_rng(7)
        n, k = 4000, 3
        x = rng.random(n)
        q = np.stack([0.2 + 0.6 * x, 0.8 - 0.5 * x, np.full(n, 0.5)], axis=1)
        logging = np.stack([0.6 - 0.4 * x, 0.1 + 0.4 * x, np.full(n, 0.3)], axis=1)
        target = np.where(np.arange(k) == q.argmax(axis=1)[:, None], 0.9, 0.05)
        actions = drawn(rng, logging)
        rewards = (rng.random(n) < q[np.arange(n), actions]).astype(float)
        propensities = logging[np.arange(n), actions] ** propensity_power
        feedback = log(actions, logging, rewards, propensities)
        m = moments(dr.scores(feedback, target, q**q_hat_power))
        return (m.mean - (target * q).sum(axis=1).mean()) / m.standard_error

    @pytest.mark.parametrize(("q_hat_power", "propensity_power"), [(1, 1), (3, 1), (1, 2)])
    def test_dr_finds_the_truth_when_either_nuisance_is_right(self, q_hat_power, propensity_power):
        assert abs(self.z(q_hat_power, propensity_power)) < 4

    def test_dr_misses_the_truth_when_both_are_wrong(self):
        assert abs(self.z(3, 2)) > 4


def ips_scores(seed, n=500):
    """IPS scores in [0, 5] with mean 0.6: an arm played by the target and by the log one time in five."""
    rng = np.random.default_rng(seed)
    played, reward = rng.random(n) < 0.2, rng.random(n) < 0.6
    return 5.0 * (played & reward)


def heavy(n=2000, p=1e-5, q=0.6):
    """In half of the rounds an arm that the target plays is all but never drawn; the reward model is good."""
    rng = np.random.default_rng(3)
    probabilities = np.tile([1.0 - p, p], (n, 1))
    probabilities[: n // 2] = 0.5  # half of the log is balanced
    actions = drawn(rng, probabilities)
    actions[-1] = 1  # and once the rare arm was drawn, with a weight of 10,000
    rewards = (rng.random(n) < q).astype(float)
    rewards[-1] = 1.0
    return log(actions, probabilities, rewards), np.tile([0.9, 0.1], (n, 1)), np.full((n, 2), q)


class TestSwitch:
    """Where it switches."""

    def test_one_huge_weight_is_given_up_and_small_ones_are_kept(self):
        feedback, target, q_hat = heavy()
        tau = switch.tune(feedback, target, q_hat)
        w = importance(feedback, target)
        assert w[:-1].max() < tau < w[-1]
        found, truth = moments(switch.scores(feedback, target, q_hat, tau)), 0.6
        assert abs(found.mean - truth) < abs(moments(dr.scores(feedback, target, q_hat)).mean - truth)
        assert found.standard_error < moments(dr.scores(feedback, target, q_hat)).standard_error

    def test_with_support_it_says_dr(self):
        rng = np.random.default_rng(4)
        logging, target = (rows_of_probabilities(rng, 500, 3) for _ in range(2))
        feedback = log(drawn(rng, logging), logging, rng.random(500))
        tau = switch.tune(feedback, target, np.full((500, 3), 0.5))
        assert tau >= importance(feedback, target).max()

    def test_tau_is_the_least_of_the_stated_sum(self):
        """Against every threshold in the list, by loops."""
        feedback, target, q_hat = heavy(n=200, p=0.01)
        n, w = 200, importance(feedback, target)
        every = target / feedback.probabilities

        def error(tau):
            spread = np.var(switch.scores(feedback, target, q_hat, tau), ddof=1) / n
            return spread + sum(target[i, a] for i in range(n) for a in range(2) if every[i, a] > tau) ** 2 / n**2

        tried = [2.0**i for i in range(math.ceil(math.log2(w.max())) + 1)] + [math.inf]
        assert switch.tune(feedback, target, q_hat) == min(tried, key=error)

    def test_a_single_round_is_no_ground_to_switch(self):
        with np.errstate(all="raise"):
            tau = switch.tune(log([0], [[0.5, 0.5]], [1.0]), np.array([[0.9, 0.1]]), np.full((1, 2), 0.5))
        assert tau == math.inf

    @pytest.mark.parametrize("tau", [-1.0, math.nan])
    def test_tau_must_be_a_threshold(self, tau):
        feedback = log([0], [[0.5, 0.5]], [1.0])
        with pytest.raises(EvidenceError, match="tau must be >= 0, but got"):
            switch.scores(feedback, np.full((1, 2), 0.5), np.full((1, 2), 0.5), tau)
