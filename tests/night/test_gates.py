"""The gate: what it lets pass, what it stops, and when it says that it does not know."""

import math

import numpy as np
import pytest

from bandits.errors import EvidenceError, ShapeError
from bandits.evaluation import dr
from bandits.evaluation.intervals import lower_bound
from bandits.night.gates import _judge, gate, spend
from bandits.types import LoggedFeedback

PROBABILITIES = np.array([0.6, 0.2, 0.2])
ALPHA = 0.05


def scores_of_two_arms(seed, n, q):
    """DR scores of "always arm 1" (the candidate) and "always arm 2" (the incumbent), and their bound."""
    rng = np.random.default_rng(seed)
    actions = rng.choice(3, size=n, p=PROBABILITIES)
    feedback = LoggedFeedback(
        arms=("zero", "one", "two"),
        schema="none-1",
        ids=tuple(map(str, range(n))),
        times=np.arange(n, dtype=np.float64),
        contexts=np.zeros((n, 1), dtype=np.float32),
        actions=actions,
        propensities=PROBABILITIES[actions],
        probabilities=np.tile(PROBABILITIES, (n, 1)),
        rewards=(rng.random(n) < np.asarray(q)[actions]).astype(float),
        costs=np.full(n, np.nan),
    )
    one, two = (np.tile(np.eye(3)[a], (n, 1)) for a in (1, 2))
    q_hat = np.full((n, 3), 0.5)
    return dr.scores(feedback, one, q_hat), dr.scores(feedback, two, q_hat), dr.difference_bound(feedback, one, two)


def verdict(candidate, incumbent, bound, night=1, ess=1000.0):
    """The gate, with what most tests have in common."""
    return gate(candidate, incumbent, alpha=ALPHA, night=night, bound=bound, ess=ess)


class TestErrorRate:
    """It errs no more than alpha over all nights, and has power."""

    def test_two_policies_of_equal_value_pass_at_most_alpha_over_all_nights(self):
        """200 seeded logs, five nights each, the log growing by 150 rounds a night."""
        runs, passes = 200, 0
        for seed in range(runs):
            candidate, incumbent, bound = scores_of_two_arms(seed, 750, q=(0.5, 0.5, 0.5))
            outcomes = [
                verdict(candidate[: 150 * night], incumbent[: 150 * night], bound, night).outcome
                for night in range(1, 6)
            ]
            passes += "pass" in outcomes
        assert passes / runs <= ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / runs)

    def test_a_real_improvement_passes_and_its_mirror_image_fails(self):
        """+0.25 at propensity 0.2: at least 45 of 50 logs of 1,500 rounds prove it on the first night."""
        outcomes = []
        for seed in range(50):
            candidate, incumbent, bound = scores_of_two_arms(seed, 1500, q=(0.5, 0.65, 0.4))
            there, back = verdict(candidate, incumbent, bound), verdict(incumbent, candidate, bound)
            assert {there.outcome, back.outcome} in ({"pass", "fail"}, {"hold"})
            assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-6)
            outcomes.append(there.outcome)
        assert outcomes.count("pass") >= 45
        assert "fail" not in outcomes

    def test_evidence_stands_in_the_verdict(self):
        candidate, incumbent, bound = scores_of_two_arms(0, 1500, q=(0.5, 0.9, 0.1))
        found = verdict(candidate, incumbent, bound)
        assert found.outcome == "pass"
        assert found.low < found.advantage < found.high
        assert found.low > 0
        assert (found.n, found.ess, found.alpha) == (1500, 1000.0, spend(ALPHA, 1))
        assert f"{found.low:+.4f}" in found.reason

    def test_a_later_night_asks_for_more(self):
        candidate, incumbent, bound = scores_of_two_arms(0, 1500, q=(0.5, 0.65, 0.4))
        first, later = (verdict(candidate, incumbent, bound, night) for night in (1, 30))
        assert later.low < first.low < first.high < later.high

    def test_what_the_nights_may_spend_sums_to_alpha(self):
        spent = [spend(ALPHA, night) for night in range(1, 10_001)]
        assert spent == sorted(spent, reverse=True)
        assert ALPHA * 0.9999 < math.fsum(spent) < ALPHA


