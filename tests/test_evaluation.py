"""Off-policy evaluation: identities, enumeration, merge laws, known truth, coverage, and the report."""

import itertools
import math
import statistics
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bandits.errors import EvidenceError, NotEnoughDataError, PropensityError, ShapeError
from bandits.evaluation import dm, dr, ips, sndr, snips, switch
from bandits.evaluation.intervals import betting, normal
from bandits.evaluation.moments import LARGEST, Moments, exact_sum, moments
from bandits.evaluation.report import evaluate, model_only, table
from bandits.evaluation.weights import importance, support
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


FINITE = st.floats(-1e100, 1e100)


class TestMoments:
    """Count, sum and squares, exact under every split and order."""

    @QUICK
    @given(st.lists(FINITE, max_size=30), st.integers(0, 30), st.randoms(use_true_random=False))
    def test_any_split_in_any_order_is_the_same_moments(self, values, cut, random):
        whole = moments(np.array(values, dtype=np.float64))
        random.shuffle(values)
        a, b = (moments(np.array(part, dtype=np.float64)) for part in (values[:cut], values[cut:]))
        assert a + b == whole
        assert b + a == whole
        assert whole + Moments() == whole

    @QUICK
    @given(st.lists(FINITE, max_size=20))
    def test_the_sum_is_exact(self, values):
        assert sum(map(Fraction, exact_sum(values)), Fraction()) == sum(map(Fraction, values), Fraction())

    @QUICK
    @given(st.lists(st.floats(-100, 100), min_size=2, max_size=20))
    def test_mean_and_variance_are_those_of_the_textbook(self, values):
        m = moments(np.array(values))
        assert m.mean == pytest.approx(statistics.fmean(values), abs=1e-12)
        assert m.variance == pytest.approx(statistics.variance(values), rel=1e-9, abs=1e-10)
        assert m.standard_error == pytest.approx(math.sqrt(m.variance / len(values)))

    def test_spread_of_fewer_than_two_scores_is_unknown(self):
        assert math.isnan(Moments().mean)
        assert Moments().standard_error == math.inf
        assert moments(np.array([0.3])).standard_error == math.inf
        assert normal(moments(np.array([0.3])), 0.05) == (-math.inf, math.inf)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e200])
    def test_scores_that_are_not_finite_are_refused(self, bad):
        with pytest.raises(EvidenceError, match=r"scores must be finite, but got .* at rows \[1\]"):
            moments(np.array([0.0, bad]))

    def test_scores_must_be_a_vector(self):
        with pytest.raises(ShapeError, match=r"must have shape \(n,\), but got \(2, 2\)"):
            moments(np.zeros((2, 2)))


class TestFastSums:
    """Sums by extraction are the exact ones, whatever the size and the number of what is added."""

    KINDS: ClassVar = {
        "ordinary": lambda rng, n: rng.normal(size=n),
        "of all sizes": lambda rng, n: rng.normal(size=n) * 10.0 ** rng.integers(-300, 150, n),
        "tenths": lambda rng, n: np.full(n, 0.1),
        "weights": lambda rng, n: (rng.random(n) < 0.05) * 20.0,
        "huge": lambda rng, n: (2.0 * rng.random(n) - 1.0) * LARGEST,
        "tiny": lambda rng, n: np.where(rng.random(n) < 0.5, 5e-324, -1.5e-323),
        "cancelling": lambda rng, n: np.tile([1e16, 1.0, -1e16, 1e-16], n)[:n],
    }

    @pytest.mark.parametrize("kind", KINDS)
    def test_they_are_those_of_fsum(self, kind):
        for n in (1, 2, 17, 2**15 + 1):
            x = self.KINDS[kind](np.random.default_rng(n), n)
            assert moments(x) == Moments(n, exact_sum(x.tolist()), exact_sum((x * x).tolist()))

    def test_a_plain_sum_is_not(self):
        """The negative control."""
        x = self.KINDS["cancelling"](None, 4000)
        assert (float(x.sum()),) != exact_sum(x.tolist())


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


