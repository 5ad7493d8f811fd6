"""Facts about a night: never worse than simple, never a change without evidence, always a report."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from bandits import candidates, night
from bandits.audit import Audit
from bandits.config import NightConfig, parse_config
from bandits.evaluation import dr
from bandits.keys import signing_key, trusted_keys
from bandits.learners.baselines import ContextFree
from bandits.learners.choice import LEARNERS
from bandits.night import Incumbent
from bandits.night_report import kept
from bandits.serving import Home
from bandits.snapshots import list_versions, load
from bandits.training import prepare
from bandits.types import Scope
from tests.logs import domain, simulate

SCOPE = Scope("acme", "main", "model_routing")
SETTINGS = NightConfig(trials=2, learners=("linear",))  # the choice among learners has its own tests
BUDGET = 1.5e-3


def flat(contexts: np.ndarray) -> np.ndarray:
    """A world without anything to learn from the context."""
    return np.tile([0.5, 0.7, 0.8], (len(contexts), 1))


def test_where_there_is_something_to_learn_the_candidate_is_published():
    """First night, no incumbent: the guard decides and the gate says that it was not asked."""
    judged = night.judge(night.learn(simulate(3000, 0), domain(BUDGET), SETTINGS), SETTINGS)

    assert judged.publish == "candidate"
    assert judged.gate.outcome == "hold"
    assert "no learned policy is serving" in judged.gate.reason


@pytest.mark.parametrize("learners", [("linear",), pytest.param(LEARNERS, marks=pytest.mark.slow)])
def test_where_there_is_nothing_to_learn_a_simple_policy_is_published(learners, monkeypatch):
    """Over 12 worlds without a signal the guard lets few learned policies through, and no more of the best of four."""
    monkeypatch.setattr(candidates, "WAVES", 16)
    settings = NightConfig(trials=1, learners=learners)
    published = [
        night.judge(night.learn(simulate(800, seed, expected=flat), domain(BUDGET), settings), settings).publish
        for seed in range(12)
    ]

    assert published.count("candidate") <= 4


def test_every_policy_is_within_the_budget():
    """By the price model, floor included."""
    judged = night.judge(night.learn(simulate(3000, 0), domain(BUDGET), SETTINGS), SETTINGS)

    assert set(judged.costs) == {"candidate", "mix", "fixed"}
    assert all(cost <= BUDGET for cost in judged.costs.values())


def _incumbent(policy, created: float) -> Incumbent:
    return Incumbent(policy, "000007", created)


def test_simple_policies_are_judged_on_rounds_that_did_not_choose_them():
    """Of three equal arms the best on paper looks better than it is; judged on other rounds it does not."""
    found = []
    for seed in range(40):
        log = simulate(300, seed, expected=lambda x: np.full((len(x), 3), 0.5), noise=0.4)
        prepared = prepare(log, domain(1.0), 200)
        q_hat = np.full((300, 3), 0.5)
        fixed = night._simple(prepared, q_hat, np.ones(300, np.bool_))["fixed"]
        flattered = fixed.probabilities(log.contexts, np.ones((300, 3), np.bool_))
        honest = night._shadows(prepared, q_hat)["fixed"]
        found.append([dr.scores(log, p, q_hat).mean() - 0.5 for p in (flattered, honest)])

    flattery, honesty = np.mean(found, axis=0)
    error = np.std(found, axis=0) / np.sqrt(40)
    assert flattery > 4.0 * error[0]
    assert abs(honesty) < 3.0 * error[1]


def test_an_incumbent_that_is_as_good_stays():
    """A policy that learned from another log of the same world: hold, and nothing is published."""
    serving = night.learn(simulate(3000, 5), domain(BUDGET), SETTINGS).trained.policy
    learned = night.learn(simulate(3000, 0), domain(BUDGET), SETTINGS)

    judged = night.judge(learned, SETTINGS, _incumbent(serving, created=-1.0))

    assert judged.gate.outcome == "hold"
    assert judged.publish is None
    assert judged.reason.startswith("Snapshot 000007 stays")


def test_an_incumbent_that_is_clearly_worse_is_replaced():
    """It plays the cheap arm whatever comes; 6,000 rounds prove that tonight's choice is better, learned or simple."""
    for budget, chosen in ((BUDGET, "candidate"), (1.0, "fixed")):  # with all the money, always the dear arm
        log = simulate(6000, 1, probabilities=(0.34, 0.33, 0.33))
        learned = night.learn(log, domain(budget), SETTINGS)
        cheap = np.array([1.0, 0.0, 0.0])
        bad = ContextFree("fixed", log.arms, log.schema, cheap, np.array([1e-4, 1.0, 1.0]), 1e-2, 0.02)

        judged = night.judge(learned, SETTINGS, _incumbent(bad, created=-1.0))

        assert judged.gate.outcome == "pass"
        assert judged.publish == chosen


def test_only_what_came_after_the_incumbent_judges_it():
    """It learned from the rest. 100 new rounds are not enough data, and not enough data is never a pass."""
    log = simulate(3000, 0)
    learned = night.learn(log, domain(BUDGET), SETTINGS)

    judged = night.judge(learned, SETTINGS, _incumbent(learned.trained.policy, created=2899.0))

    assert judged.gate.outcome == "hold"
    assert "not enough data" in judged.gate.reason
    assert judged.gate.n == 100