class TestEnds:
    """A pass rests on the low end alone, a fail on the high end alone."""

    @pytest.mark.parametrize("night", [1, 2, 7])
    def test_each_end_has_all_of_tonight_s_alpha(self, night):
        candidate, incumbent, bound = scores_of_two_arms(3, 400, q=(0.5, 0.6, 0.5))
        found, spent = verdict(candidate, incumbent, bound, night), ALPHA * 6 / (math.pi * night) ** 2
        x = candidate - incumbent
        assert found.alpha == pytest.approx(spent, rel=1e-12)
        assert found.low == lower_bound(x, found.alpha, low=-bound, high=bound, horizon=400)
        assert found.high == -lower_bound(-x, found.alpha, low=-bound, high=bound, horizon=400)
        assert found.low > lower_bound(x, found.alpha / 2, low=-bound, high=bound, horizon=400)

    def test_each_end_errs_at_most_alpha(self):
        """200 logs of two equal arms: neither passes nor fails come more often than the night may spend.

        The negative control: with an alpha of .97 they come more often than an alpha of .3 allows.
        """
        spent = spend(0.3, 1)
        allowance = spent + 2 * math.sqrt(spent * (1 - spent) / 200)
        for alpha, often in ((0.3, False), (0.97, True)):
            outcomes = []
            for seed in range(200):
                candidate, incumbent, bound = scores_of_two_arms(seed, 60, q=(0.5, 0.5, 0.5))
                outcomes.append(gate(candidate, incumbent, alpha=alpha, night=1, bound=bound, ess=1000.0).outcome)
            for outcome in ("pass", "fail"):
                assert (outcomes.count(outcome) / 200 > allowance) is often

    @pytest.mark.parametrize(
        ("ends", "outcome"),
        [
            ((0.0, 0.5), "hold"),
            ((5e-324, 0.5), "pass"),
            ((-0.5, 0.0), "hold"),
            ((-0.5, -5e-324), "fail"),
            ((0.0, 0.0), "hold"),
            ((-0.5, 0.5), "hold"),
            ((0.25, 0.25), "pass"),
            ((0.25, math.nextafter(0.25, 0.0)), "hold"),
            ((-0.25, -0.5), "hold"),
        ],
    )
    @pytest.mark.parametrize("ess", [200.0, math.nextafter(200.0, 0.0), 0.0, -1.0, math.nan, math.inf])
    def test_every_case_at_its_edge(self, ends, outcome, ess):
        """Zero advantage proves nothing; 200 effective rounds are enough, one part in 2^52 fewer are not."""
        found = _judge(*ends, 0.05, 1, ess)[0]
        assert found == (outcome if ess >= 200.0 else "hold")

    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_an_advantage_that_moved_is_held(self, sign):
        """First better, then worse, each proven, or the other way round: neither passes nor fails."""
        x = sign * np.concatenate((np.full(300, 1.0), np.full(3000, -1.0)))
        found = verdict(x, np.zeros(len(x)), 1.0)
        above = lower_bound(x, found.alpha, low=-1.0, high=1.0, horizon=len(x))
        below = -lower_bound(-x, found.alpha, low=-1.0, high=1.0, horizon=len(x))
        assert above > below
        assert (found.low, found.high) == (below, above)
        assert found.outcome == "hold"
        assert found.reason.startswith(f"the advantage moved: shown to be above {above:+.4f} and, at another time, bel")

    def test_what_is_said_names_both_ends_and_what_was_spent(self):
        assert _judge(0.01, 0.02, 0.03, 4, 300.0)[1] == (
            "the candidate is better than the serving policy: "
            "advantage between +0.0100 and +0.0200 (alpha 0.03, test 4)."
        )
        assert _judge(-0.2, -0.1, 0.03, 4, 300.0)[1].startswith("the candidate is worse than the serving policy: adv")
        assert _judge(-0.2, 0.1, 0.03, 4, 300.0)[1].startswith("the log cannot tell yet: advantage between -0.2000")
        assert _judge(0.2, 0.3, 0.03, 4, 49.6)[1] == (
            "not enough data: the effective sample size is 50, and a verdict needs 200."
        )

    def test_the_horizon_is_the_log(self):
        """Two logs, one twice the other: the longer is judged by slower bets."""
        candidate, incumbent, bound = scores_of_two_arms(4, 800, q=(0.5, 0.6, 0.5))
        x = candidate - incumbent
        found = verdict(candidate[:400], incumbent[:400], bound)
        assert found.low == lower_bound(x[:400], found.alpha, low=-bound, high=bound, horizon=400)
        assert found.low != lower_bound(x[:400], found.alpha, low=-bound, high=bound, horizon=800)

    def test_a_horizon_that_was_fixed_is_used_as_it_is(self):
        candidate, incumbent, bound = scores_of_two_arms(4, 400, q=(0.5, 0.6, 0.5))
        found = gate(candidate, incumbent, alpha=ALPHA, night=6, bound=bound, ess=1000.0, horizon=900)
        x = candidate - incumbent
        assert found.low == lower_bound(x, found.alpha, low=-bound, high=bound, horizon=900)
        assert found.high == -lower_bound(-x, found.alpha, low=-bound, high=bound, horizon=900)
        assert found.low != verdict(candidate, incumbent, bound, night=6).low
        assert found.reason.endswith("(alpha 0.00084, test 6).")

    def test_spend_by_hand(self):
        assert spend(0.05, 1) == pytest.approx(0.030396355092701, rel=1e-12)
        assert spend(0.05, 10) == pytest.approx(0.00030396355092701, rel=1e-12)