class TestSwitch:
    """Where it switches."""

    def heavy(self, n=2000, p=1e-5, q=0.6):
        """In half of the rounds an arm that the target plays is all but never drawn; the reward model is good."""
        rng = np.random.default_rng(3)
        probabilities = np.tile([1.0 - p, p], (n, 1))
        probabilities[: n // 2] = 0.5  # half of the log is balanced
        actions = drawn(rng, probabilities)
        actions[-1] = 1  # and once the rare arm was drawn, with a weight of 10,000
        rewards = (rng.random(n) < q).astype(float)
        rewards[-1] = 1.0
        return log(actions, probabilities, rewards), np.tile([0.9, 0.1], (n, 1)), np.full((n, 2), q)

    def test_one_huge_weight_is_given_up_and_small_ones_are_kept(self):
        feedback, target, q_hat = self.heavy()
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
        feedback, target, q_hat = self.heavy(n=200, p=0.01)
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


class TestIntervals:
    """400 seeded logs; an exactly-95 % interval misses the truth in more than 39 of them less than once in 10,000."""

    LOOKS = range(20, 501, 20)
    MISSES = 39

    def test_normal_interval_covers_at_one_look(self):
        misses = sum(not low <= 0.6 <= high for low, high in (normal(moments(ips_scores(s)), 0.05) for s in range(400)))
        assert 5 <= misses <= self.MISSES

    def test_betting_interval_covers_at_every_look(self):
        """Five looks at each log, each of which knows of every round before; half of the logs with a horizon."""
        misses = 0
        for seed in range(400):
            scores, horizon = ips_scores(seed), 500 if seed % 2 else None
            looks = (betting(scores[:n], 0.05, low=0.0, high=5.0, horizon=horizon) for n in self.LOOKS[4::5])
            misses += any(not low <= 0.6 <= high for low, high in looks)
        assert misses <= self.MISSES

    def test_normal_interval_does_not_cover_at_every_look(self):
        """The negative control: an interval valid at every look misses in more than 16 of 100 once in 100,000."""
        misses = 0
        for seed in range(100):
            scores = ips_scores(seed)
            looks = (normal(moments(scores[:n]), 0.05) for n in self.LOOKS)
            misses += any(not low <= 0.6 <= high for low, high in looks)
        assert misses > 16

    def test_betting_interval_is_useful(self):
        """At its horizon it is less than twice as wide as the normal interval, which is valid for one look only."""
        scores = ips_scores(3)
        low, high = betting(scores, 0.05, low=0.0, high=5.0, horizon=500)
        once = normal(moments(scores), 0.05)
        assert high - low < 2.0 * (once.high - once.low)

    @pytest.mark.parametrize("horizon", [None, 40])
    def test_ends_are_those_of_a_loop_that_a_student_could_write(self, horizon):
        scores, alpha, step = ips_scores(5, n=40) / 5.0, 0.2, 1e-3
        kept = [m for m in np.arange(step, 1.0, step) if self.wealth(scores, m, alpha, horizon) < 1.0 / alpha]
        low, high = betting(scores, alpha, low=0.0, high=1.0, horizon=horizon)
        assert min(kept) == pytest.approx(low, abs=step)
        assert max(kept) == pytest.approx(high, abs=step)
        assert 2 * step < low < high < 1 - 2 * step

    def wealth(self, scores, m, alpha, horizon):
        """The most that either of two gamblers who share a capital of 1 ever had, round by round."""
        above = below = richest = 0.5
        total, squares, variance = 0.5, 0.25, 0.25
        for t, x in enumerate(scores, start=1):
            bet = math.sqrt(2.5 * math.log(2 / alpha) / (variance * (horizon or t * math.log(1 + t))))
            above *= 1 + min(bet, 0.75 / m) * (x - m)
            below *= 1 - min(bet, 0.75 / (1 - m)) * (x - m)
            richest = max(richest, above, below)
            total += x
            squares += (x - total / (t + 1)) ** 2
            variance = squares / (t + 1)
        return richest

    def test_without_scores_everything_is_possible(self):
        assert betting(np.zeros(0), 0.05, low=-2.0, high=3.0) == (-2.0, 3.0)

    def test_smaller_alpha_gives_a_wider_interval(self):
        wide, narrow = (betting(ips_scores(1), alpha, low=0.0, high=5.0) for alpha in (0.01, 0.2))
        assert wide.low < narrow.low < narrow.high < wide.high

    def test_a_score_out_of_range_is_refused_not_clipped(self):
        with pytest.raises(EvidenceError, match=r"must lie in \[0, 1\], but got 1\.5 at rows \[1\]"):
            betting(np.array([0.5, 1.5]), 0.05, low=0.0, high=1.0)

    @pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (0.0, math.inf), (math.nan, 1.0)])
    def test_a_range_must_be_finite_and_in_order(self, low, high):
        with pytest.raises(EvidenceError, match="range must be finite"):
            betting(np.array([0.5]), 0.05, low=low, high=high)

    @pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
    def test_alpha_must_be_an_error_rate(self, alpha):
        with pytest.raises(EvidenceError, match="alpha must be in"):
            betting(np.array([0.5]), alpha, low=0.0, high=1.0)
        with pytest.raises(EvidenceError, match="alpha must be in"):
            normal(Moments(), alpha)


