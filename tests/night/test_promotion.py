"""Facts about validation: a sound candidate passes every check, and each check has a candidate that fails it alone."""

from __future__ import annotations

import shutil
import time
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest

from bandits.config import NightConfig
from bandits.home import Home
from bandits.learners.baselines import ContextFree
from bandits.learners.doubly_robust import Parameters
from bandits.night import night, promotion
from bandits.night.promotion import CHECKS, Candidate, failures, validate
from bandits.snapshots.keys import SigningKey, signing_key
from bandits.snapshots.loading import latest
from bandits.training.training import prepare, train
from bandits.types import Scope
from tests.logs import domain, simulate

SCOPE = Scope("acme", "main", "model_routing")
DOMAIN = domain(1.5e-3)
SETTINGS = NightConfig(trials=1, learners=("linear",))
LOG = simulate(400, 0)
POLICY = train(prepare(LOG, DOMAIN, 200), Parameters()).policy


@pytest.fixture
def sound(tmp_path) -> Candidate:
    """A learned policy, as a night would publish it."""
    home = Home(tmp_path / "home")
    return Candidate(POLICY.freeze(), SCOPE, DOMAIN, home, signing_key(home.root), LOG.contexts)


def failed(candidate: Candidate) -> set[str]:
    """Names of the checks that the candidate fails."""
    return {check.name for check in validate(candidate) if not check.ok}


def with_arrays(candidate: Candidate, **arrays: np.ndarray) -> Candidate:
    """The candidate with other arrays."""
    return replace(candidate, frozen=replace(candidate.frozen, arrays={**candidate.frozen.arrays, **arrays}))


def test_a_sound_candidate_passes_and_nothing_is_left_behind(sound):
    """Seven checks, one line each; the home holds what it held."""
    before = sorted(path.name for path in sound.home.root.iterdir())
    checks = validate(sound)

    assert [check.name for check in checks] == list(CHECKS)
    assert failures(checks) == ""
    assert sorted(path.name for path in sound.home.root.iterdir()) == before
    assert all(check.render().startswith("- ok ") for check in checks)


def test_features_of_another_domain_fail_the_schema(sound):
    """And what is made for them alone."""
    other = replace(sound, domain=DOMAIN.model_copy(update={"features": "vector-3"}))

    assert "schema" in failed(other)


def test_arms_that_are_all_strangers_fail_the_schema(sound):
    """One arm in common would do: the others are on trial."""
    assert failed(replace(sound, frozen=replace(sound.frozen, arms=("x", "y", "z")))) == {"schema"}


def test_a_number_that_is_not_finite_fails_to_load(sound):
    """No snapshot may hold it."""
    weights = sound.frozen.arrays["weights"].copy()
    weights[0, 0] = np.nan

    assert "load" in failed(with_arrays(sound, weights=weights))


def test_arrays_that_are_missing_fail_the_probes(sound):
    """It can be signed and read, and nobody could serve it."""
    arrays = {name: array for name, array in sound.frozen.arrays.items() if name != "weights"}

    found = failed(replace(sound, frozen=replace(sound.frozen, arrays=arrays)))
    assert "probes" in found
    assert "load" not in found


def test_a_floor_below_the_domains_fails(sound):
    """The domain's floor is its bound of safety."""
    money = sound.frozen.arrays["money"] * np.array([1.0, 0.1])

    assert failed(with_arrays(sound, money=money)) == {"floor"}


def test_a_key_that_nobody_trusts_fails(sound):
    """Its snapshot would be refused by every reader."""
    assert "keys" in failed(replace(sound, key=SigningKey(b"k" * 32)))


def test_a_slow_decision_fails(sound, monkeypatch):
    """A clock that gains a second at each look."""
    ticks = iter(range(1_000_000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))

    assert failed(sound) == {"latency"}


def test_a_full_disk_fails(sound, monkeypatch):
    """As the system tells it."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))

    assert failed(sound) == {"disk"}


def test_what_fails_a_check_is_not_published_and_the_report_says_why(tmp_path, monkeypatch):
    """The night ends; what served serves on; a row of the audit."""
    home = Home(tmp_path)
    learned = night.learn(LOG, DOMAIN, SETTINGS)
    judged = night.judge(learned, SETTINGS)
    bad = ContextFree("fixed", LOG.arms, LOG.schema, np.array([0, 1.0, 0]), np.full(3, 1e-4), 1e-2, 0.0001)
    judged = replace(judged, publish="fixed", policies={**judged.policies, "fixed": bad})

    report = night.conclude("run", SCOPE, learned, judged, SETTINGS, home, signing_key(tmp_path), 0.0)

    assert (report.verdict, latest(home.snapshots, SCOPE)) == ("failed", None)
    assert "floor: no arm may fall below" in report.reason
    assert "FAILED" in report.render()


def test_the_card_says_what_changes_why_and_what_to_expect(sound):
    """For a person who has to say yes or no."""
    effect = {"advantage": 0.02, "low": 0.01, "high": 0.03, "over": "the better simple policy", "n": 400}
    tuning = {"parameters": {"own": 3000.0}, "floor": None}
    text = promotion.card(SCOPE, "000006", "candidate", "It gains.", effect, tuning, validate(sound), "| a |")

    assert "candidate replaces snapshot 000006" in text
    assert "+0.0200 reward a decision over the better simple policy (+0.0100 to +0.0300, 95 %, 400 rounds)" in text
    assert text.count("- ok ") == 7
    assert "Nothing in the log tells" in promotion.card(SCOPE, None, "trial", "", None, tuning, [], "")
