"""`pilotage evaluate`: a policy on the contexts that were logged, against another, with an honest verdict."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from bandits.config import NightConfig
from bandits.errors import EvidenceError, NotEnoughDataError, SnapshotError
from bandits.home import Home
from bandits.learners.baselines import ContextFree
from bandits.night import incumbent as incumbents
from bandits.night import night
from bandits.snapshots.keys import signing_key
from bandits.snapshots.publishing import publish
from bandits.types import LoggedFeedback, Scope
from bandits.warehouse.loading import read_runs
from bandits.what_if import evaluate as module
from bandits.what_if.counterfactual import Models
from bandits.what_if.evaluate import EVALUATED, SERVED, evaluate, judge, on_contexts, save
from bandits.what_if.table import render
from tests.logs import ARMS, PRICES, domain, simulate, truth

SCOPE = Scope("acme", "main", "model_routing")
BUDGET = 1.5e-3
NOW = 10_000.0


def fixed(arm, floor=0.0):
    """Always this arm, with what the floor leaves."""
    return ContextFree("fixed", ARMS, "vector-2", np.eye(3)[ARMS.index(arm)], PRICES, 1.0, floor)


def models(log: LoggedFeedback) -> Models:
    """The true expectation, and catalogue prices."""
    return Models(truth(log.contexts), np.tile(PRICES, (len(log), 1)))


def judged(log, policies, **changes):
    """Judge with what most tests have in common."""
    settings = {"left_out": 0, "now": NOW, "alpha": 0.05} | changes
    return judge(SCOPE, log, models(log), policies, **settings)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A home whose log is a simulated one of 2,400 rounds, and a snapshot learned from the first 1,200."""
    log, home = simulate(2400, 0), Home(tmp_path)
    learned = night.learn(log.where(log.times < 1200.0), domain(BUDGET), NightConfig(trials=1))
    monkeypatch.setattr(module, "read_feedback", lambda path, scope, config, now: log)
    publish(
        home.snapshots,
        SCOPE,
        learned.trained.policy.freeze(),
        position=1,
        parent=None,
        evidence={},
        created=1199.5,
        expires=1e6,
        key=signing_key(home.root),
    )
    return home


class TestJudge:
    """Values, costs, agreement and the paired advantage."""

    def test_values_are_those_of_drawing_by_the_policy(self):
        log = simulate(3000, 1)
        found = judged(log, {"dear": fixed("dear")})
        (row,) = [row for row in found.rows if (row.policy, row.estimator) == ("dear", "dr")]
        assert row.verdict == "ok"
        earned = 0.85 - 0.1 * 0.0293  # E max(0, Z - 1.5) = .0293: rewards above 1 are cut
        assert abs(row.value - earned) < 4.0 * row.standard_error
        assert abs(row.value - truth(log.contexts)[:, 1].mean()) > 4.0 * row.standard_error  # the negative control
        assert found.costs["dear"] == pytest.approx(1e-2)

    def test_what_served_is_the_baseline_unless_one_is_named(self):
        found = judged(simulate(3000, 1), {"dear": fixed("dear")})
        assert (found.baseline, found.verdict) == (SERVED, "ok")
        assert found.interval.low > 0.0
        assert found.conclusion.startswith("dear is better than served: its advantage is between +")

    def test_a_worse_policy_is_said_to_be_worse_and_an_equal_one_not_to_be_told_apart(self):
        log = simulate(3000, 1)
        worse = judged(log, {"cheap": fixed("cheap"), "dear": fixed("dear")})
        assert worse.conclusion.startswith("cheap is worse than dear")
        equal = judged(log, {"one": fixed("dear"), "other": fixed("dear")})
        assert equal.conclusion.startswith("The log cannot tell one from other")

    def test_agreement_is_the_share_of_logged_actions_that_the_policy_would_draw(self):
        log = simulate(1000, 2)
        found = judged(log, {"dear": fixed("dear"), "cheap": fixed("cheap", floor=0.3)})
        assert found.agreement["dear"] == pytest.approx((log.actions == 2).mean())
        assert found.agreement["cheap"] == pytest.approx(np.where(log.actions == 0, 0.8, 0.1).mean())
        assert found.agreement[SERVED] == pytest.approx(log.propensities.mean())

    def test_too_few_rounds_are_no_ground_for_a_verdict(self):
        for n in (0, 1, 150):
            found = judged(simulate(n, 3), {"dear": fixed("dear")})
            assert found.verdict == "not enough data"
            assert found.conclusion == "Cannot say whether dear is better than served: not enough data."

    def test_an_arm_that_was_allowed_only_now_and_then_is_no_support(self):
        log = simulate(1000, 4)
        probabilities, dear = log.probabilities.copy(), log.actions == 2
        half = (np.arange(1000) % 2 == 0) & ~dear
        probabilities[half] = [0.5, 0.5, 0.0]
        propensities = probabilities[np.arange(1000), log.actions]
        found = judged(replace(log, probabilities=probabilities, propensities=propensities), {"dear": fixed("dear")})
        assert found.verdict == "no support"
        assert "cannot say" in render(found)

    def test_an_arm_that_is_never_allowed_is_not_played(self):
        log = simulate(900, 5, probabilities=(0.5, 0.5, 0.0))
        assert (on_contexts(log, fixed("dear", floor=0.1))[:, 2] == 0.0).all()

    @pytest.mark.parametrize("change", [{"arms": ("a", "b", "c")}, {"schema": "vector-3"}])
    def test_another_configuration_s_policy_is_refused(self, change):
        with pytest.raises(EvidenceError, match="can be judged only by a log of its own"):
            judged(simulate(300, 6), {"other": replace(fixed("dear"), **change)})