class TestSupport:
    """Overlap of the log and the target."""

    def uniform(self, n=600, k=3):
        return log(np.arange(n) % k, np.full((n, k), 1 / k), np.full(n, 0.5))

    def test_the_logging_policy_has_all_rounds(self):
        feedback = self.uniform()
        found = support(feedback, feedback.probabilities)
        assert (found.n, found.verdict) == (600, "ok")
        assert found.ess == pytest.approx(600)
        assert found.ess_least_arm == pytest.approx(200)
        assert (found.max_weight, found.mean_weight) == (pytest.approx(1), pytest.approx(1))
        assert found.unsupported == 0.0

    def test_a_target_of_one_arm_has_that_arms_rounds(self):
        found = support(self.uniform(), np.tile([1.0, 0.0, 0.0], (600, 1)))
        assert found.ess == found.ess_least_arm == pytest.approx(200)
        assert (found.least_share, found.max_weight) == (1.0, pytest.approx(3))

    @QUICK
    @given(cases())
    def test_effective_size_lies_between_one_and_n(self, case):
        feedback, target, _ = case
        found = support(feedback, target)
        assert 1 - 1e-9 <= found.ess <= found.n + 1e-9

    def test_fewer_than_200_effective_rounds_are_not_enough(self):
        feedback = self.uniform(n=198)
        assert support(feedback, feedback.probabilities).verdict == "not enough data"

    def test_an_arm_played_half_the_time_needs_100_effective_rounds_of_its_own(self):
        """1,000 effective rounds in all do not make up for an arm that was tried 99 times."""
        for tried, verdict in ((99, "not enough data"), (101, "ok")):
            actions = (np.arange(1000) < tried).astype(int)
            feedback = log(actions, np.full((1000, 2), 0.5), np.full(1000, 0.5))
            found = support(feedback, np.full((1000, 2), 0.5))
            assert found.ess == pytest.approx(1000)
            assert found.ess_least_arm == pytest.approx(tried)
            assert found.evidence == pytest.approx(2 * tried)
            assert found.verdict == verdict

    def test_enough_for_each_arm_is_not_enough_if_the_whole_is_not(self):
        """An unlucky draw: both arms have their 100 rounds, but those of the rare one carry nearly all the weight."""
        actions = (np.arange(201) < 101).astype(int)
        found = support(log(actions, np.tile([0.9, 0.1], (201, 1)), np.full(201, 0.5)), np.full((201, 2), 0.5))
        assert found.ess_least_arm == pytest.approx(100)
        assert found.ess == pytest.approx(123, abs=1)
        assert found.verdict == "not enough data"

    def test_an_arm_played_less_than_once_in_200_is_not_asked_for_rounds(self):
        feedback = log(np.zeros(1000), np.tile([0.996, 0.004], (1000, 1)), np.full(1000, 0.5))
        assert support(feedback, feedback.probabilities).verdict == "ok"

    def test_mass_on_arms_that_could_not_be_drawn_is_no_support(self):
        """Arm 2 could be drawn in half of the rounds; plenty of rounds there do not speak for the other half."""
        probabilities = np.repeat([[1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]], 600, axis=0)
        actions = np.concatenate((np.arange(600) % 3, np.arange(600) % 2))
        found = support(log(actions, probabilities, np.full(1200, 0.5)), np.tile([0.5, 0.4, 0.1], (1200, 1)))
        assert found.unsupported == pytest.approx(0.05)
        assert min(found.ess, found.ess_least_arm / found.least_share) > 200
        assert (found.evidence, found.verdict) == (0.0, "no support")

    def test_overlap_is_the_mass_in_common(self):
        feedback = self.uniform()
        assert support(feedback, feedback.probabilities).overlap == pytest.approx(1.0)
        assert support(feedback, np.tile([1.0, 0.0, 0.0], (600, 1))).overlap == pytest.approx(1 / 3)
        assert support(feedback, np.tile([0.5, 0.3, 0.2], (600, 1))).overlap == pytest.approx(1 / 3 + 0.3 + 0.2)

    def test_weights_that_do_not_average_to_1_betray_wrong_propensities(self):
        """The log states one in two for an arm that it drew four times in five; no reward is needed to see it."""
        rng = np.random.default_rng(8)
        actions = (rng.random(2000) < 0.2).astype(int)
        target = np.tile([0.9, 0.1], (2000, 1))
        wrong = support(log(actions, np.full((2000, 2), 0.5), np.zeros(2000)), target)
        right = support(log(actions, np.tile([0.8, 0.2], (2000, 1)), np.zeros(2000)), target)
        assert (wrong.verdict, wrong.evidence) == ("wrong propensities", 0.0)
        assert right.verdict == "ok"

    def test_right_propensities_are_not_suspected(self):
        """60 logs whose weights are 0 or 100."""
        suspected = 0
        for seed in range(60):
            rng = np.random.default_rng(seed)
            actions = (rng.random(30_000) < 0.01).astype(int)
            feedback = log(actions, np.tile([0.99, 0.01], (30_000, 1)), np.zeros(30_000))
            suspected += support(feedback, np.tile([0.0, 1.0], (30_000, 1))).verdict == "wrong propensities"
        assert suspected == 0

    def test_one_arm_and_one_round_are_judged_as_what_they_are(self):
        """One arm that is always played is known; one round is not enough; nothing divides by zero."""
        always = log(np.zeros(300), np.ones((300, 1)), np.full(300, 0.5))
        assert support(always, np.ones((300, 1))).verdict == "ok"
        once = support(log([0], [[0.5, 0.5]], [1.0]), np.array([[0.5, 0.5]]))
        assert (once.n, once.weight_error, once.verdict) == (1, math.inf, "not enough data")

    def test_a_weight_of_a_million_is_not_enough_data(self):
        probabilities = np.tile([1.0 - 1e-6, 1e-6], (1000, 1))
        actions = np.zeros(1000, dtype=int)
        actions[7] = 1
        found = support(log(actions, probabilities, np.ones(1000)), np.tile([0.0, 1.0], (1000, 1)))
        assert found.max_weight == pytest.approx(1e6)
        assert (found.ess, found.verdict) == (pytest.approx(1.0), "not enough data")

    def test_an_empty_log_is_not_enough_data(self):
        found = support(log([], np.zeros((0, 2)), []), np.zeros((0, 2)))
        assert (found.n, found.ess, found.verdict) == (0, 0.0, "not enough data")