class TestHold:
    """What it does not know it does not judge."""

    @pytest.mark.parametrize("ess", [0.0, 199.9, math.nan])
    def test_not_enough_data_is_hold_however_good_the_candidate(self, ess):
        candidate, incumbent, bound = scores_of_two_arms(0, 1500, q=(0.5, 0.9, 0.1))
        found = verdict(candidate, incumbent, bound, ess=ess)
        assert found.outcome == "hold"
        assert found.reason.startswith("not enough data")

    def test_not_enough_data_is_hold_however_bad_the_candidate(self):
        candidate, incumbent, bound = scores_of_two_arms(0, 1500, q=(0.5, 0.1, 0.9))
        assert verdict(candidate, incumbent, bound).outcome == "fail"
        assert verdict(candidate, incumbent, bound, ess=10.0).outcome == "hold"

    def test_few_rounds_are_hold(self):
        candidate, incumbent, bound = scores_of_two_arms(0, 20, q=(0.5, 0.9, 0.1))
        assert verdict(candidate, incumbent, bound).outcome == "hold"

    def test_an_empty_log_is_hold_without_a_figure(self):
        found = verdict(np.zeros(0), np.zeros(0), 5.0, ess=0.0)
        assert (found.outcome, found.advantage, found.low, found.high) == ("hold", None, -5.0, 5.0)

    def test_without_a_serving_policy_the_guard_decides(self):
        found = verdict(np.ones(1000), None, 5.0)
        assert (found.outcome, found.reason) == ("hold", "no learned policy is serving; the guard decides.")
        assert (found.advantage, found.low, found.high) == (None, None, None)
        assert (found.n, found.ess, found.alpha) == (1000, 1000.0, spend(ALPHA, 1))

    def test_a_policy_against_itself_is_hold(self):
        candidate, _, _ = scores_of_two_arms(0, 1000, q=(0.5, 0.5, 0.5))
        found = verdict(candidate, candidate, 0.0)
        assert (found.outcome, found.advantage, found.low, found.high) == ("hold", 0.0, 0.0, 0.0)

    def test_policies_that_differ_by_rounding_alone_are_hold(self):
        incumbent = np.linspace(0.2, 0.8, 1000)
        found = verdict(incumbent + 1e-13, incumbent, 1e-14)
        assert (found.outcome, found.low, found.high) == ("hold", -1e-14, 1e-14)


class TestBadInput:
    """What makes no sense is refused, never judged."""

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("who", ["candidate_scores", "incumbent_scores"])
    def test_scores_that_are_not_finite_are_refused(self, who, bad):
        scores = {"candidate_scores": np.zeros(300), "incumbent_scores": np.zeros(300)}
        scores[who][7] = bad
        with pytest.raises(EvidenceError, match=rf"{who} must be finite, but got .* at rows \[7\]"):
            gate(**scores, alpha=ALPHA, night=1, bound=5.0, ess=300.0)

    def test_a_candidate_without_incumbent_is_checked_all_the_same(self):
        with pytest.raises(EvidenceError, match="candidate_scores must be finite"):
            verdict(np.array([math.nan]), None, 5.0)

    def test_scores_must_be_of_the_same_rounds(self):
        with pytest.raises(ShapeError, match="n=300 and n=299"):
            verdict(np.zeros(300), np.zeros(299), 5.0)

    def test_a_difference_beyond_the_bound_is_refused_not_clipped(self):
        with pytest.raises(EvidenceError, match=r"must lie in \[-5, 5\], but got 6\.0 at rows \[0, 1, 2, 3, 4\]"):
            verdict(np.full(300, 6.0), np.zeros(300), 5.0)

    @pytest.mark.parametrize("bound", [-1.0, math.nan, math.inf])
    def test_a_bound_must_be_finite_and_not_negative(self, bound):
        with pytest.raises(EvidenceError, match="range must be finite"):
            verdict(np.zeros(300), np.zeros(300), bound)

    @pytest.mark.parametrize(("alpha", "night"), [(0.0, 1), (1.0, 1), (math.nan, 1), (0.05, 0)])
    def test_alpha_and_night_must_make_sense(self, alpha, night):
        with pytest.raises(EvidenceError, match=r"alpha must be in|night must be 1 or more"):
            gate(np.zeros(300), np.zeros(300), alpha=alpha, night=night, bound=5.0, ess=300.0)
