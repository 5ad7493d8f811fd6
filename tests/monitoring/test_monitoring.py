"""Drops and trends: what is noticed, what is not, and how often an alarm is false."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress

from bandits.errors import EvidenceError, ShapeError
from bandits.monitoring.ecusum import SHARES, Drop, DropOptions, average, fresh, grow
from bandits.monitoring.trend import DAY, trend

RNG = np.random.default_rng
WARM = [1.0, 0.0] * 150  # 300 values of mean .5: the detector begins to watch


def alarms(detector, values):
    """Where it cried."""
    return [i for i, value in enumerate(values) if detector.see(float(value))]


class TestStatistic:
    """Wealth of gamblers who bet that the mean has dropped."""

    def test_a_bet_is_fair_at_the_usual_and_loses_above_by_enumeration(self):
        """Mean of wealth over a value of 0 or 1 at chance m: 1 when m is usual, below 1 above it, more below it."""
        for usual in (0.3, 0.78):
            for chance, verdict in ((usual, 0), (usual + 0.1, -1), (usual - 0.1, 1)):
                after = [grow(fresh(SHARES), (x - usual) / (1 - usual), SHARES) for x in (0.0, 1.0)]
                means = (1 - chance) * np.array(after[0]) + chance * np.array(after[1]) - 1
                assert (np.sign(np.round(means, 12)) == verdict).all()

    def test_wealth_begins_anew_at_one_and_is_never_negative(self):
        assert grow([0.3, 5.0], 0.0, (0.15, 0.25)) == [1.0, 5.0]
        assert min(grow([1.0, 1.0], 1.0, SHARES)) > 0.0
        assert average([1.0, 4.0]) == 2.5

    def test_the_mean_time_to_a_false_alarm_is_at_least_the_run_length(self):
        """Runs of the statistic itself, usual known, threshold 30; a share told a usual .2 too high is the control."""
        times = {}
        for told in (0.5, 0.7):
            found = []
            for seed in range(60):
                rng, wealth, t = RNG([seed]), fresh(SHARES), 0
                while average(wealth) < 30.0 and t < 1500:
                    wealth, t = grow(wealth, (float(rng.random() < 0.5) - told) / (1 - told), SHARES), t + 1
                found.append(t)
            times[told] = np.mean(found)
        assert times[0.5] >= 30.0
        assert times[0.7] < 60.0 < times[0.5]


class TestDrop:
    """The detector of one stream."""

    def test_it_finds_a_drop_once_and_learns_the_new_level(self):
        rng = RNG(0)
        values = np.concatenate((rng.random(1000) < 0.78, rng.random(3000) < 0.4)).astype(float)
        found = alarms(Drop(), values)
        assert len(found) == 1
        assert 1000 < found[0] < 1100

    def test_it_is_silent_when_nothing_moves_and_when_things_improve(self):
        """10 streams each of 3,000; a drop of .3 in the same streams is found in all (the negative control)."""
        for seed in range(10):
            luck = RNG(seed).random(3000)
            later = np.arange(3000) >= 1500
            assert not alarms(Drop(), luck < 0.6)
            assert not alarms(Drop(), luck < 0.6 + 0.3 * later)
            assert len(alarms(Drop(), luck < 0.6 - 0.3 * later)) == 1

    def test_the_usual_is_the_mean_less_its_doubt(self):
        one = Drop(DropOptions(doubt=2.0))
        alarms(one, WARM)
        assert (one.seen, one.mean) == (300, pytest.approx(0.5, abs=1e-12))
        assert one.usual == pytest.approx(0.5 - 2.0 * 0.5 / math.sqrt(300))
        assert Drop().usual == 0.0

    def test_doubt_never_falls_below_zero(self):
        one = Drop(DropOptions(doubt=50.0))
        alarms(one, WARM)
        assert one.usual == 0.0

    def test_it_does_not_watch_before_its_patience_is_over(self):
        one = Drop(DropOptions(patience=40, run_length=1.5))
        assert alarms(one, [1.0] * 20 + [0.0] * 20) == []
        assert one.wealth == fresh(SHARES)
        assert one.seen == 40
        assert alarms(one, [0.0] * 10) != []

    def test_it_watches_from_the_first_value_after_its_patience_and_cries_at_the_run_length_itself(self):
        """Two of 1 make 1 usual; a 0 lies 10 rooms below, so the two gamblers have 2.5 and 3.5, on average 3."""
        for run_length, cried in ((3.0, [2]), (math.nextafter(3.0, 4.0), [])):
            one = Drop(DropOptions(patience=2, memory=2, doubt=0.0, run_length=run_length))
            assert alarms(one, [1.0, 1.0, 0.0]) == cried

    def test_what_was_set_aside_counts_in_full_when_it_returns(self):
        """The mean is that of all values; where memory is shorter than what was set aside, of that alone."""
        values = [*WARM, 0.0, 0.0, 0.2, 0.0, 0.1, 0.3]
        one, short = Drop(DropOptions(memory=10_000)), Drop(DropOptions(memory=300))
        alarms(one, values)
        short.seen, short.mean, short.aside, short.aside_mean = 5, 0.9, 600, 0.25
        assert one.aside > 1
        while one.aside:
            values.append(1.0)
            one.see(1.0)
        assert one.mean == pytest.approx(float(np.mean(values)), abs=1e-12)
        short.see(0.25)
        assert (short.aside, short.mean) == (0, pytest.approx(0.25))

    @pytest.mark.parametrize("change", [{"doubt": 0.0}, {"doubt": 0.5}, {"patience": 1}, {"run_length": 1.0 + 1e-9}])
    def test_the_least_that_makes_sense_is_allowed(self, change):
        DropOptions(**change)

    @pytest.mark.parametrize("change", [{"doubt": math.inf}, {"doubt": -1e-9}, {"patience": 0}, {"run_length": 1.0}])
    def test_what_promises_nothing_is_refused(self, change):
        with pytest.raises(EvidenceError, match=r"^run_length must be > 1, doubt >= 0"):
            DropOptions(**change)

    def test_while_it_wins_values_are_set_aside_and_return_when_it_has_lost(self):
        one = Drop()
        alarms(one, WARM)
        before = one.mean
        alarms(one, [0.0] * 6)
        assert average(one.wealth) > 1.5
        assert one.aside > 0
        assert one.mean == pytest.approx(before, abs=0.01)
        while one.aside:
            one.see(1.0)
        assert one.seen > 306
        assert average(one.wealth) <= 1.5

    @settings(max_examples=30)
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=80))
    def test_until_memory_is_full_the_mean_is_that_of_all_values(self, values):
        one = Drop(DropOptions(patience=100, memory=100))
        alarms(one, values)
        assert one.mean == pytest.approx(float(np.mean(values)), abs=1e-12)

    def test_memory_forgets(self):
        """After 200 of 1 and 200 of a half, a memory of 50 knows the half, one of 10,000 both."""
        short, long = (Drop(DropOptions(patience=2, memory=m, run_length=1e300)) for m in (50, 10_000))
        for one in (short, long):
            alarms(one, [0.5] * 200 + [1.0] * 200)
        assert short.mean > 0.97
        assert long.mean == pytest.approx(0.75, abs=0.01)

    def test_the_alarm_comes_at_the_run_length_and_not_before(self):
        """The same values: wealth at the alarm reaches what was asked for, and one value before it did not."""
        for run_length in (100.0, 10_000.0):
            one = Drop(DropOptions(run_length=run_length))
            alarms(one, WARM)
            for _ in itertools.count():
                usual, wealth = one.usual, one.wealth
                cried = one.see(0.0)
                after = average(grow(wealth, (0.0 - usual) / (1.0 - usual), SHARES))
                assert cried is (after >= run_length)
                if cried:
                    break
            assert (one.wealth, one.seen, one.aside, one.mean) == (fresh(SHARES), 0, 0, 0.0)

    @pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf])
    def test_values_out_of_range_are_refused(self, value):
        with pytest.raises(EvidenceError, match=r"a value must be in \[0, 1\]"):
            Drop().see(value)

    @pytest.mark.parametrize(
        "options",
        [{"run_length": 1.0}, {"run_length": math.inf}, {"doubt": -0.1}, {"doubt": math.nan}, {"patience": 0}],
    )
    def test_options_out_of_range_are_refused(self, options):
        with pytest.raises(EvidenceError, match=r"run_length must be > 1, doubt >= 0"):
            DropOptions(**options)

    def test_a_memory_shorter_than_patience_is_refused(self):
        with pytest.raises(EvidenceError, match="memory must be at least patience=300, but got 299"):
            DropOptions(memory=299)
        assert DropOptions(memory=300).memory == 300


class TestTrend:
    """Slope per day."""

    def test_the_slope_is_scipy_s(self):
        rng = RNG(0)
        days, values = rng.random(40) * 30, rng.normal(size=40)
        assert trend(days * DAY, values, 0.05).slope == pytest.approx(linregress(days, values).slope, abs=1e-12)

    def test_the_error_is_that_of_leaving_each_value_out(self):
        """HC3 by definition: the sum over values of (weight x residual without it)^2, by fitting n times."""
        days, values = np.array([0.0, 1.0, 2.0, 5.0, 9.0]), np.array([0.1, 0.4, 0.2, 0.9, 0.8])
        found = trend(days * DAY, values, 0.1)
        centred = days - days.mean()
        total = 0.0
        for i in range(5):
            kept = np.arange(5) != i
            line = linregress(days[kept], values[kept])
            total += (centred[i] * (values[i] - line.intercept - line.slope * days[i])) ** 2
        error = math.sqrt(total) / (centred @ centred)
        assert (found.high - found.low) / 2 == pytest.approx(2.3533634348018264 * error)  # t, 3 degrees, 95 %

    def test_it_covers_though_spread_is_unequal(self):
        """400 sets of 30 days whose spread grows: nominal 90 %. A classical interval for equal spread covers less."""
        held = classical = 0
        days = np.arange(30.0)
        spread = np.where(days > 24, 1.0, 0.05)
        for seed in range(400):
            values = 0.02 * days + RNG(seed).normal(size=30) * spread
            found = trend(days * DAY, values, 0.1)
            held += found.low <= 0.02 <= found.high
            line = linregress(days, values)
            classical += abs(line.slope - 0.02) <= 1.701 * line.stderr
        assert held / 400 >= 0.9 - 4 * math.sqrt(0.09 / 400)
        assert classical / 400 < 0.86

    def test_order_and_origin_of_time_do_not_matter(self):
        rng = RNG(1)
        times, values, order = rng.random(20) * 9 * DAY, rng.random(20), rng.permutation(20)
        one, other = trend(times, values, 0.05), trend(times[order] + 1e9, values[order], 0.05)
        assert (one.low, one.slope, one.high) == pytest.approx((other.low, other.slope, other.high), abs=1e-8)

    def test_it_says_which_way(self):
        days, noise = np.arange(20.0), RNG(2).normal(size=20) * 0.1
        for slope, verdict in ((0.1, "rising"), (-0.1, "falling"), (0.0, "flat or unknown")):
            assert trend(days * DAY, slope * days + noise, 0.05).verdict == verdict

    @pytest.mark.parametrize("n", [0, 1, 2, 3])
    def test_few_values_say_nothing(self, n):
        found = trend(np.arange(n) * DAY, np.arange(n) * 1.0, 0.05)
        assert (found.n, found.slope is None, found.low, found.high) == (n, n < 2, -math.inf, math.inf)
        assert found.verdict == "flat or unknown"

    def test_one_moment_or_one_value_alone_in_time_say_nothing(self):
        assert trend(np.full(9, 7.0), np.arange(9.0), 0.05).slope is None
        alone = trend(np.array([0.0, 0.0, 0.0, 0.0, DAY]), np.arange(5.0), 0.05)
        assert (alone.slope, alone.low) == (pytest.approx(2.5), -math.inf)

    def test_bad_input_is_refused(self):
        with pytest.raises(ShapeError, match=r"\(3,\) and \(2,\)"):
            trend(np.zeros(3), np.zeros(2), 0.05)
        with pytest.raises(EvidenceError, match=r"finite, but are not at rows \[1\]"):
            trend(np.arange(3.0), np.array([0.0, math.nan, 0.0]), 0.05)
        with pytest.raises(EvidenceError, match="alpha must be in"):
            trend(np.arange(3.0), np.zeros(3), 1.5)