class TestReport:
    """Rows and their rendering."""

    def feedback(self, n=900):
        rng = np.random.default_rng(11)
        probabilities = np.tile([0.5, 0.3, 0.2], (n, 1))
        actions = drawn(rng, probabilities)
        rewards = (rng.random(n) < np.array([0.3, 0.5, 0.7])[actions]).astype(float)
        return log(actions, probabilities, rewards)

    def test_each_policy_has_a_row_by_each_estimator_with_interval_and_support(self):
        feedback = self.feedback()
        policies = {"serving": feedback.probabilities, "third": np.tile([0.1, 0.1, 0.8], (900, 1))}
        rows = evaluate(feedback, policies, np.full((900, 3), 0.5))
        assert [(r.policy, r.estimator) for r in rows] == [
            (p, e) for p in ("serving", "third") for e in ("dr", "sndr", "switch", "snips", "dm", "ips")
        ]
        assert all(r.low <= r.value <= r.high and r.n == 900 and r.ess > 0 for r in rows)
        assert {r.verdict for r in rows[:6]} == {"ok"}
        assert {r.verdict for r in rows[6:]} == {support(feedback, policies["third"]).verdict}
        third = rows[6]
        assert third.low < 0.1 * 0.3 + 0.1 * 0.5 + 0.8 * 0.7 < third.high

    def test_a_policy_that_the_log_never_followed_gets_a_verdict_and_no_figure_by_snips(self):
        feedback = log(np.zeros(300), np.tile([1.0, 0.0], (300, 1)), np.ones(300))
        rows = evaluate(feedback, {"other": np.tile([0.0, 1.0], (300, 1))}, np.full((300, 2), 0.5))
        assert {r.verdict for r in rows} == {"no support"}
        by_snips = next(r for r in rows if r.estimator == "snips")
        assert math.isnan(by_snips.value)
        assert "no support 100.0%" in table(rows)
        assert table(rows).count("cannot say") == 6  # not even by dm: nothing in the log could show it wrong

    def test_an_empty_log_gives_rows_that_say_so(self):
        feedback = log([], np.zeros((0, 2)), [])
        rows = evaluate(feedback, {"any": np.zeros((0, 2))}, np.zeros((0, 2)))
        assert {r.verdict for r in rows} == {"not enough data"}
        assert "0 rounds." in table(rows)

    def test_table_is_markdown_that_fits_100_columns(self):
        feedback = self.feedback()
        policies = {"a policy | with a name far too long to stand in any table": feedback.probabilities, "mix": None}
        policies["mix"] = np.tile([0.0, 0.0, 1.0], (900, 1))
        lines = table(evaluate(feedback, policies, np.full((900, 3), 0.5))).splitlines()
        body = lines[: lines.index("")]
        assert len(body) == 2 + 12
        assert max(map(len, lines)) <= 100
        assert {line.count("|") for line in body} == {9}
        assert len({len(line) for line in body}) == 1
        assert lines[-1] == "900 rounds."

    def test_switch_says_which_share_of_rounds_it_does_not_use(self):
        feedback, target, q_hat = TestSwitch().heavy()
        clipped = {row.estimator: row.clipped for row in evaluate(feedback, {"p": target}, q_hat)}
        assert clipped.pop("switch") == pytest.approx(1 / 2000)
        assert set(clipped.values()) == {0.0}

    def test_without_propensities_only_the_model_speaks_and_it_is_flagged(self):
        q_hat = np.tile([0.2, 0.6], (400, 1))
        (row,) = model_only({"p": np.tile([0.5, 0.5], (400, 1))}, q_hat)
        assert (row.estimator, row.value, row.n) == ("dm", pytest.approx(0.4), 400)
        assert (row.verdict, row.ess) == ("no propensities", 0.0)
        assert "cannot say" in table([row])
        with pytest.raises(ShapeError, match=r"action_probs must have shape \(n=400, k=2\)"):
            model_only({"p": np.ones((400, 1))}, q_hat)
        with pytest.raises(EvidenceError, match="q_hat must be finite"):
            model_only({"p": np.tile([0.5, 0.5], (400, 1))}, q_hat * math.nan)

    def test_table_of_nothing_is_a_header(self):
        assert table([]).startswith("| policy |")