def test_what_is_published_is_signed_with_its_evidence(tmp_path):
    """The snapshot names the run, the log's position, the verdicts; the report and it agree."""
    home = Home(tmp_path)
    learned = night.learn(simulate(1500, 0), domain(BUDGET), SETTINGS)
    judged = night.judge(learned, SETTINGS)
    now = time.time()

    report = night.conclude("run-1", SCOPE, learned, judged, SETTINGS, home, signing_key(tmp_path), now)

    manifest = load(home.snapshots, SCOPE, trusted=trusted_keys(tmp_path), now=now).manifest
    assert report.version == manifest.version == "000001"
    assert manifest.position == 3000
    assert manifest.evidence["run_id"] == "run-1"
    assert manifest.evidence["guard"]["chosen"] == report.policy
    json.dumps(report.detail, allow_nan=False)


def test_a_snapshot_signs_the_row_of_the_audit_that_says_why_it_was_published(tmp_path):
    """The chain's last row is the promotion; a night that keeps is a row too; both count for the gate."""
    home, key = Home(tmp_path), signing_key(tmp_path)
    learned = night.learn(simulate(1500, 0), domain(BUDGET), SETTINGS)
    judged = night.judge(learned, SETTINGS)
    night.conclude("run-1", SCOPE, learned, judged, SETTINGS, home, key, 100.0)
    manifest = load(home.snapshots, SCOPE, trusted=trusted_keys(tmp_path), now=100.0).manifest
    for run, scope in (("run-2", SCOPE), ("run-3", Scope("acme", "main", "content_analysis"))):
        night.keep(run, scope, simulate(10, 0), home, 200.0, "too little data")

    rows = Audit(home.audit_url).rows()

    assert [(row.action, row.content["evidence"]["run_id"]) for row in rows] == [
        ("promotion", "run-1"),
        ("kept", "run-2"),
        ("kept", "run-3"),
    ]
    assert manifest.evidence["audit"] == {"sequence": 1, "link": rows[0].link}
    assert rows[0].content["why"] == judged.reason
    incumbent = night.Incumbent(judged.policies["fixed"], "000001", 100.0)
    assert night.nights_since(home, SCOPE, incumbent, 200.0) == 2
    assert night.nights_since(home, SCOPE, incumbent, 100.0 + 5 * 86_400.0) == 6
    assert night.nights_since(home, SCOPE, None, 200.0) == 1


def test_a_changed_configuration_or_key_is_sealed_once(tmp_path):
    """The first look seals what there is; the next one only what became different."""
    home, key = Home(tmp_path), signing_key(tmp_path)
    arms = [{"name": name, "model": name, "usd_per_request": 1e-4} for name in ("a", "b")]
    configs = [
        parse_config(
            {"domains": {"own": {"arms": arms, "budget_usd_per_request": usd}}, "tenants": {"acme": {}}}, "test"
        )
        for usd in (1e-3, 2e-3)
    ]
    for config in (configs[0], configs[0], configs[1], configs[1]):
        night.note_changes(home, config, key, 0.0)

    assert [row.action for row in Audit(home.audit_url).rows()] == ["configuration", "key", "configuration"]


def test_the_learned_policy_that_serves_is_found_and_a_simple_one_is_not(tmp_path):
    """The gate protects learned incumbents only; the guard may always replace a simple one."""
    home, now = Home(tmp_path), time.time()
    learned = night.learn(simulate(3000, 0), domain(BUDGET), SETTINGS)
    judged = night.judge(learned, SETTINGS)
    assert night.serving_learned(home, SCOPE, now) is None

    key = signing_key(tmp_path)
    night.conclude("run-1", SCOPE, learned, judged, SETTINGS, home, key, now)
    found = night.serving_learned(home, SCOPE, now)
    assert found is not None
    assert found.version == "000001"

    flat_world = night.learn(simulate(800, 3, expected=flat), domain(BUDGET), SETTINGS)
    simple = night.judge(flat_world, SETTINGS)
    assert simple.publish in ("mix", "fixed")
    night.conclude("run-2", SCOPE, flat_world, simple, SETTINGS, home, key, now)
    assert night.serving_learned(home, SCOPE, now) is None
    assert [one.fault for one in list_versions(home.snapshots, SCOPE, trusted=trusted_keys(tmp_path), now=now)] == [
        None,
        None,
    ]


def test_the_report_fits_a_terminal_and_says_what_happened():
    """Both kinds: a night that learned, and one that had nothing to learn from."""
    report = kept("run-0", SCOPE, simulate(10, 0), 0.0, "training needs 200 rounds, but the log has 10.")

    text = report.render()

    assert "Kept" in text
    assert "the log has 10" in text
    assert "run-0" in text


@pytest.mark.parametrize("seed", [0, 1])
def test_a_night_is_a_pure_function_of_the_log(seed):
    """Same log, same verdict, same numbers."""
    log = simulate(1000, seed)
    one, two = (night.judge(night.learn(log, domain(BUDGET), SETTINGS), SETTINGS) for _ in range(2))

    assert one.guard == two.guard
    assert one.rows == two.rows
