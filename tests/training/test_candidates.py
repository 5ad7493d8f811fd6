"""Facts about learners that compete for a scope: who may, at which price, who wins, and that the winner serves."""

from __future__ import annotations

import json
from functools import lru_cache

import numpy as np
import pytest

from bandits.config import NightConfig
from bandits.explaining.replay import Policies, verify
from bandits.explaining.why import explain
from bandits.home import Home
from bandits.learners.choice import LEARNERS
from bandits.learners.doubly_robust import Parameters
from bandits.learners.frozen import thaw
from bandits.night import night
from bandits.record.memory import MemoryRecord
from bandits.router import Router
from bandits.served import Serving
from bandits.snapshots.keys import signing_key, trusted_keys
from bandits.snapshots.loading import load
from bandits.training import candidates
from bandits.training.candidates import Contest, compete
from bandits.training.training import prepare, train
from bandits.types import Scope
from bandits.what_if.evaluate import on_contexts
from tests.logs import PRICES, domain, simulate, truth

SCOPE = Scope("acme", "main", "model_routing")
BUDGET = 1.5e-3
RICH = 2e-2  # every arm is affordable
FRESH = np.random.default_rng(99).normal(size=(4000, 2)).astype(np.float32)


def exclusive(contexts: np.ndarray) -> np.ndarray:
    """`middle` is right where the signs of the two features differ, `dear` where they agree; `cheap` is so-so."""
    agree = np.asarray(contexts[:, 0] * contexts[:, 1] > 0.0)
    return np.stack([np.full(len(agree), 0.5), np.where(agree, 0.2, 0.9), np.where(agree, 0.9, 0.2)], axis=1)


def straight(contexts: np.ndarray) -> np.ndarray:
    """A world of three lines."""
    x = np.asarray(contexts, dtype=np.float64)
    return 0.5 + 0.12 * np.stack([x[:, 1], x[:, 0], 0.5 - 0.5 * x[:, 0]], axis=1)


@pytest.fixture(autouse=True)
def few_waves(monkeypatch):
    """Enough for two features, and quick."""
    monkeypatch.setattr(candidates, "WAVES", 32)


@lru_cache
def contest(budget: float, world=exclusive, learners: tuple[str, ...] = LEARNERS, **settings) -> Contest:
    log = simulate(1500, 3, expected=world, probabilities=(0.34, 0.33, 0.33))
    prepared = prepare(log, domain(budget, **settings), 200)
    return compete(prepared, train(prepared, Parameters()), learners)


def earned(policy, expected) -> tuple[float, float]:
    """True mean reward and price on fresh contexts."""
    p = policy.probabilities(FRESH, np.ones((len(FRESH), 3), dtype=bool))
    return float((p * expected(FRESH)).sum(axis=1).mean()), float((p @ PRICES).mean())


def test_where_the_world_bends_a_learner_that_bends_is_chosen_and_earns_it():
    """On an exclusive or the linear learner is no better than one arm; values and reason say who is."""
    found = contest(RICH)

    assert found.choice.learner in ("direct_method", "doubly_robust", "offset_tree")
    assert f"{found.choice.learner} gains more than a standard error on" in found.choice.reason
    assert earned(found.candidates["linear"].policy, exclusive)[0] < 0.62
    for learner in ("direct_method", "doubly_robust", "offset_tree"):
        reward, _ = earned(found.candidates[learner].policy, exclusive)
        assert reward > 0.8
        assert found.choice.values[learner] == pytest.approx(reward, abs=0.05)  # what the log promised


def test_where_the_world_is_straight_the_simplest_learner_stays():
    """Others have to beat it by more than a standard error."""
    assert contest(BUDGET, straight).choice.learner == "linear"


def test_every_candidate_spends_what_the_budget_allows():
    """The price of a dollar is solved for each; by the true prices each is near the budget."""
    for learner, candidate in contest(BUDGET, truth, ("linear", "direct_method", "doubly_robust")).candidates.items():
        assert earned(candidate.policy, truth)[1] == pytest.approx(0.97 * BUDGET, rel=0.12), learner


def test_a_tree_competes_only_where_every_arm_is_affordable():
    """It cannot weigh money; where `dear` is above the budget it is left out, with the reason."""
    assert "offset_tree" in contest(RICH).candidates
    assert "cannot weigh money" in contest(BUDGET).left_out["offset_tree"]
    assert "offset_tree" not in contest(BUDGET).candidates


@pytest.mark.parametrize(
    ("settings", "most", "why"),
    [({}, 1000, "at most 1000 rounds, and the log has 1500"), ({"half_life_days": 7.0}, 20_000, "half_life_days")],
)
def test_only_the_linear_learner_is_tried_where_the_others_cannot_be(monkeypatch, settings, most, why):
    """A log too large for memory, or one whose days are to fade; the reason says so."""
    monkeypatch.setattr(candidates, "MOST_ROUNDS", most)
    found = contest.__wrapped__(RICH, **settings)

    assert list(found.candidates) == ["linear"]
    assert set(found.left_out) == {"direct_method", "doubly_robust", "offset_tree"}
    assert all(why in reason for reason in found.left_out.values())
    assert found.choice.reason == "linear alone was tried"