class TestBadInput:
    """What does not fit is refused with what must hold, what arrived, and where."""

    feedback = log([0, 1], [[0.5, 0.5], [0.5, 0.5]], [0.0, 1.0])
    good = np.full((2, 2), 0.5)

    def test_shapes_must_match_the_log(self):
        for scores in (ips.scores, snips.scores):
            with pytest.raises(ShapeError, match=r"action_probs must have shape \(n=2, k=2\).* got \(2, 3\)"):
                scores(self.feedback, np.full((2, 3), 1 / 3))
        for scores in (dm.scores, dr.scores):
            with pytest.raises(ShapeError, match=r"action_probs must have shape"):
                scores(self.feedback, np.full((3, 2), 0.5), self.good)
            with pytest.raises(ShapeError, match=r"q_hat must have shape \(n=2, k=2\).* got \(2,\)"):
                scores(self.feedback, self.good, np.zeros(2))

    @pytest.mark.parametrize("row", [[0.5, 0.4], [1.5, -0.5], [math.nan, 0.5]])
    def test_a_target_must_be_a_distribution(self, row):
        with pytest.raises(PropensityError, match=r"action_probs must be >= 0 and sum to 1 .* at rows \[1\]"):
            ips.scores(self.feedback, np.array([[0.5, 0.5], row]))

    def test_a_reward_model_must_be_finite(self):
        with pytest.raises(EvidenceError, match=r"q_hat must be finite, but got .* at rows \[0\]"):
            dr.scores(self.feedback, self.good, np.array([[math.nan, 0.0], [0.0, 0.0]]))

    @pytest.mark.parametrize("propensity", [0.0, -0.1, math.nan])
    def test_a_log_without_propensities_is_refused(self, propensity):
        with pytest.raises(PropensityError, match=r"propensity must be > 0, but got .* at rows \[1\]"):
            log([0, 1], np.full((2, 2), 0.5), [0.0, 1.0], np.array([0.5, propensity]))

    @pytest.mark.parametrize("reward", [math.nan, -0.1, 1.1, math.inf])
    def test_a_reward_out_of_range_is_refused(self, reward):
        with pytest.raises(ShapeError, match=r"reward must be in \[0, 1\], but got .* at rows \[1\]"):
            log([0, 1], np.full((2, 2), 0.5), [0.0, reward])

    def test_snips_without_any_overlap_says_that_the_log_is_too_small(self):
        with pytest.raises(NotEnoughDataError, match="none of 2 is"):
            snips.scores(self.feedback, np.array([[0.0, 1.0], [1.0, 0.0]]))
