"""Experiments in the path of a decision: what may be declared, who is served what, and that it is logged exactly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bandits.config import parse_config
from bandits.errors import ConfigError, ExperimentError
from bandits.experiments.serving import HOLDBACK, Experiments, builtin
from bandits.explaining.replay import Policies, verify
from bandits.learners.baselines import ContextFree
from bandits.money.ledger import Ledger
from bandits.record.memory import MemoryRecord
from bandits.record.port import rows
from bandits.router import Router
from bandits.served import Serving, first_policy
from bandits.settings.experiments import shares_of
from bandits.types import Scope, Slot

SCOPE = Scope("acme", "main", "routing")
ARMS = ("cheap", "middle", "dear")
PRICES = (1e-4, 1e-3, 1e-2)
START, DAY = 1_800_000_000.0, 86_400.0  # 2027-01-15T08:00:00Z
USERS = [f"user-{i}" for i in range(2_000)]
TRIAL = {
    "start": "2027-01-15T08:00:00Z",
    "end": "2027-02-15T08:00:00Z",
    "variants": {"control": {"policy": "stable", "share": 0.5}, "cheap": {"policy": "fixed:cheap", "share": 0.5}},
}


def config(experiments=None, **changes):
    """A configuration of one domain with three arms and these experiments."""
    domain = {
        "features": "vector-2",
        "budget_usd_per_request": 2e-3,
        "floor": 0.06,
        "arms": [{"name": a, "model": a, "usd_per_request": p} for a, p in zip(ARMS, PRICES, strict=True)],
        "experiments": {} if experiments is None else experiments,
    }
    return parse_config({"tenants": {"acme": {}}, "domains": {"routing": domain | changes}}, "test")


def domain(experiments=None, **changes):
    """The domain of that configuration."""
    return config(experiments, **changes).domains["routing"]


def stable(known):
    """A policy of some night: mostly dear."""
    prices = np.array(PRICES)
    return Serving(ContextFree("mix", ARMS, "vector-2", np.array([0.5, 0.6, 0.9]), prices, 2e-3, known.floor), "000007")


def served(known, users=USERS[:200], time=START + 1.0, seed=0, **options):
    """One decision for each user through a real router, with the record that they are in."""
    record = MemoryRecord()
    router = Router(SCOPE, known, record, np.random.default_rng(seed), lambda: time, **options)
    router.swap(stable(known))
    return [router.decide(np.zeros(2), user) for user in users], record


class TestSettings:
    """What may be declared, and what is refused before anything runs."""

    @pytest.mark.parametrize(
        ("policy", "shares"),
        [
            ("stable", None),
            ("explore", None),
            ("fixed:middle", (0.0, 1.0, 0.0)),
            ("mix:cheap=0.7, middle=0.3", (0.7, 0.3, 0.0)),
        ],
    )
    def test_a_variant_plays_one_of_these(self, policy, shares):
        assert shares_of(policy, ARMS) == shares

    @pytest.mark.parametrize(
        "policy", ["", "best", "fixed:", "fixed:other", "mix:cheap", "mix:cheap=.5", "mix:cheap=2,middle=-1", "000007"]
    )
    def test_and_nothing_else(self, policy):
        with pytest.raises(ExperimentError, match="must be stable, explore, fixed:ARM or mix:"):
            shares_of(policy, ARMS)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"end": "2027-01-15T08:00:00Z"}, "end must be after start"),
            ({"start": "2027-01-15T08:00:00"}, "timezone"),
            ({"variants": {"control": {"policy": "stable", "share": 0.5}}}, "at least 2"),
            ({"variants": TRIAL["variants"] | {"other": {"policy": "explore", "share": 0.1}}}, "sum to 1"),
            ({"variants": {"A b": {"policy": "stable", "share": 0.5}, "c": {"policy": "stable", "share": 0.5}}}, "a-z"),
            ({"exposed": 0.5, "ramp": [{"at": "2027-01-20T00:00:00Z", "exposed": 0.2}]}, "never lower the share"),
            ({"ramp": [{"at": "2027-01-10T00:00:00Z", "exposed": 1.0}]}, "must come after start"),
            ({"alpha": 0.9}, "power must be above alpha"),
            ({"metric": "clicks"}, "unknown key 'metric'"),
        ],
    )
    def test_a_plan_that_makes_no_sense_is_refused_with_its_place(self, change, message):
        with pytest.raises(ConfigError, match=r"domains\.routing\.experiments\.trial") as caught:
            config({"trial": TRIAL | change})
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"experiments": {"holdback": TRIAL}}, "must not be called holdback"),
            ({"experiments": {"t": TRIAL}, "budget_usd_per_request": 1e-6, "floor": 0.5}, None),
            ({"holdback": {"start": TRIAL["start"], "policy": "stable"}}, "never learn"),
            ({"holdback": {"start": TRIAL["start"], "policy": "fixed:nobody"}}, "the arms are cheap, middle, dear"),
            ({"holdback": {"start": TRIAL["start"], "policy": "fixed:dear"}, "budget_usd_per_request": 1e-4}, "dear;"),
        ],
    )
    def test_what_the_domain_could_never_serve_is_refused(self, changes, message):
        """The cheapest arm always fits, so the second case is sound."""
        if message is None:
            assert config(**changes)
            return
        with pytest.raises(ConfigError, match=message):
            config(**changes)

    def test_a_ramp_says_what_share_takes_part_when(self):
        ramp = [{"at": "2027-01-16T08:00:00Z", "exposed": 0.2}, {"at": "2027-01-17T08:00:00Z", "exposed": 1.0}]
        one = domain({"trial": TRIAL | {"exposed": 0.05, "ramp": ramp}}).experiments["trial"]
        assert [(at, plan.exposed) for at, plan in one.steps("s")] == [
            (START, 0.05),
            (START + DAY, 0.2),
            (START + 2 * DAY, 1.0),
        ]


class TestServing:
    """Which policy serves whom."""

    def test_each_variant_is_served_by_its_policy_with_exact_probabilities(self):
        known = domain({"trial": TRIAL})
        decisions, _ = served(known)
        cheap = [d for d in decisions if d.policy == "fixed:cheap"]
        others = [d for d in decisions if d.policy == "000007"]
        assert len(cheap) + len(others) == 200
        assert 65 < len(cheap) < 135
        assert {d.slot for d in cheap} == {Slot.EXPERIMENT}
        assert {d.slot for d in others} == {Slot.STABLE}
        for d in cheap:
            assert d.probabilities.tolist() == pytest.approx([0.94 + 0.02, 0.02, 0.02])
            assert d.propensity == d.probabilities[d.action]
        assert any(d.arm != "cheap" for d in cheap)  # the floor is kept

    def test_a_mix_is_drawn_by_its_shares(self):
        mix = {"a": {"policy": "mix:cheap=0.7,middle=0.3", "share": 0.5}, "b": {"policy": "explore", "share": 0.5}}
        decisions, _ = served(domain({"trial": TRIAL | {"variants": mix}}))
        for d in decisions:
            if d.policy.startswith("mix:"):
                assert d.probabilities.tolist() == pytest.approx([0.94 * 0.7 + 0.02, 0.94 * 0.3 + 0.02, 0.02])
        explore = first_policy(domain()).policy.probabilities(np.zeros((1, 2)), np.ones((1, 3), bool))[0]
        found = [d for d in decisions if d.policy == "explore"]
        assert found
        assert (np.array([d.probabilities for d in found[:1]]) == explore).all()

    def test_every_decision_of_every_variant_replays_to_the_last_bit(self):
        """And is a fault as soon as the declared shares are others."""
        variants = {
            "a": {"policy": "mix:cheap=0.7,middle=0.3", "share": 0.4},
            "b": {"policy": "fixed:middle", "share": 0.3},
            "c": {"policy": "explore", "share": 0.3},
        }
        known = config({"trial": TRIAL | {"variants": variants}})
        _, record = served(known.domains["routing"])
        found = verify(record, Policies(known.domains, Path("none"), {}))
        assert (found.faults, found.replayed) == ([], 200)
        other = config(floor=0.07)
        assert len(verify(record, Policies(other.domains, Path("none"), {})).faults) == 200

    def test_it_is_the_same_in_every_process(self):
        """By the hash alone: not by the order of users, the seed of draws, or Python's own hash."""
        known = domain({"trial": TRIAL})
        code = (
            "import json, sys; sys.path.insert(0, '.'); from tests.experiments.test_path import *; "
            "print(json.dumps([d.policy for d in served(domain({'trial': TRIAL}), USERS[:50][::-1], seed=5)[0]]))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == [d.policy for d in served(known, USERS[:50])[0]][::-1]

    def test_nobody_takes_part_before_the_start_after_the_end_or_without_a_name(self):
        known = domain({"trial": TRIAL})
        for users, time in ((USERS, START - 1.0), (USERS, START + 31 * DAY), ([""] * 50, START + 1.0)):
            assert {d.policy for d in served(known, users[:50], time)[0]} == {"000007"}

    def test_decisions_without_a_user_are_assigned_one_by_one_where_the_unit_is_a_decision(self):
        decisions, _ = served(domain({"trial": TRIAL | {"unit": "decision"}}), [""] * 200)
        assert 65 < sum(d.policy == "fixed:cheap" for d in decisions) < 135
        experiments = Experiments("routing", domain({"trial": TRIAL | {"unit": "decision"}}))
        for d in decisions:  # and each row tells by itself what it was given
            chosen = experiments.policy_for("", d.id, d.time)
            assert (chosen.version if chosen else "000007") == d.policy

    def test_a_ramp_keeps_who_was_in_and_what_they_see(self):
        ramp = [{"at": "2027-01-16T08:00:00Z", "exposed": 0.3}, {"at": "2027-01-17T08:00:00Z", "exposed": 1.0}]
        experiments = Experiments("routing", domain({"trial": TRIAL | {"exposed": 0.05, "ramp": ramp}}))
        before: dict[str, str] = {}
        for step, share in enumerate((0.05, 0.3, 1.0)):
            time = START + step * DAY
            found = {u: a.variant for u in USERS if (a := experiments.assigned(u, "", time)) is not None}
            assert before.items() <= found.items()
            assert len(found) / len(USERS) == pytest.approx(share, abs=0.04)
            before = found

    def test_a_unit_is_in_one_experiment_only_and_a_younger_one_never_takes_it_away(self):
        """Not even while the older waits for the next step of its ramp; the younger still sees a fair draw."""
        ramp = [{"at": "2027-01-20T08:00:00Z", "exposed": 0.5}]
        older = TRIAL | {"exposed": 0.1, "ramp": ramp}
        younger = TRIAL | {"start": "2027-01-16T08:00:00Z"}
        experiments = Experiments("routing", domain({"a-younger": younger, "older": older}))
        at = {
            time: {u: experiments.assigned(u, "", time) for u in USERS} for time in (START + 2 * DAY, START + 6 * DAY)
        }
        early, late = at.values()
        moved = [u for u in USERS if early[u] and late[u] and early[u].experiment is not late[u].experiment]
        assert moved == []
        mine = [a.variant for a in late.values() if a and a.experiment.name == "a-younger"]
        assert len(mine) / len(USERS) == pytest.approx(0.5, abs=0.05)
        assert mine.count("cheap") / len(mine) == pytest.approx(0.5, abs=0.08)

    def test_an_experiment_that_has_ended_or_knows_no_unit_claims_nothing(self):
        """Its units are the younger one's; and decisions of nobody are assigned by whichever assigns decisions."""
        older = TRIAL | {"end": "2027-01-17T08:00:00Z"}
        younger = TRIAL | {"start": "2027-01-16T08:00:00Z", "unit": "decision"}
        experiments = Experiments("routing", domain({"older": older, "younger": younger}))
        for user, days, name in (("user-1", 1.5, "older"), ("user-1", 2.5, "younger"), ("", 1.5, "younger")):
            found = [experiments.assigned(user, f"id-{i}", START + days * DAY) for i in range(20)]
            assert {one.experiment.name for one in found if one} == {name}
            assert all(found)

    def test_who_is_held_back_sees_no_experiment_and_logs_the_slot(self):
        known = domain({"trial": TRIAL}, holdback={"start": TRIAL["start"], "share": 0.2, "policy": "fixed:middle"})
        decisions, _ = served(known, USERS[:600])
        back = {d.user for d in decisions if d.slot is Slot.HOLDBACK}
        assert len(back) == pytest.approx(120, abs=45)
        assert {d.policy for d in decisions if d.user in back} == {"fixed:middle"}
        assert {d.policy for d in decisions if d.user not in back} == {"000007", "fixed:cheap"}
        more = domain({"trial": TRIAL}, holdback={"start": TRIAL["start"], "share": 0.3, "policy": "fixed:middle"})
        assert back < {d.user for d in served(more, USERS[:600])[0] if d.slot is Slot.HOLDBACK}
        (held, *_) = Experiments("routing", known).running
        assert held.name == HOLDBACK

    def test_without_experiments_nothing_changes(self):
        """And what is not declared in the configuration is no policy of an experiment."""
        plain, declared = domain(), domain({"trial": TRIAL | {"exposed": 0.01}})
        one, _ = served(plain, USERS[:50])
        assert {d.policy for d in one} == {"000007"}
        assert {d.slot for d in one} == {Slot.STABLE}
        assert builtin("stable", declared) is None
        assert builtin("000007", declared) is None

    def test_a_cap_holds_what_the_dearest_arm_of_any_variant_costs(self, tmp_path):
        """Else a learned price below the catalogue's would shut an arm out of its own experiment."""
        caps = config({"trial": TRIAL | {"variants": _only("fixed:dear")}}).tenants["acme"].caps
        known = domain({"trial": TRIAL | {"variants": _only("fixed:dear")}})
        caps = caps.model_copy(update={"usd_per_day": 100.0})
        with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", {"acme": caps}) as ledger:
            record = MemoryRecord()
            router = Router(SCOPE, known, record, np.random.default_rng(0), lambda: START + 1.0, ledger=ledger)
            low = np.array([1e-4, 1e-3, 5e-3])
            router.swap(Serving(ContextFree("mix", ARMS, "vector-2", np.ones(3), low, 2e-3, known.floor), "000007"))
            assert "dear" not in router.decide(np.zeros(2), "user-1").excluded
        assert len(list(rows(record))) == 1


def _only(policy):
    """Two variants that play the same."""
    return {"one": {"policy": policy, "share": 0.5}, "same": {"policy": policy, "share": 0.5}}
