"""A trial: fixed before the rounds that judge it, looked at every night at no cost, fair whatever it was chosen by."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from bandits.config import ArmConfig, DomainConfig, parse_config
from bandits.errors import EvidenceError
from bandits.home import Home
from bandits.learners.baselines import ContextFree
from bandits.night.gates import spend
from bandits.night.judging import Trial, judge, means_before, register, standing, would_draw
from bandits.privacy.erasing import learn_anew
from bandits.snapshots.keys import signing_key
from bandits.types import LoggedFeedback, Scope
from benchmarks.null_nights import joined

SCOPE = Scope("acme", "main", "greeting")
ARMS, FLOOR = ("zero", "one", "two"), 0.3
DOMAIN = DomainConfig(
    arms=tuple(ArmConfig(name=name, model=name, usd_per_request=1e-3) for name in ARMS),
    features="vector-1",
    budget_usd_per_request=1.0,
    floor=FLOOR,
)


def fixed(arm):
    """Always this arm, but for the floor."""
    return ContextFree("fixed", ARMS, "vector-1", np.eye(3)[arm], np.full(3, 1e-3), 1.0, FLOOR)


def log(seed, n, values, start=1.0, allowed=(1, 1, 1)):
    """n rounds at start, start + 1, ..., drawn by `fixed(0)`; arm a is worth values[a]."""
    rng = np.random.default_rng(seed)
    mask = np.tile(np.array(allowed, dtype=bool), (n, 1))
    probabilities = fixed(0).probabilities(np.zeros((n, 1), np.float32), mask) if n else np.zeros((0, 3))
    actions = (rng.random((n, 1)) >= probabilities.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return LoggedFeedback(
        arms=ARMS,
        schema="vector-1",
        ids=tuple(f"{seed}-{start + i}" for i in range(n)),
        times=start + np.arange(n, dtype=np.float64),
        contexts=np.zeros((n, 1), dtype=np.float32),
        actions=actions,
        propensities=probabilities[np.arange(n), actions],
        probabilities=probabilities,
        rewards=(rng.random(n) < np.asarray(values)[actions]).astype(np.float64),
        costs=np.full(n, np.nan),
    )


def trial(arm=1, number=1, at=0.0, horizon=4000):
    return Trial(fixed(arm), number, at, horizon, FLOOR / 3, "000001")


class TestJudge:
    """The gate, on what came later."""

    def test_a_better_candidate_passes_a_worse_fails_and_an_equal_one_waits(self):
        for value, outcome in ((0.8, "pass"), (0.2, "fail"), (0.5, "hold")):
            found = judge(log(1, 4000, (0.5, value, 0.5)), trial(), fixed(0), 0.05)
            assert found.outcome == outcome
            assert found.n == 4000

    def test_rounds_from_before_it_was_fixed_do_not_judge(self):
        """Before: the candidate's arm always failed; after: it is as good as the others."""
        before, after = log(1, 3000, (0.5, 0.0, 0.5)), log(2, 1000, (0.5, 0.5, 0.5), start=3001.0)
        found = judge(joined([before, after]), trial(at=3000.0), fixed(0), 0.05)
        assert found == judge(after, trial(at=3000.0), fixed(0), 0.05)
        assert found.n == 1000
        assert abs(found.advantage) < 0.1 < -judge(joined([before, after]), trial(at=0.0), fixed(0), 0.05).advantage

    def test_looks_are_free_what_was_shown_at_one_is_shown_at_every_later_one(self):
        """The low end never falls from look to look, even where the advantage turns; the high end never rises."""
        whole = joined([log(3, 1500, (0.5, 0.8, 0.5)), log(4, 2500, (0.5, 0.1, 0.5), start=1501.0)])
        looks = [judge(whole.where(whole.times <= t), trial(), fixed(0), 0.05) for t in range(100, 4001, 300)]
        shown_above = [min(look.low, look.high) if "moved" not in look.reason else look.high for look in looks]
        assert shown_above == sorted(shown_above)
        assert "pass" in [look.outcome for look in looks]
        assert "fail" not in [look.outcome for look in looks]

    def test_trial_k_spends_what_night_k_may(self):
        for number in (1, 3):
            found = judge(log(5, 500, (0.5, 0.5, 0.5)), trial(number=number), fixed(0), 0.05)
            assert found.alpha == spend(0.05, number)

    def test_few_effective_rounds_are_hold_unless_another_figure_is_given(self):
        rounds = log(6, 700, (0.3, 1.0, 0.3))
        assert judge(rounds, trial(horizon=700), fixed(0), 0.05).reason.startswith("not enough data")
        assert judge(rounds, trial(horizon=700), fixed(0), 0.05, ess=200.0).outcome == "pass"

    def test_without_rounds_it_holds(self):
        found = judge(log(7, 0, (0.5, 0.5, 0.5)), trial(), fixed(0), 0.05)
        assert (found.outcome, found.n, found.advantage) == ("hold", 0, None)

    def test_a_round_below_the_promised_floor_is_refused(self):
        """A score beyond the bound, once the floor was lowered: the bets do not hold for it."""
        rounds = log(8, 400, (0.5, 0.5, 0.5))
        low = np.tile([0.98, 0.01, 0.01], (400, 1))
        rare = replace(rounds, actions=np.ones(400, np.int64), propensities=low[:, 1], probabilities=low)
        with pytest.raises(EvidenceError, match=r"scores must lie in \[-10, 10\]"):
            judge(rare, trial(), fixed(0), 0.05)

    def test_rounds_out_of_order_are_refused(self):
        rounds = log(9, 3, (0.5, 0.5, 0.5))
        with pytest.raises(EvidenceError, match="rounds must be in order of time"):
            judge(replace(rounds, times=rounds.times[::-1].copy()), trial(), fixed(0), 0.05)

    def test_it_errs_no_more_than_alpha_though_picked_by_the_log_that_it_then_was_judged_by(self):
        """40 logs of equal arms: the arm that did best is tried on the next log, and on its own (the control)."""
        passes = control = 0
        for seed in range(40):
            first, second = log(seed, 600, (0.5, 0.5, 0.5)), log(seed + 1000, 600, (0.5, 0.5, 0.5), start=601.0)
            gains = [(first.rewards[first.actions == arm] - 0.5).sum() for arm in range(3)]
            one = trial(int(np.argmax(gains)), at=600.0, horizon=600)
            worst = fixed(int(np.argmin(gains)))
            passes += judge(joined([first, second]), one, worst, 0.3, ess=1e9).outcome == "pass"
            control += judge(first, replace(one, fixed=0.0), worst, 0.3, ess=1e9).outcome == "pass"
        allowance = spend(0.3, 1) + 2 * (spend(0.3, 1) * (1 - spend(0.3, 1)) / 40) ** 0.5
        assert passes / 40 <= allowance < control / 40


