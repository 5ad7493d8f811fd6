"""Experiments: who sees what, whether the shares are as planned, what the difference is at any look."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare, multinomial

from bandits.assignment import BUCKETS, Experiment, bucket, variant
from bandits.errors import EvidenceError, ExperimentError, ShapeError
from bandits.evaluation.intervals import lower_bound
from bandits.experiments import ab, srm

RNG = np.random.default_rng
UNITS = [f"user-{i}" for i in range(60_000)]
HALVES = Experiment("greeting 2026-11", ("A", "B"), (0.5, 0.5))


class TestAssignment:
    """A hash of seed and unit."""

    def test_units_spread_evenly_over_buckets(self):
        """Chi-square over 100 groups of buckets; a bucket by length of the name is the negative control."""
        places = np.array([bucket("seed", unit) for unit in UNITS])
        assert chisquare(np.bincount(places // 100, minlength=100)).pvalue > 1e-6
        assert (places.min(), places.max()) == (0, BUCKETS - 1)
        lopsided = np.array([len(unit) * 1000 for unit in UNITS])
        assert chisquare(np.bincount(lopsided // 100, minlength=100)).pvalue < 1e-6

    def test_a_ramp_only_adds_units_and_moves_none_to_another_variant(self):
        before: dict[str, str] = {}
        for exposed in (0.05, 0.2, 0.5, 1.0):
            one = Experiment("ramp", ("A", "B", "C"), (0.2, 0.3, 0.5), exposed)
            now = {unit: found for unit in UNITS[:5000] if (found := variant(one, unit)) is not None}
            assert before.items() <= now.items()
            assert len(now) == pytest.approx(5000 * exposed, abs=5 * math.sqrt(5000 * exposed * (1 - exposed) + 1e-9))
            before = now
        assert len(before) == 5000

    def test_a_new_seed_is_another_ramp(self):
        """The negative control of nesting: two seeds share 5 % of 5 %, not all of it."""
        one, two = ({u for u in UNITS if bucket(seed, u) < BUCKETS // 20} for seed in ("first", "second"))
        assert 0.03 < len(one & two) / len(one) < 0.07

    def test_two_experiments_are_independent(self):
        other = Experiment("another", ("A", "B"), (0.5, 0.5))
        table = np.zeros((2, 2))
        for unit in UNITS[:20_000]:
            table["AB".index(variant(HALVES, unit)), "AB".index(variant(other, unit))] += 1
        assert chi2_contingency(table).pvalue > 1e-6
        assert chi2_contingency([[9900, 100], [100, 9900]]).pvalue < 1e-6  # the negative control

    def test_taking_part_and_variant_are_independent(self):
        """Else the first 5 % of a ramp would all see one variant."""
        early = Experiment("ramp", ("A", "B"), (0.5, 0.5), 0.05)
        seen = [found for unit in UNITS if (found := variant(early, unit)) is not None]
        assert abs(seen.count("A") / len(seen) - 0.5) < 5 * 0.5 / math.sqrt(len(seen))

    def test_shares_are_what_was_asked_for(self):
        one = Experiment("shares", ("A", "B", "C"), (0.05, 0.25, 0.7))
        seen = [variant(one, unit) for unit in UNITS[:20_000]]
        counts = [seen.count(name) for name in one.variants]
        assert chisquare(counts, np.array(one.shares) * len(seen)).pvalue > 1e-6

    def test_nobody_takes_part_at_zero_and_everybody_at_one(self):
        for exposed, expected in ((0.0, 0), (1.0, 500)):
            one = Experiment("ends", ("A", "B"), (0.5, 0.5), exposed)
            assert sum(variant(one, unit) is not None for unit in UNITS[:500]) == expected

    def test_places_are_these_for_ever(self):
        """Golden: another value would send everybody who is in an experiment elsewhere."""
        assert [bucket("seed", unit) for unit in ("", "user-1", "ü")] == [763, 631, 3643]
        assert bucket("seed", "user-1", "variant") == 4056

    def test_another_process_gives_the_same(self):
        code = (
            "import json; from bandits.assignment import *; "
            "e = Experiment('p', ('A', 'B'), (.5, .5), .5); print(json.dumps([variant(e, str(i)) for i in range(50)]))"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
        one = Experiment("p", ("A", "B"), (0.5, 0.5), 0.5)
        assert json.loads(out) == [variant(one, str(i)) for i in range(50)]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"seed": ""}, "must have a seed"),
            ({"variants": ("A", "A")}, "different names"),
            ({"variants": ("A",)}, "one share each"),
            ({"shares": (0.5, 0.6)}, "sum to 1"),
            ({"shares": (0.0, 1.0)}, "> 0"),
            ({"shares": (math.nan, 0.5)}, "sum to 1"),
            ({"exposed": 1.1}, "exposed must be in"),
            ({"exposed": -0.1}, "exposed must be in"),
        ],
    )
    def test_bad_plans_are_refused(self, change, message):
        with pytest.raises(ExperimentError, match=message):
            Experiment(**{"seed": "s", "variants": ("A", "B"), "shares": (0.5, 0.5)} | change)


class TestSampleRatio:
    """A Bayes factor that is a martingale under the plan."""

    @pytest.mark.parametrize("planned", [(0.5, 0.5), (0.05, 0.95), (0.2, 0.3, 0.5)])
    @pytest.mark.parametrize("n", [1, 4])
    def test_its_mean_is_one_under_the_plan_by_enumeration(self, planned, n):
        """Sum over all counts of n units of probability times E; under other shares it is more."""
        k = len(planned)
        counts = np.array([c for c in np.ndindex(*[n + 1] * k) if sum(c) == n])
        e = np.exp(srm.log_evidence(counts, planned, concentration=3.0))
        assert float(multinomial.pmf(counts, n, planned) @ e) == pytest.approx(1.0, abs=1e-12)
        other = planned[1:] + planned[:1] if len(set(planned)) > 1 else (0.9, 0.1)
        if n > 1:
            assert float(multinomial.pmf(counts, n, other) @ e) > 1.01

    def test_it_is_the_product_of_what_was_foretold_of_each_unit(self):
        """By fractions: (prior + seen of this variant) / (prior + seen) over its planned share."""
        shares, prior = (Fraction(1, 4), Fraction(3, 4)), Fraction(8)
        seen, e = [0, 0], Fraction(1)
        for unit in (0, 1, 0, 0, 1, 0):
            e *= (prior * shares[unit] + seen[unit]) / (prior + sum(seen)) / shares[unit]
            seen[unit] += 1
        found = srm.log_evidence(np.array([seen]), (0.25, 0.75), concentration=8.0)
        assert math.exp(found[0]) == pytest.approx(float(e), abs=1e-12)

    def test_it_seldom_cries_wolf_and_finds_a_real_imbalance(self):
        """300 runs of 5,000 looks at alpha = .05; a chi-square test looked at as often is the negative control."""
        n = np.arange(1, 5001)
        false = found = control = 0
        for seed in range(300):
            for share in (0.5, 0.56):
                first = (RNG(seed).random(5000) < share).cumsum()
                noticed = bool(
                    (srm.log_evidence(np.column_stack((first, n - first)), (0.5, 0.5)) >= math.log(20)).any()
                )
                false, found = (false + noticed, found) if share == 0.5 else (false, found + noticed)
                control += share == 0.5 and bool(((first - n / 2) ** 2 / (n / 4) > 3.841)[99:].any())
        allowance = 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)
        assert false / 300 <= allowance < control / 300
        assert found / 300 >= 0.99

    def test_looks_may_be_at_any_time_and_what_was_found_stays_found(self):
        test = srm.SampleRatio.start((0.5, 0.5))
        assert (test.p_value, test.mismatch()) == (1.0, False)
        test = test.see((100, 0))
        assert test.mismatch()
        assert test.p_value == pytest.approx(math.exp(-srm.log_evidence(np.array([[100, 0]]), (0.5, 0.5))[0]))
        later = test.see((0, 100))
        assert later.counts == (100, 100)
        assert later.p_value == test.p_value

    @settings(max_examples=40)
    @given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=6))
    def test_counts_add_up_however_they_are_split(self, looks):
        """The evidence at a time depends on the counts alone, and the peak is the largest over the looks."""
        test, totals = srm.SampleRatio.start((0.3, 0.7)), [(0, 0)]
        for look in looks:
            test = test.see(look)
            totals.append((totals[-1][0] + look[0], totals[-1][1] + look[1]))
        assert test.counts == totals[-1]
        peak = max(0.0, *srm.log_evidence(np.array(totals), (0.3, 0.7)))
        assert test.peak == pytest.approx(peak, abs=1e-9)

    def test_a_mismatch_is_at_alpha_and_below(self):
        test = srm.SampleRatio((0.5, 0.5), (0, 0), -math.log(0.25))
        assert test.mismatch(0.25)
        assert not test.mismatch(0.2499)

    @pytest.mark.parametrize("planned", [(1.0,), (0.5, 0.6), (0.0, 1.0), (-0.5, 1.5), (math.nan, 0.5)])
    def test_bad_plans_are_refused(self, planned):
        with pytest.raises(ExperimentError, match="planned shares must be two or more"):
            srm.SampleRatio.start(planned)
        with pytest.raises(ExperimentError, match="planned shares"):
            srm.log_evidence(np.zeros((1, len(planned)), int), planned)

    @pytest.mark.parametrize("counts", [(1,), (1, 2, 3), (-1, 2)])
    def test_bad_counts_are_refused(self, counts):
        with pytest.raises(ExperimentError, match="counts must be 2 numbers >= 0"):
            srm.SampleRatio.start((0.5, 0.5)).see(counts)


def run(seed, n, effect, share=0.5):
    """Assignment and 0/1 outcomes of n units: .4 without B, .4 + effect with it."""
    rng = RNG(seed)
    treated = rng.random(n) < share
    return treated, (rng.random(n) < 0.4 + effect * treated).astype(float)


class TestDifference:
    """The effect of B over A, at any look."""

    @pytest.mark.parametrize("share", [0.5, 0.2])
    def test_scores_average_to_the_effect_by_enumeration(self, share):
        """Over both assignments of a unit, whatever was foretold of it, and whoever it is."""
        for without, with_b, foretold in ((0.2, 0.7, 0.0), (0.9, 0.1, 0.4), (0.5, 0.5, 1.0)):
            treated = np.array([True, False])
            x = ab.scores(treated, np.array([with_b, without]), share, foretold=np.full(2, foretold))
            assert share * x[0] + (1 - share) * x[1] == pytest.approx(with_b - without, abs=1e-12)

    def test_what_is_foretold_by_default_is_the_mean_before(self):
        y = np.array([1.0, 0.0, 1.0, 1.0])
        x = ab.scores(np.ones(4, bool), y, 0.5)
        assert x == pytest.approx((y - np.array([0.5, 0.75, 0.5, 0.625])) * 2.0)

    def test_a_real_effect_is_better_and_its_mirror_image_worse(self):
        """20 experiments of an effect of .2; the interval may miss it in one, and misses .35 in nearly all."""
        held, held_wrong = 0, 0
        for seed in range(20):
            treated, outcomes = run(seed, 3000, 0.2)
            there = ab.difference(treated, outcomes, 0.5, 0.05, horizon=3000)
            back = ab.difference(~treated, outcomes, 0.5, 0.05, horizon=3000)
            assert (there.verdict, back.verdict) == ("better", "worse")
            held += there.low < 0.2 < there.high
            held_wrong += there.low < 0.35 < there.high
            assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-6)
            assert there.effect == pytest.approx(0.2, abs=0.08)
        assert held >= 18
        assert held_wrong <= 2

    def test_without_effect_it_seldom_stops_though_looked_at_after_every_unit(self):
        """200 A/A experiments of 2,000 units; a z-test at every look is the negative control."""
        stops = control = 0
        n = np.arange(1, 2001)
        for seed in range(200):
            treated, outcomes = run(seed, 2000, 0.0, 0.3)
            stops += ab.difference(treated, outcomes, 0.3, 0.1, horizon=2000).verdict != "hold"
            x = ab.scores(treated, outcomes, 0.3)
            control += bool((np.abs(x.cumsum()) > 1.645 * x.std() * np.sqrt(n))[49:].any())
        allowance = 0.1 + 2 * math.sqrt(0.1 * 0.9 / 200)
        assert stops / 200 <= allowance < control / 200

    def test_both_ends_share_alpha(self):
        treated, outcomes = run(1, 400, 0.1, 0.25)
        found = ab.difference(treated, outcomes, 0.25, 0.1)
        x = ab.scores(treated, outcomes, 0.25)
        assert found.low == lower_bound(x, 0.05, low=-4.0, high=4.0)
        assert found.high == -lower_bound(-x, 0.05, low=-4.0, high=4.0)

    def test_the_range_is_that_of_the_rarer_variant_also_when_that_is_a(self):
        treated, outcomes = run(1, 400, 0.1, 0.75)
        x = ab.scores(treated, outcomes, 0.75)
        assert ab.difference(treated, outcomes, 0.75, 0.1).low == lower_bound(x, 0.05, low=-4.0, high=4.0)

    def test_what_was_foretold_well_narrows_the_interval(self):
        """Outcomes that follow what was known before: half the width; foretold at random: no gain."""
        rng = RNG(0)
        known, treated = rng.random(3000), rng.random(3000) < 0.5
        outcomes = np.clip(known + rng.normal(0, 0.05, 3000), 0, 1)
        by_mean, by_known, at_random = (
            ab.difference(treated, outcomes, 0.5, 0.05, foretold=foretold, horizon=3000)
            for foretold in (None, known, rng.random(3000))
        )
        assert by_known.high - by_known.low < 0.5 * (by_mean.high - by_mean.low)
        assert at_random.high - at_random.low > by_mean.high - by_mean.low

    def test_an_effect_that_turns_around_is_said_to_have_moved(self):
        treated = RNG(3).random(8000) < 0.5
        outcomes = np.where(np.arange(8000) < 2000, treated, ~treated).astype(float)
        found = ab.difference(treated, outcomes, 0.5, 0.05)
        assert found.verdict == "moved"
        assert found.low <= found.high

    def test_units_of_the_outcome_do_not_matter(self):
        treated, outcomes = run(2, 500, 0.2)
        one = ab.difference(treated, outcomes, 0.5, 0.05)
        other = ab.difference(treated, 10.0 * outcomes - 3.0, 0.5, 0.05, low=-3.0, high=7.0)
        assert (other.low, other.high) == pytest.approx((10 * one.low, 10 * one.high), abs=1e-5)

    def test_before_the_first_unit_everything_is_possible(self):
        found = ab.difference(np.zeros(0, bool), np.zeros(0), 0.5, 0.05)
        assert found == ab.Difference(0, None, -2.0, 2.0, "hold")

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"share": 0.0}, ExperimentError, "share must be in"),
            ({"share": 1.0}, ExperimentError, "share must be in"),
            ({"alpha": 0.0}, EvidenceError, "alpha must be in"),
            ({"treated": np.ones(3, bool)}, ShapeError, "treated must be"),
            ({"treated": np.ones(2)}, ShapeError, "float64"),
            (
                {"outcomes": np.array([0.5, math.nan])},
                ExperimentError,
                r"outcomes must lie in \[0, 1\].*nan at rows \[1\]",
            ),
            ({"outcomes": np.array([0.5, 1.1])}, ExperimentError, r"outcomes must lie"),
            ({"foretold": np.array([-0.1, 0.5])}, ExperimentError, r"foretold must lie"),
            ({"foretold": np.zeros(3)}, ShapeError, "foretold must have shape"),
        ],
    )
    def test_bad_input_is_refused(self, change, error, message):
        good = {"treated": np.array([True, False]), "outcomes": np.array([0.0, 1.0]), "share": 0.5, "alpha": 0.05}
        with pytest.raises(error, match=message):
            ab.difference(**good | change)


class TestPlanning:
    """Power before the start, and A/A on one's own outcomes."""

    def test_power_is_what_is_measured(self):
        """120 simulated experiments at three sizes of effect: within 4 standard errors and .04 of the formula."""
        for effect in (0.1, 0.13, 0.16):
            shown = sum(
                ab.difference(*run(seed, 1000, effect), 0.5, 0.05, horizon=1000).verdict == "better"
                for seed in range(120)
            )
            p = 0.4 + effect / 2
            foretold = ab.power(effect, 1000, math.sqrt(p * (1 - p)), 0.05)
            assert abs(shown / 120 - foretold) < 0.04 + 4 * math.sqrt(foretold * (1 - foretold) / 120)
            assert abs(shown / 120 - ab.power(effect / 2, 1000, 0.5, 0.05)) > 0.1  # the negative control

    def test_power_grows_with_effect_units_and_even_shares(self):
        assert ab.power(0.1, 1000, 0.5, 0.05) < ab.power(0.2, 1000, 0.5, 0.05)
        assert ab.power(0.1, 1000, 0.5, 0.05) < ab.power(0.1, 2000, 0.5, 0.05)
        assert ab.power(0.1, 1000, 0.5, 0.05, share=0.1) < ab.power(0.1, 1000, 0.5, 0.05)
        assert ab.power(0.1, 1000, 0.5, 0.01) < ab.power(0.1, 1000, 0.5, 0.05)
        assert ab.power(0.1, 1000, 0.5, 0.05) == ab.power(-0.1, 1000, 0.5, 0.05)

    def test_power_is_the_first_passage_of_a_brownian_motion(self):
        """Of log capital over [0, 1]: variance 2.5 log(2 / alpha), from 0 to log(2 / alpha)."""
        goal = math.log(2 / 0.05)
        spread = math.sqrt(2.5 * goal)
        drift = spread * math.sqrt(1000) * 0.1 / (0.5 / 0.4) - spread**2 / 2
        up = NormalDist(drift, spread).cdf
        by_hand = 1 - up(goal) + math.exp(2 * drift * goal / spread**2) * (1 - NormalDist(-drift, spread).cdf(goal))
        assert ab.power(0.1, 1000, 0.5, 0.05, share=0.2) == pytest.approx(by_hand, rel=1e-9)

    def test_eighty_per_cent_and_even_shares_are_usual(self):
        assert ab.detectable(5000, 0.5, 0.05) == ab.detectable(5000, 0.5, 0.05, 0.8, share=0.5)
        assert ab.units_needed(0.1, 0.5, 0.05) == ab.units_needed(0.1, 0.5, 0.05, 0.8, share=0.5)

    def test_a_a_looks_at_the_very_experiment(self):
        """Its range and horizon are those of `difference`; with another range, or none, others would stop."""
        outcomes = np.where(np.arange(300) % 2, 9.0, -3.0)
        for low, high, alpha in ((-3.0, 9.0, 0.9), (-30.0, 90.0, 0.9)):
            rng, stops = RNG(5), 0
            for _ in range(20):
                treated = rng.random(300) < 0.5
                stops += ab.difference(treated, outcomes, 0.5, alpha, low=low, high=high, horizon=300).verdict != "hold"
            assert ab.false_stops(outcomes, 0.5, alpha, 20, RNG(5), low=low, high=high) == stops / 20

    def test_ends_of_power(self):
        assert ab.power(0.0, 1000, 0.5, 0.05) <= 0.025
        assert ab.power(1e6, 1000, 0.5, 0.05) == pytest.approx(1.0)

    @pytest.mark.parametrize(("spread", "share", "power"), [(0.5, 0.5, 0.8), (0.2, 0.05, 0.9), (30.0, 0.3, 0.5)])
    def test_detectable_and_units_needed_invert_power(self, spread, share, power):
        least = ab.detectable(5000, spread, 0.05, power, share=share)
        assert ab.power(least, 5000, spread, 0.05, share=share) == pytest.approx(power, abs=1e-6)
        assert ab.units_needed(least, spread, 0.05, power, share=share) in (5000, 5001)
        assert ab.units_needed(-least, spread, 0.05, power, share=share) in (5000, 5001)

    def test_an_experiment_of_no_effect_seldom_stops_on_real_outcomes(self):
        """Outcomes that drift: assigned anew 100 times, few stop. Judged at alpha = .99, many do."""
        outcomes = np.linspace(0, 1, 800)
        assert ab.false_stops(outcomes, 0.5, 0.05, 100, RNG(0)) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 100)
        assert ab.false_stops(outcomes, 0.5, 0.99, 100, RNG(0)) > 0.2

    def test_bad_plans_are_refused(self):
        for wrong in ({"n": 0}, {"spread": 0.0}, {"spread": math.nan}, {"effect": math.inf}):
            with pytest.raises(ExperimentError, match="n must be 1 or more, spread > 0 and effect finite"):
                ab.power(**{"effect": 0.1, "n": 10, "spread": 0.5, "alpha": 0.05} | wrong)
        for power in (0.01, 1.0, math.nan):
            with pytest.raises(ExperimentError, match="power must be in"):
                ab.detectable(100, 0.5, 0.05, power)
        with pytest.raises(ExperimentError, match=r"^effect must not be 0"):
            ab.units_needed(0.0, 0.5, 0.05)
        with pytest.raises(ExperimentError, match="runs must be 1 or more"):
            ab.false_stops(np.zeros(3), 0.5, 0.05, 0, RNG(0))
        with pytest.raises(ExperimentError, match="share must be in"):
            ab.false_stops(np.zeros(3), 1.5, 0.05, 1, RNG(0))
