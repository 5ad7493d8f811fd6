"""Off-policy evaluation: identities, enumeration, merge laws, known truth, coverage, and the report."""

import itertools
import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bandits.errors import EvidenceError, NotEnoughDataError, PropensityError, ShapeError
from bandits.evaluation import dm, dr, ips, snips
from bandits.evaluation.intervals import betting, normal
from bandits.evaluation.moments import Moments, exact_sum, moments
from bandits.evaluation.report import evaluate, table
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
        ):
            there = scores(other, target[:, order], q_hat[:, order])
            assert there == pytest.approx(scores(feedback, target, q_hat), abs=1e-12)

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


class TestIntervals:
    """400 seeded logs; an exactly-95 % interval misses the truth in more than 39 of them less than once in 10,000."""

    LOOKS = range(20, 501, 20)
    MISSES = 39

    def test_normal_interval_covers_at_one_look(self):
        misses = sum(not low <= 0.6 <= high for low, high in (normal(moments(ips_scores(s)), 0.05) for s in range(400)))
        assert 5 <= misses <= self.MISSES

    def test_betting_interval_covers_at_every_look(self):
        """Twenty-five looks at each log; half of them with a horizon."""
        misses = 0
        for seed in range(400):
            scores, horizon = ips_scores(seed), 500 if seed % 2 else None
            looks = (betting(scores[:n], 0.05, low=0.0, high=5.0, horizon=horizon) for n in self.LOOKS)
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

    def test_snips_without_any_overlap_says_that_the_log_is_too_small(self):
        with pytest.raises(NotEnoughDataError, match="none of 2 is"):
            snips.scores(self.feedback, np.array([[0.0, 1.0], [1.0, 0.0]]))
