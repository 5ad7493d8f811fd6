"""What may be said of an estimate: its interval, its support, the table, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given, settings

from bandits.errors import EvidenceError, NotEnoughDataError, PropensityError, ShapeError
from bandits.evaluation import dm, dr, ips, snips
from bandits.evaluation.intervals import betting, normal
from bandits.evaluation.moments import Moments, moments
from bandits.evaluation.report import evaluate, model_only, table
from bandits.evaluation.weights import support
from tests.evaluation.test_evaluation import cases, drawn, heavy, ips_scores, log

QUICK = settings(max_examples=60, deadline=None)


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
        feedback, target, q_hat = heavy()
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
