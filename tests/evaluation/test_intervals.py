"""Confidence sequences and the bootstrap: what they hold at every look, how they narrow, what they refuse."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from bandits.errors import EvidenceError
from bandits.evaluation import dr, ips, sequences
from bandits.evaluation.intervals import betting, bootstrap, lower_bound
from bandits.evaluation.moments import moments
from benchmarks import intervals as benchmark

RNG = np.random.default_rng
KINDS = {"ipw", "dr", "paired"}


def one_log(seed=0, n=400, floor=0.1):
    """A log of the benchmark, a target for it, another target, and a constant reward model."""
    log = benchmark.log(n, floor, "stationary", RNG(seed))
    kinds = log.contexts[:, 0].astype(int)
    targets = benchmark.targets()
    return log, targets["best"][kinds], targets["uniform"][kinds], np.full((n, benchmark.ARMS), 0.5)


class TestLowerBound:
    """One side."""

    def test_what_was_ruled_out_stays_ruled_out(self):
        """The mean drops halfway; the bound never does. Without a memory it would."""
        x = np.concatenate((np.ones(200), np.zeros(200)))
        bounds = [lower_bound(x[:n], 0.05, low=0.0, high=1.0, horizon=400) for n in range(0, 401, 20)]
        assert bounds == sorted(bounds)
        assert bounds[-1] > 0.9 > x.mean()

    @pytest.mark.parametrize("horizon", [None, 300])
    def test_the_interval_at_n_lies_within_that_of_every_n_before(self, horizon):
        x = RNG(1).random(300)
        looks = [betting(x[:n], 0.05, low=0.0, high=1.0, horizon=horizon) for n in range(0, 301, 15)]
        for before, after in itertools.pairwise(looks):
            assert before.low <= after.low < after.high <= before.high

    def test_two_sides_share_the_error(self):
        x = RNG(2).random(100)
        low, high = betting(x, 0.1, low=0.0, high=1.0)
        assert low == lower_bound(x, 0.05, low=0.0, high=1.0)
        assert high == -lower_bound(-x, 0.05, low=-1.0, high=0.0)

    def test_units_do_not_matter(self):
        x = RNG(3).random(100)
        there = lower_bound(100.0 * x - 30.0, 0.05, low=-30.0, high=70.0)
        assert there == pytest.approx(100.0 * lower_bound(x, 0.05, low=0.0, high=1.0) - 30.0, abs=1e-5)

    def test_a_mean_that_moves_leaves_a_gap_and_no_claim(self):
        """Both gamblers get rich against the same mean, one after the other: the interval says so by its ends."""
        x = np.concatenate((np.ones(300), np.zeros(3000)))
        up, down = (lower_bound(s, 0.025, low=-1.0, high=1.0) for s in (x, -x))
        assert up > -down
        assert betting(x, 0.05, low=-1.0, high=1.0) == (-down, up)


class TestBootstrap:
    """Percentiles of resampled means."""

    def test_it_is_scipy_s(self):
        """Same resamples' law: ends agree within the noise of 4,000 resamples."""
        scores = RNG(0).exponential(size=200)
        theirs = scipy.stats.bootstrap(
            (scores,), np.mean, n_resamples=4000, method="percentile", rng=RNG(1)
        ).confidence_interval
        low, high = bootstrap(scores, 0.05, RNG(2), resamples=4000)
        assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.15 * (high - low) / 2)

    def test_the_same_seed_gives_the_same_interval(self):
        scores = RNG(0).random(50)
        assert bootstrap(scores, 0.05, RNG(1)) == bootstrap(scores, 0.05, RNG(1))
        assert bootstrap(scores, 0.05, RNG(1)) != bootstrap(scores, 0.05, RNG(2))

    def test_it_covers_at_one_look(self):
        """200 seeded logs of 150 skewed scores; nominal 90 %: more than 40 misses has probability below 1e-5."""
        misses = 0
        for seed in range(200):
            low, high = bootstrap(RNG(seed).exponential(size=150), 0.1, RNG(seed), resamples=200)
            misses += not low <= 1.0 <= high
        assert 5 <= misses <= 40

    def test_one_round_says_nothing(self):
        assert bootstrap(np.array([0.3]), 0.05, RNG(0)) == (-math.inf, math.inf)

    def test_bad_input_is_refused(self):
        with pytest.raises(EvidenceError, match="resamples must be 1 or more, but got 0"):
            bootstrap(np.zeros(3), 0.05, RNG(0), resamples=0)
        with pytest.raises(EvidenceError, match="scores must be finite"):
            bootstrap(np.array([0.0, math.nan]), 0.05, RNG(0))