def test_a_small_log_is_no_obstacle():
    """Forty rounds of which two folds may lack an arm: whoever is chosen is so by finite numbers."""
    log = simulate(40, 0, probabilities=(0.5, 0.5))
    config = domain(RICH).model_copy(update={"arms": domain(RICH).arms[:2]})
    prepared = prepare(log, config, 20)

    found = compete(prepared, train(prepared, Parameters()), LEARNERS)

    assert set(found.candidates) == set(LEARNERS)
    assert np.isfinite(list(found.choice.values.values())).all()


def test_a_learner_that_is_not_wanted_is_not_tried():
    """Nor missed."""
    found = contest(RICH, learners=("linear", "offset_tree"))

    assert list(found.candidates) == ["linear", "offset_tree"]
    assert found.left_out == {}


def test_the_guard_sees_choices_that_were_made_without_the_round():
    """A tree that owes its lead to fold 0 plays everywhere but there: the others would not have chosen it."""
    folds = np.arange(100).astype(np.uint8) % 5
    lucky = np.where(folds == 0, 10.0, np.where(np.arange(100) < 50, 0.4, 0.6))
    linear, tree = (candidates.Candidate(None, np.full((100, 3), share), {}) for share in (0.0, 1.0))

    found = candidates.crossed(
        {"linear": linear, "offset_tree": tree}, {"linear": np.full(100, 0.5), "offset_tree": lucky}, folds
    )

    assert (found[:, 0] == (folds != 0)).all()


def test_what_the_guard_sees_of_a_clear_winner_is_the_winner():
    """No fold doubts it."""
    found = contest(RICH, learners=("linear", "offset_tree"))

    assert found.choice.learner == "offset_tree"
    assert (found.action_probs == found.candidates["offset_tree"].action_probs).all()
    assert not (found.action_probs == found.candidates["linear"].action_probs).all()


def test_what_the_log_cannot_prove_is_said():
    """Effective sample size, largest weight, share and bias of clipping, for each candidate, as plain JSON."""
    detail = json.loads(json.dumps(contest(RICH).detail(), allow_nan=False))

    assert detail["settings"].keys() == detail["values"].keys() == set(LEARNERS)
    for settings in detail["settings"].values():
        assert 100.0 < settings["ess"] < 1500.0
        assert 1.0 < settings["largest"] <= 3.1
        assert settings["clipped"] == settings["bias"] == 0.0
    assert detail["settings"]["doubly_robust"]["link"] in ("independent", "competing")


@pytest.mark.parametrize("learner", LEARNERS)
def test_whoever_is_chosen_serves_replays_is_evaluated_and_explained(tmp_path, learner):
    """From the night to `why`: signed with the choice, drawn from, computed again to the last bit."""
    simplest = learner == "linear"
    config, home = domain(BUDGET if simplest else RICH), Home(tmp_path)
    settings = NightConfig(trials=1, learners=("linear", learner)[simplest:])
    log = simulate(1500, 3, expected=truth if simplest else exclusive, probabilities=(0.34, 0.33, 0.33))
    learned = night.learn(log, config, settings)
    judged = night.judge(learned, settings)
    report = night.conclude("run-1", SCOPE, learned, judged, settings, home, signing_key(tmp_path), 50.0)
    choice = report.detail["choice"]

    assert (judged.publish, choice["learner"]) == ("candidate", learner)
    assert f"It was learned by {learner}: " in judged.reason
    assert f"- Learner: {learner} (" in report.render()
    published = load(home.snapshots, SCOPE, trusted=trusted_keys(tmp_path), now=60.0)
    assert published.manifest.evidence["choice"] == choice
    with MemoryRecord() as record:
        router = Router(SCOPE, config, record, np.random.default_rng(0), lambda: 100.0)
        router.swap(Serving(thaw(published.frozen), published.manifest.version))
        decisions = [router.decide(context) for context in FRESH[:20]]
        found = verify(record, Policies({"model_routing": config}, home.snapshots, trusted_keys(tmp_path)))
    story = explain(decisions[0], [], config, home.snapshots, trusted_keys(tmp_path), 200.0, record)
    assert (found.replayed, found.ok) == (20, True)
    assert np.abs(on_contexts(log, router.serving.policy).sum(axis=1) - 1.0).max() < 1e-12
    assert story.replays
    assert f"learned by {learner}: " in story.render()
    assert story.as_dict()["learner"] == choice
    assert max(map(len, story.render().splitlines())) <= 80
    assert (story.rules is not None) == ("    if " in story.render()) == (learner == "offset_tree")
    assert (story.arms[0].q_hat is None) == (learner == "offset_tree")
    assert [arm.sigma is not None for arm in story.arms] == [learner == "linear"] * 3


def test_a_decision_of_a_simple_policy_has_no_learner(tmp_path):
    """Nor has one whose snapshot is gone."""
    config = domain(BUDGET)
    with MemoryRecord() as record:
        decision = Router(SCOPE, config, record, np.random.default_rng(0), lambda: 100.0).decide(FRESH[0])
    story = explain(decision, [], config, tmp_path, {}, 200.0, record)

    assert (story.learner, story.rules) == (None, None)
    assert "learned by" not in story.render()
