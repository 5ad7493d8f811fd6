"""Facts about a night: never worse than simple, never a change without evidence, always a report."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from bandits.config import ArmConfig, NightConfig, parse_config
from bandits.evaluation import dr
from bandits.home import Home
from bandits.learners.baselines import ContextFree
from bandits.learners.choice import LEARNERS
from bandits.night import changes, judging, night
from bandits.night import incumbent as incumbents
from bandits.night.incumbent import Incumbent
from bandits.night.judging import Trial
from bandits.night.night import DAY
from bandits.night.report import kept
from bandits.record.audit import Audit
from bandits.snapshots.keys import signing_key, trusted_keys
from bandits.snapshots.loading import list_versions, load
from bandits.training import candidates
from bandits.training.training import prepare
from bandits.types import Scope
from tests.logs import PRICES, domain, simulate, truth

SCOPE = Scope("acme", "main", "model_routing")
SETTINGS = NightConfig(trials=2, learners=("linear",))  # the choice among learners has its own tests
BUDGET = 1.5e-3
ARRAYS = ("times", "contexts", "actions", "propensities", "probabilities", "rewards", "costs")


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


def _trial(policy, fixed: float = -1.0, horizon: int = 3000) -> Trial:
    return Trial(policy, 1, fixed, horizon, 0.2, "000001")


def test_where_a_learned_policy_serves_the_choice_of_the_guard_goes_on_trial():
    """Whatever tonight's log says of it: the log chose it."""
    learned = night.learn(simulate(3000, 0), domain(BUDGET), SETTINGS)

    judged = night.judge(learned, SETTINGS, _incumbent(learned.trained.policy, created=-1.0), night=4)

    assert (judged.gate.outcome, judged.publish, judged.against, judged.night) == ("hold", None, "000007", 4)
    assert judged.reason.startswith("Snapshot 000007 stays: no candidate was on trial against it.")
    assert f"on trial, the {judged.guard.chosen}." in judged.reason


def test_an_incumbent_that_is_as_good_stays():
    """A policy that learned from another log of the same world: hold, nothing is published, the trial goes on."""
    learned = night.learn(simulate(3000, 0), domain(BUDGET), SETTINGS)
    one, other = (night.learn(simulate(3000, seed), domain(BUDGET), SETTINGS).trained.policy for seed in (5, 6))

    judged = night.judge(learned, SETTINGS, _incumbent(one, created=-1.0), trial=_trial(other))

    assert judged.gate.outcome == "hold"
    assert (judged.publish, judged.against) == (None, None)
    assert judged.reason.startswith("Snapshot 000007 stays")


def _against_the_cheap_arm(trial: Trial, log, **options) -> night.Judged:
    """A night in which an incumbent that plays the cheap arm whatever comes has that trial against it."""
    learned = night.learn(log, domain(BUDGET), SETTINGS)
    bad = ContextFree("fixed", log.arms, log.schema, np.array([1.0, 0, 0]), np.array([1e-4, 1.0, 1.0]), 1e-2, 0.02)
    return night.judge(learned, SETTINGS, _incumbent(bad, created=-1.0), trial=trial, **options)


def test_an_incumbent_that_is_clearly_worse_is_replaced_by_what_was_on_trial():
    """6,000 rounds prove it, of a learned candidate and of a simple one; what is published is what was fixed."""
    log = simulate(6000, 1, probabilities=(0.34, 0.33, 0.33))
    learned = night.learn(simulate(3000, 9), domain(BUDGET), SETTINGS).trained.policy
    middle = ContextFree("fixed", log.arms, log.schema, np.array([0, 1.0, 0]), PRICES, 1e-2, 0.02)
    for policy in (learned, middle):
        judged = _against_the_cheap_arm(_trial(policy, horizon=6000), log)

        assert judged.gate.outcome == "pass"
        assert judged.publish == "trial"
        assert judged.policies["trial"] is policy
        assert "Trial 000001 replaces snapshot 000007" in judged.reason


def test_a_candidate_that_is_clearly_worse_fails_and_the_next_goes_on_trial():
    """The same rounds, the other way round."""
    log = simulate(6000, 1, probabilities=(0.34, 0.33, 0.33))
    learned = night.learn(log, domain(BUDGET), SETTINGS)
    cheap = ContextFree("fixed", log.arms, log.schema, np.array([1.0, 0, 0]), np.array([1e-4, 1.0, 1.0]), 1e-2, 0.02)

    judged = night.judge(
        learned, SETTINGS, _incumbent(learned.trained.policy, created=-1.0), trial=_trial(cheap, horizon=6000)
    )

    assert (judged.gate.outcome, judged.publish, judged.against) == ("fail", None, "000007")


@pytest.mark.parametrize(("fixed", "now", "n"), [(2899.0, np.inf, 100), (-1.0, 86_400.0 + 99.0, 100)])
def test_only_settled_rounds_that_came_after_it_was_fixed_judge_a_trial(fixed, now, n):
    """100 rounds are not enough data, and not enough data is never a pass."""
    log = simulate(3000, 0)
    learned = night.learn(log, domain(BUDGET), SETTINGS)

    judged = _against_the_cheap_arm(_trial(learned.trained.policy, fixed=fixed), log, now=now)

    assert judged.gate.outcome == "hold"
    assert "not enough data" in judged.gate.reason
    assert judged.gate.n == n