class TestFairness:
    """What the scores rest on was known before each round."""

    def test_the_model_is_the_mean_of_the_rewards_before(self):
        rounds = log(1, 60, (0.3, 0.6, 0.9))
        won, drawn = np.zeros(3), np.zeros(3)
        for i, row in enumerate(means_before(rounds)):
            of_all = (0.5 + won.sum()) / (1.0 + drawn.sum())
            assert row == pytest.approx((10.0 * of_all + won) / (10.0 + drawn), abs=1e-12)
            won[rounds.actions[i]] += rounds.rewards[i]
            drawn[rounds.actions[i]] += 1.0
        assert means_before(log(1, 0, (0.5, 0.5, 0.5))).shape == (0, 3)

    def test_a_policy_plays_as_it_would_be_served_what_each_round_allowed(self):
        class KnowsOne(ContextFree):
            supported = np.array([False, True, False])

        policy = KnowsOne("fixed", ARMS, "vector-1", np.eye(3)[1], np.full(3, 1e-3), 1.0, FLOOR)
        both = joined([log(2, 5, (0.5, 0.5, 0.5)), log(3, 5, (0.5, 0.5, 0.5), start=6.0, allowed=(1, 0, 1))])
        probs = would_draw(policy, both)
        shares = [FLOOR / 3, 1.0 - 2.0 * FLOOR / 3, FLOOR / 3]  # arms that it does not know are on trial
        assert probs[:5] == pytest.approx(np.tile(shares, (5, 1)))
        assert (probs[5:, 1] == 0.0).all()
        assert probs[5:].sum(axis=1) == pytest.approx(1.0)