class TestSequences:
    """Of a policy's value, and of a paired difference."""

    def test_ranges_are_what_the_worst_reward_and_model_attain(self):
        log, target, _, _ = one_log(n=3)
        least, most = math.inf, -math.inf
        for reward in (0.0, 1.0):
            for drawn in range(benchmark.ARMS):
                for q_drawn, q_others in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)):
                    actions = np.full(3, drawn)
                    p = log.probabilities[:, drawn].copy()
                    other = replace(log, actions=actions, propensities=p, rewards=np.full(3, reward))
                    q_hat = np.full(target.shape, q_others)
                    q_hat[:, drawn] = q_drawn
                    scores = dr.scores(other, target, q_hat)
                    least, most = min(least, scores.min()), max(most, scores.max())
        assert dr.score_range(log, target) == pytest.approx((least, most))
        assert ips.score_range(log, target) == pytest.approx((0.0, 1.0 / 0.1))

    def test_two_equal_policies_have_no_difference_and_equal_logs_no_order(self):
        log, target, _, q_hat = one_log()
        assert sequences.advantage(log, target, target, q_hat, 0.05) == (0.0, 0.0)

    def test_the_advantage_of_one_is_the_other_s_disadvantage(self):
        log, target, other, q_hat = one_log()
        there = sequences.advantage(log, target, other, q_hat, 0.05)
        back = sequences.advantage(log, other, target, q_hat, 0.05)
        assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-7)

    def test_a_paired_difference_is_known_better_than_from_two_values(self):
        log, target, other, q_hat = one_log(n=2000)
        first, second = (sequences.value(log, p, q_hat, 0.05, horizon=2000) for p in (target, other))
        paired = sequences.advantage(log, target, other, q_hat, 0.05, horizon=2000)
        assert paired.high - paired.low < 0.8 * (first.high - second.low - (first.low - second.high))

    def test_values_stay_in_range_and_nothing_is_known_of_an_empty_log(self):
        log, target, other, q_hat = one_log(n=3)
        for found in (sequences.value(log, target, None, 0.05), sequences.value(log, target, q_hat, 0.05)):
            assert 0.0 <= found.low < found.high <= 1.0
        none = np.zeros(3, dtype=bool)
        empty = log.where(none)
        assert sequences.value(empty, target[none], None, 0.05) == (0.0, 1.0)
        assert sequences.value(empty, target[none], q_hat[none], 0.05) == (0.0, 1.0)
        assert sequences.advantage(empty, target[none], other[none], q_hat[none], 0.05) == (-1.0, 1.0)

    def test_a_policy_that_the_log_could_not_follow_may_be_worth_anything(self):
        log, _, _, _ = one_log(n=50)
        other = replace(
            log, actions=np.zeros(50, int), propensities=np.ones(50), probabilities=np.eye(5)[np.zeros(50, int)]
        )
        assert sequences.value(other, np.eye(5)[np.ones(50, int)], None, 0.05) == (0.0, 1.0)

    def test_rewards_and_losses_tell_of_rare_and_of_common_rewards_alike(self):
        """Turning every reward around turns the interval around."""
        log, target, _, _ = one_log()
        found = sequences.value(log, target, None, 0.05)
        turned = sequences.value(replace(log, rewards=1.0 - log.rewards), target, None, 0.05)
        assert turned == pytest.approx((1.0 - found.high, 1.0 - found.low), abs=1e-9)

    def test_a_sequence_is_that_of_its_scores_within_their_range_to_its_horizon(self):
        """By hand: doubly robust, paired, and weighted rewards and losses at half of alpha each."""
        log, target, other, q_hat = one_log()
        for horizon in (None, 1000):
            low, high = dr.score_range(log, target)
            by_dr = betting(dr.scores(log, target, q_hat), 0.05, low=low, high=high, horizon=horizon)
            assert sequences.value(log, target, q_hat, 0.05, horizon=horizon) == by_dr
            bound = dr.difference_bound(log, target, other)
            x = dr.scores(log, target, q_hat) - dr.scores(log, other, q_hat)
            paired = betting(x, 0.05, low=-bound, high=bound, horizon=horizon)
            assert sequences.advantage(log, target, other, q_hat, 0.05, horizon=horizon) == paired
            losses = replace(log, rewards=1.0 - log.rewards)
            won, lost = (
                betting(ips.scores(x, target), 0.025, low=0.0, high=10.0, horizon=horizon) for x in (log, losses)
            )
            both = max(won.low, 1.0 - lost.high), min(won.high, 1.0 - lost.low)
            assert sequences.value(log, target, None, 0.05, horizon=horizon) == pytest.approx(both, abs=1e-12)

    def test_rounds_of_the_same_moment_or_a_moment_apart_are_in_order(self):
        log, target, _, q_hat = one_log(n=3)
        for times in ([1.0, 1.0, 1.0], [0.0, 0.25, 0.5]):
            sequences.value(replace(log, times=np.array(times)), target, q_hat, 0.05)

    def test_rounds_out_of_order_are_refused(self):
        log, target, _, q_hat = one_log(n=3)
        swapped = replace(log, times=np.array([0.0, 2.0, 1.0]))
        with pytest.raises(
            EvidenceError, match=r"rounds must be in order of time, but 2\.0 is followed by 1\.0 at row 2"
        ):
            sequences.value(swapped, target, q_hat, 0.05)

    @pytest.mark.parametrize("wrong", [1.5, -0.5])
    def test_a_reward_model_out_of_range_is_refused(self, wrong):
        log, target, other, q_hat = one_log(n=3)
        with pytest.raises(EvidenceError, match=rf"q_hat must lie in \[0, 1\].* goes from {wrong} to {wrong}; clip it"):
            sequences.advantage(log, target, other, np.full_like(q_hat, wrong), 0.05)
        with pytest.raises(EvidenceError, match=r"^q_hat must lie in \[0, 1\]"):
            sequences.value(log, target, np.full_like(q_hat, wrong), 0.05)