def test_a_trial_whose_floor_was_not_kept_ends_and_the_next_begins():
    """The bound of its bets was fixed with that floor; what was logged below it must not stop the night."""
    log = simulate(3000, 0)
    trial = replace(_trial(ContextFree("fixed", log.arms, log.schema, np.eye(3)[2], PRICES, 1.0, 0.02)), least=0.9)

    judged = _against_the_cheap_arm(trial, log)

    assert (judged.gate.outcome, judged.publish, judged.against) == ("fail", None, "000007")
    assert "cannot be judged any more" in judged.reason


def test_an_incumbent_is_judged_over_the_arms_that_there_are_now(tmp_path):
    """An arm came since it was published: it stays the incumbent. Without an arm that it knows it is none."""
    home, key = Home(tmp_path), signing_key(tmp_path)
    first = night.learn(simulate(1500, 0), domain(BUDGET), SETTINGS)
    night.conclude("run-1", SCOPE, first, night.judge(first, SETTINGS), SETTINGS, home, key, 0.0)
    new = ArmConfig(name="new", model="new", usd_per_request=2e-3)
    config = domain(BUDGET).model_copy(update={"arms": (*domain(BUDGET).arms, new)})
    log = simulate(3000, 1)
    grown = replace(
        log, arms=(*log.arms, "new"), probabilities=np.column_stack([log.probabilities, np.zeros(len(log))])
    )

    incumbent = incumbents.serving_learned(home, SCOPE, config, 1.0)
    assert incumbent is not None
    learned = night.learn(grown, config, SETTINGS)
    judged = night.judge(learned, SETTINGS, incumbent, trial=_trial(learned.trained.policy))

    assert judged.gate.n == 3000
    strangers = config.model_copy(update={"arms": (new, new.model_copy(update={"name": "newer"}))})
    assert incumbents.serving_learned(home, SCOPE, strangers, 1.0) is None


def test_a_trial_is_registered_judged_and_published_over_three_nights(tmp_path):
    """First the guard alone decides; then a candidate goes on trial; rounds that come later prove it."""
    home, key = Home(tmp_path), signing_key(tmp_path)
    config = domain(BUDGET)
    first = night.learn(simulate(1500, 0, expected=lambda x: truth(-x)), config, SETTINGS)  # of a world that turned
    night.conclude("run-1", SCOPE, first, night.judge(first, SETTINGS), SETTINGS, home, key, 0.0)
    incumbent = incumbents.serving_learned(home, SCOPE, config, 1.0)
    assert incumbent is not None
    logs = [replace(log, times=log.times + at) for log, at in ((simulate(3000, 1), 1.0), (simulate(6000, 2), DAY))]
    later = {name: np.concatenate([getattr(log, name) for log in logs]) for name in ARRAYS}
    whole = replace(logs[0], ids=tuple(map(str, range(9000))), **later)

    reports = []
    for log, now in ((logs[0], DAY - 1.0), (whole, 10 * DAY)):
        learned = night.learn(log, config, SETTINGS)
        trial = judging.standing(home, SCOPE, config, incumbent.version, now)
        judged = night.judge(learned, SETTINGS, incumbent, 1, trial, now)
        reports.append(night.conclude("run", SCOPE, learned, judged, SETTINGS, home, key, now))

    assert [report.verdict for report in reports] == ["kept", "published"]
    assert reports[1].policy == "trial"
    assert incumbents.serving_learned(home, SCOPE, config, 10 * DAY).version == "000002"


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
    incumbent = incumbents.Incumbent(judged.policies["fixed"], "000001", 100.0)
    assert incumbents.nights_since(home, SCOPE, incumbent, 200.0) == 2
    assert incumbents.nights_since(home, SCOPE, incumbent, 100.0 + 5 * 86_400.0) == 6
    assert incumbents.nights_since(home, SCOPE, None, 200.0) == 1


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
        changes.note(home, config, key, 0.0)

    assert [row.action for row in Audit(home.audit_url).rows()] == ["configuration", "key", "arms", "configuration"]


def test_the_learned_policy_that_serves_is_found_and_a_simple_one_is_not(tmp_path):
    """The gate protects learned incumbents only; the guard may always replace a simple one."""
    home, now = Home(tmp_path), time.time()
    learned = night.learn(simulate(3000, 0), domain(BUDGET), SETTINGS)
    judged = night.judge(learned, SETTINGS)
    assert incumbents.serving_learned(home, SCOPE, domain(BUDGET), now) is None

    key = signing_key(tmp_path)
    night.conclude("run-1", SCOPE, learned, judged, SETTINGS, home, key, now)
    found = incumbents.serving_learned(home, SCOPE, domain(BUDGET), now)
    assert found is not None
    assert found.version == "000001"

    flat_world = night.learn(simulate(800, 3, expected=flat), domain(BUDGET), SETTINGS)
    simple = night.judge(flat_world, SETTINGS)
    assert simple.publish in ("mix", "fixed")
    night.conclude("run-2", SCOPE, flat_world, simple, SETTINGS, home, key, now)
    assert incumbents.serving_learned(home, SCOPE, domain(BUDGET), now) is None
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