class TestEvaluate:
    """From snapshots and warehouse."""

    def test_a_snapshot_is_judged_by_rounds_that_it_did_not_learn_from(self, place):
        found = evaluate(place, SCOPE, domain(BUDGET), "latest", "fixed", now=NOW)
        assert (found.policy, found.baseline) == ("000001", "fixed")
        assert (found.rounds, found.left_out) == (1200, 1200)
        everything = evaluate(place, SCOPE, domain(BUDGET), "000001", seen=True, now=NOW)
        assert (everything.rounds, everything.left_out, everything.baseline) == (2400, 0, SERVED)

    def test_simple_policies_stay_within_the_budget(self, place):
        found = evaluate(place, SCOPE, domain(BUDGET), "mix", "fixed", now=NOW)
        assert max(found.costs["mix"], found.costs["fixed"]) <= BUDGET * 1.01

    def test_rounds_out_of_order_are_put_in_order(self, place, monkeypatch):
        there = evaluate(place, SCOPE, domain(BUDGET), "000001", now=NOW)
        log = simulate(2400, 0)
        order = np.concatenate((np.arange(0, 2400, 2), np.arange(1, 2400, 2)))
        columns = ("times", "contexts", "actions", "propensities", "probabilities", "rewards", "costs")
        shuffled = replace(
            log, ids=tuple(log.ids[i] for i in order), **{name: getattr(log, name)[order] for name in columns}
        )
        monkeypatch.setattr(module, "read_feedback", lambda path, scope, config, now: shuffled)
        back = evaluate(place, SCOPE, domain(BUDGET), "000001", now=NOW)
        assert (there.rows, there.interval, there.agreement) == (back.rows, back.interval, back.agreement)

    def test_what_cannot_be_judged_says_so(self, place, monkeypatch):
        with pytest.raises(SnapshotError):
            evaluate(place, SCOPE, domain(BUDGET), "000009", now=NOW)
        monkeypatch.setattr(module, "read_feedback", lambda path, scope, config, now: simulate(150, 0))
        with pytest.raises(NotEnoughDataError, match="200 rounds"):
            evaluate(place, SCOPE, domain(BUDGET), "000001", now=NOW)

    def test_it_is_kept_in_the_warehouse_and_is_no_night(self, place):
        found = evaluate(place, SCOPE, domain(BUDGET), "000001", "mix", now=NOW)
        save(found, place.warehouse)
        (run,) = read_runs(place.warehouse, SCOPE)
        assert (run["id"], run["verdict"], run["time"]) == (found.id, EVALUATED, NOW)
        assert run["report"]["conclusion"] == found.conclusion
        assert len(run["report"]["rows"]) == 18
        serving = incumbents.Incumbent(fixed("dear"), "000001", NOW - 1.0)
        assert incumbents.nights_since(place, SCOPE, serving, NOW) == 1

    def test_numbers_that_are_not_known_are_null_in_json(self):
        found = judged(simulate(0, 3), {"dear": fixed("dear")})
        assert json.loads(json.dumps(found.run()["report"], allow_nan=False))["advantage"] is None


class TestTable:
    """For a person, on a terminal."""

    def test_it_fits_80_columns_and_shows_each_policy_by_each_estimator(self):
        found = judged(simulate(3000, 1), {"a name far too long for any table": fixed("dear"), "cheap": fixed("cheap")})
        lines = render(found).splitlines()
        assert max(map(len, lines)) <= 80
        assert (
            sum(any(f" {name} " in line for name in ("dr", "sndr", "switch", "snips", "dm", "ips")) for line in lines)
            == 18
        )
        assert any("a name far …" in line for line in lines)
        assert f"Run {found.id}." in lines[-1]

    def test_a_value_without_evidence_is_not_shown(self):
        text = render(judged(simulate(150, 3), {"dear": fixed("dear")}))
        assert text.count("cannot say") == 12  # of both policies, by six estimators
        assert "not enough data" in text