class TestStore:
    """Registered among the trials, and never served."""

    @pytest.fixture
    def home(self, tmp_path):
        return Home(tmp_path)

    def put(self, home, arm=1, now=100.0, **changes):
        terms = {"against": "000007", "number": 1, "horizon": 900, "position": 5, "expires": now + 50.0}
        return register(home, SCOPE, fixed(arm), DOMAIN, now=now, key=signing_key(home.root), **{**terms, **changes})

    def test_what_was_registered_stands_with_all_its_terms(self, home):
        manifest = self.put(home, arm=2)
        found = standing(home, SCOPE, DOMAIN, "000007", 120.0)
        assert (found.number, found.fixed, found.horizon, found.least) == (1, 100.0, 900, FLOOR / 3)
        assert found.version == manifest.version
        rounds = log(1, 4, (0.5, 0.5, 0.5))
        assert (would_draw(found.policy, rounds) == would_draw(fixed(2), rounds)).all()
        assert not home.snapshots.exists()

    def test_none_stands_against_another_incumbent_after_its_time_or_for_another_domain(self, home):
        assert standing(home, SCOPE, DOMAIN, "000007", 120.0) is None
        self.put(home)
        assert standing(home, SCOPE, DOMAIN, "000008", 120.0) is None
        assert standing(home, SCOPE, DOMAIN, "000007", 150.0) is None
        for change in ({"floor": 0.2}, {"features": "vector-2"}, {"arms": DOMAIN.arms[:2]}):
            assert standing(home, SCOPE, DOMAIN.model_copy(update=change), "000007", 120.0) is None
        assert standing(home, SCOPE, DOMAIN.model_copy(update={"floor": 0.4}), "000007", 120.0) is not None

    def test_trials_are_counted_anew_for_each_incumbent_also_those_that_expired(self, home):
        numbers = []
        for now in (100.0, 200.0, 300.0):
            self.put(home, now=now, number=9)
            numbers.append(standing(home, SCOPE, DOMAIN, "000007", now + 1.0).number)
        self.put(home, now=400.0, against="000008", number=2)
        numbers.append(standing(home, SCOPE, DOMAIN, "000008", 401.0).number)
        assert numbers == [9, 10, 11, 2]

    def test_a_lost_folder_does_not_refill_the_error_rate(self, home):
        """The night gives the number then: at least as many nights have passed as there were trials."""
        self.put(home)
        shutil.rmtree(home.trials)
        self.put(home, now=200.0, number=12)
        assert standing(home, SCOPE, DOMAIN, "000007", 201.0).number == 12

    def test_an_erasure_takes_it_away(self, home):
        """It learned from the person, too."""
        self.put(home)
        learn_anew(home, parse_config({"tenants": {"acme": {}}, "domains": {"other": DOMAIN}}, "test"), SCOPE, 120.0)
        assert standing(home, SCOPE, DOMAIN, "000007", 120.0) is None

    def test_a_trial_that_was_tampered_with_does_not_stand(self, home):
        self.put(home)
        (arrays,) = (home.trials).rglob("arrays.safetensors")
        arrays.write_bytes(arrays.read_bytes()[:-1] + b"x")
        assert standing(home, SCOPE, DOMAIN, "000007", 120.0) is None