class TestBenchmark:
    """The measuring itself."""

    def test_the_truth_is_what_the_target_earns(self):
        """Scores of every target, under each way of logging, average to the stated truth within 4 standard errors."""
        for logging in benchmark.LOGGING:
            log = benchmark.log(8000, 0.1, logging, RNG(4))
            kinds = log.contexts[:, 0].astype(int)
            for probs in benchmark.targets().values():
                m = moments(ips.scores(log, probs[kinds]))
                truth = (probs * benchmark.EXPECTED).sum() / 2.0
                assert abs(m.mean - truth) < 4.0 * m.standard_error
                assert abs(m.mean - truth - 0.3) > 4.0 * m.standard_error  # the negative control

    def test_logging_does_what_it_says(self):
        preferred = {
            name: benchmark.log(500, 0.05, name, RNG(5)).probabilities.argmax(axis=1) for name in benchmark.LOGGING
        }
        assert set(preferred["stationary"]) == {0}
        assert preferred["drifting"].tolist() == sorted(preferred["drifting"])
        assert set(preferred["drifting"]) == set(range(5))
        assert np.flatnonzero(np.diff(preferred["adaptive"])).size > 0
        luckier = benchmark.log(500, 0.05, "adaptive", RNG(6)).probabilities.argmax(axis=1)
        assert (luckier != preferred["adaptive"]).any()

    def test_a_short_run_meets_its_bars(self):
        """40 logs of the hardest design: no sequence misses too often, the normal interval does, widths are met."""
        rows = benchmark.measure(0.05, "stationary", 40, 2000, [0, 1, 2])
        allowance = 0.05 + 2.0 * math.sqrt(0.05 * 0.95 / 40)
        by = {(row["design"], row["estimator"]): row for row in rows}
        assert {estimator for _, estimator in by} == KINDS
        assert np.mean([row["miss"] for row in rows]) <= allowance
        assert by["one 0.05 stationary", "ipw"]["width"] <= 0.38
        assert by["one 0.05 stationary", "dr"]["width"] <= 0.33
        assert by["one 0.05 stationary", "ipw"]["control_miss"] > allowance

    def test_a_sequence_that_errs_more_often_is_found_out(self):
        """The negative control: sequences made at alpha = .6 and judged as if at .05."""
        truth, misses = float((benchmark.targets()["best"] * benchmark.EXPECTED).sum() / 2.0), 0
        for seed in range(60):
            log, target, _, q_hat = one_log(seed, n=300)
            low, high = sequences.value(log, target, q_hat, 0.6, horizon=300)
            misses += not low <= truth <= high
        assert misses / 60 > 0.05 + 2.0 * math.sqrt(0.05 * 0.95 / 60)

    def test_a_tiny_run_prints_rows_and_a_summary(self, capsys):
        benchmark.main(["--reps", "2", "--n", "40"])
        *rows, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(rows) == 5 * 3 * 3 * 3
        assert all({"design", "estimator", "miss", "width"} <= row.keys() for row in rows)
        assert {"alpha", "reps", "miss_max", "width_ipw_05", "width_dr_05", "width_dr_10", "met"} <= summary.keys()
        assert summary["met"] in (True, False)

    @pytest.mark.parametrize("options", [["--reps", "1"], ["--n", "5"], ["--seed", "-1"], ["--reps", "many"]])
    def test_bad_options_end_with_a_usage_error(self, options, capsys):
        with pytest.raises(SystemExit) as caught:
            benchmark.main(options)
        assert caught.value.code == 2
        assert "usage:" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("change", "bar"),
        [
            ({}, None),
            ({"miss": 0.2}, "miss_max"),
            ({"ipw": 0.39}, "width_ipw_05"),
            ({"dr": 0.24}, "width_dr_10"),
            ({"dr": 0.34}, "width_dr_05"),
            ({"control_miss": 0.05}, "control"),
        ],
    )
    def test_each_bar_is_missed_alone(self, change, bar):
        figures = {"miss": 0.03, "ipw": 0.3, "dr": 0.2, "paired": 0.2, "control_miss": 0.5, "power": 0.8} | change
        rows = [
            {
                "design": f"one {floor:g} stationary",
                "estimator": name,
                "miss": figures["miss"],
                "width": figures[name],
                "control_miss": figures["control_miss"],
            }
            for floor in benchmark.FLOORS
            for name in benchmark.ESTIMATORS
        ]
        if bar == "width_dr_05":
            rows[-2]["width"] = 0.2
        found = benchmark.verdict(rows, 1000, figures["power"])
        assert [name for name, met in found["bars"].items() if not met] == ([bar] if bar else [])
        assert found["met"] is (bar is None)

    @pytest.mark.slow
    @pytest.mark.timeout(7200)
    def test_the_whole_meets_its_bars(self, capsys):
        benchmark.main(["--reps", "1000"])
        summary = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert summary["miss_mean"] <= summary["alpha"]
        assert all(met for bar, met in summary["bars"].items() if bar != "miss_max")
        assert len(summary["over"]) <= 4  # of 135 designs, each of which exceeds its allowance with probability 2 %
