"""Facts about the online learner: what it solves, what it draws from, and that nothing depends on how events came."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.errors import ContextError, ShapeError
from bandits.learners.online import DEFAULT, LINEAR, OnlineLearner
from bandits.learners.scaling import Scaler
from bandits.policy import FrozenPolicy, draw, with_floor

SMALL = replace(DEFAULT, waves=24, width_waves=12, at_once=40, block=0.1)
SCALER = Scaler(np.array([0.5, 0.0, -1.0, 2.0]), np.array([1.0, 2.0, 0.5, 3.0]))


def events(n, k=3, d=4, seed=0):
    rng = np.random.default_rng(seed)
    contexts = (rng.normal(size=(n, d)) * 1.5 + 0.3).astype(np.float32)
    return contexts, rng.integers(0, k, n), (rng.random(n) < 0.4).astype(np.float64)


def taught(n, options=SMALL, k=3, seed=0):
    learner = OnlineLearner(k, SCALER, options)
    for context, action, reward in zip(*events(n, k, seed=seed), strict=True):
        learner.learn(context, int(action), float(reward))
    return learner


@pytest.mark.parametrize("options", [SMALL, replace(LINEAR, at_once=7)])
def test_online_equals_batch(options):
    """The recursive weights and covariances solve the ridge regression of all events at once, to 1e-9."""
    learner, n = taught(700, options), 700
    learner.flush()
    x, actions, rewards = events(n)
    phi = learner.lift.features(x)

    for head in learner._heads:
        for arm in range(3):
            mine = phi[actions == arm][:, head.columns]
            inverse = np.linalg.inv(mine.T @ mine + np.eye(mine.shape[1]))
            np.testing.assert_allclose(head.inverse[arm], inverse, atol=1e-9)
            np.testing.assert_allclose(head.weights[arm], inverse @ mine.T @ rewards[actions == arm], atol=1e-9)
    wide = phi[:, learner._wide].copy()
    wide[:, 5:] *= learner._wave_scale
    np.testing.assert_allclose(learner._width, np.linalg.inv(wide.T @ wide + np.eye(wide.shape[1])), atol=1e-9)


def test_the_sums_of_two_processes_add_up_to_those_of_one():
    """Bit for bit, whatever the order; and the merged learner decides as one taught everything in one go."""
    x, actions, rewards = events(300)
    parts = [OnlineLearner(3, SCALER, SMALL) for _ in range(2)]
    for i in range(300):
        parts[i % 2].learn(x[i], int(actions[i]), float(rewards[i]))
    one = taught(300)

    merged = parts[1].sums + parts[0].sums
    again = OnlineLearner.from_sums(merged, SCALER, SMALL, one._losses)

    for name in ("gram", "moment", "count"):
        assert getattr(merged, name).tobytes() == getattr(one.sums, name).tobytes()
    for context in x[:20]:
        np.testing.assert_allclose(again.bounds(context), one.bounds(context), atol=1e-5)


@given(st.lists(st.integers(0, 99), max_size=3), st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_exact_sums_do_not_care_how_events_were_parted(cuts, seed):
    """Any split among processes gives the same bits."""
    x, actions, rewards = events(100, seed=seed)
    total = None
    for a, b in pairwise([0, *sorted(cuts), 100]):
        learner = OnlineLearner(3, SCALER, replace(SMALL, waves=4))
        for i in range(a, b):
            learner.learn(x[i], int(actions[i]), float(rewards[i]))
        total = learner.sums if total is None else total + learner.sums
    whole = taught(100, replace(SMALL, waves=4), seed=seed).sums

    assert total is not None
    assert total.gram.tobytes() == whole.gram.tobytes()
    assert total.moment.tobytes() == whole.moment.tobytes()


@pytest.mark.parametrize("options", [SMALL, LINEAR])
def test_the_fast_path_is_the_batch_path(options):
    """One decision: the same row, arm and propensity as `probabilities` and the one `draw`, from the same chance."""
    learner = taught(200, replace(options, floor=0.6))  # so that chance has a say
    x, _, _ = events(100, seed=5)
    rows = learner.probabilities(x, np.ones((100, 3), np.bool_))
    fast, slow = np.random.default_rng(3), np.random.default_rng(3)

    for context, row in zip(x, rows, strict=True):
        choice = learner.decide(context, fast)
        assert choice.probabilities.tobytes() == row.tobytes()
        assert (choice.action, choice.propensity) == draw(row, slow)


@pytest.mark.parametrize("options", [SMALL, LINEAR])
def test_bounds_are_estimates_plus_the_shared_width(options):
    """Against the formula in float64: w . phi + optimism sqrt(phi' S phi (N + K) / (n + 1))."""
    learner = taught(150, options)
    learner.flush()
    x, actions, _ = events(150)
    counts = np.bincount(actions, minlength=3)
    z = np.clip((x[:30] - SCALER.mean) / SCALER.scale, -5, 5)
    lift, m = learner.lift, options.waves
    waves = lift.waves * np.sqrt(2 / max(m, 1)) * np.cos(z @ lift.frequencies + lift.phases)
    phi = np.hstack([lift.linear * z, waves, np.ones((30, 1))])
    wide = phi[:, learner._wide].copy()
    wide[:, 5:] *= learner._wave_scale
    width = np.sqrt(np.einsum("nd,de,ne->n", wide, learner._width, wide))
    reach = options.optimism * np.sqrt((150 + 3) / (counts + 1))
    estimate = sum(w * phi[:, h.columns] @ h.weights.T for w, h in zip(learner.mix, learner._heads, strict=True))

    for i in range(30):
        np.testing.assert_allclose(learner.estimates(x[i]), estimate[i], atol=2e-4)
        np.testing.assert_allclose(learner.bounds(x[i]), estimate[i] + width[i] * reach, atol=2e-4)


def test_every_allowed_arm_keeps_its_floor_and_charges_count():
    """The least is floor / K; an arm charged more than its bound is not the best; one not allowed has nothing."""
    learner = taught(100)
    x, _, _ = events(1, seed=9)
    best = int(learner.bounds(x[0]).argmax())
    allowed = np.ones(3, np.bool_)

    row = learner.probabilities(x, allowed[None])[0]
    charged = learner.probabilities(x, allowed[None], 9.0 * np.eye(3)[best])[0]
    without = learner.decide_among(x[0], np.arange(3) != best, np.random.default_rng(0), np.zeros(3))

    assert row.min() >= 0.001 / 3
    assert row.argmax() == best
    assert charged.argmax() != best
    assert without.probabilities[best] == 0.0
    assert without.propensity == without.probabilities[without.action] > 0.0


def test_the_shared_row_cannot_be_written():
    """It is the row that will be logged, of this decision and of others."""
    choice = taught(5).decide(events(1)[0][0], np.random.default_rng(0))

    with pytest.raises(ValueError, match="read-only"):
        choice.probabilities[0] = 1.0


def test_permuting_arms_permutes_bounds():
    """No arm is special."""
    x, actions, rewards = events(200)
    straight, turned = (OnlineLearner(3, SCALER, SMALL) for _ in range(2))
    for i in range(200):
        straight.learn(x[i], int(actions[i]), float(rewards[i]))
        turned.learn(x[i], int(actions[i] + 1) % 3, float(rewards[i]))

    np.testing.assert_allclose(turned.bounds(x[0]), straight.bounds(x[0])[[2, 0, 1]], atol=1e-5)


def test_thawed_it_decides_and_goes_on_learning_bit_for_bit():
    """A snapshot holds all of it: the next decisions and the next hundred outcomes leave the same bits."""
    learner = taught(300)
    frozen = learner.freeze(("a", "b", "c"), "vector-4")
    again = OnlineLearner.thaw(frozen)
    x, actions, rewards = events(100, seed=8)

    assert isinstance(frozen, FrozenPolicy)
    assert (frozen.kind, again.options) == ("online", SMALL)
    for i in range(100):
        assert again.bounds(x[i]).tobytes() == learner.bounds(x[i]).tobytes()
        for one in (learner, again):
            one.learn(x[i], int(actions[i]), float(rewards[i]))


def xor(options, n=900):
    """Share of wrong draws in the last third where arm 1 is right iff both features have the same sign."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(n, 2)).astype(np.float32)
    right = (x[:, 0] * x[:, 1] > 0).astype(int)
    learner, wrong = OnlineLearner(2, Scaler(np.zeros(2), np.ones(2)), options), []
    for context, label in zip(x, right, strict=True):
        action = learner.decide(context, rng).action
        learner.learn(context, action, float(action == label))
        wrong.append(action != label)
    return np.mean(wrong[-n // 3 :]), learner.mix


def test_it_bends_where_a_line_cannot():
    """XOR of two signs: near right with waves, and the straight head loses its say; a line stays at chance."""
    bent, mix = xor(replace(DEFAULT, waves=32, width_waves=16))
    straight, _ = xor(LINEAR)

    assert bent < 0.15
    assert mix[0] < 0.2
    assert straight > 0.3


def test_where_all_is_straight_the_straight_head_has_the_say():
    """Wide contexts of noise and a linear reward: waves foretell worse, and lose their weight."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(1500, 60)).astype(np.float32)
    weights = rng.normal(size=(60, 2)) / 8
    learner = OnlineLearner(2, Scaler(np.zeros(60), np.ones(60)), replace(DEFAULT, waves=64, bandwidth=0.5))
    for context in x:
        action = learner.decide(context, rng).action
        learner.learn(context, action, float(np.clip(0.5 + context @ weights[:, action], 0, 1)))

    assert learner.mix[0] > 0.9


@pytest.mark.parametrize(
    ("context", "action", "reward", "error"),
    [
        (np.zeros(4, np.float32), 3, 0.5, ShapeError),
        (np.zeros(4, np.float32), -1, 0.5, ShapeError),
        (np.zeros(4, np.float32), 0, 1.5, ShapeError),
        (np.zeros(4, np.float32), 0, float("nan"), ShapeError),
        (np.zeros(1, np.float32), 0, 0.5, ShapeError),
        (np.array([0, np.nan, 0, 0], np.float32), 0, 0.5, ContextError),
    ],
)
def test_a_bad_outcome_teaches_nothing(context, action, reward, error):
    """Refused with its reason; the sums stay as they were."""
    learner = taught(10)
    before = learner.sums.gram.tobytes()

    with pytest.raises(error):
        learner.learn(context, action, reward)

    assert learner.sums.gram.tobytes() == before


@pytest.mark.parametrize(
    ("context", "error"),
    [(np.zeros(1, np.float32), ShapeError), (np.array([0, np.nan, 0, 0], np.float32), ContextError)],
)
def test_a_bad_context_is_not_decided_on(context, error):
    """Not even one of length 1, which would broadcast."""
    with pytest.raises(error):
        taught(10).decide(context, np.random.default_rng(0))


def test_one_arm_is_no_choice():
    """Nor are no features a context."""
    with pytest.raises(ShapeError, match="at least 2 arms"):
        OnlineLearner(1, SCALER)


def test_deciding_imports_numpy_and_nothing_heavy():
    """A process that decides and learns online has neither scipy nor sklearn."""
    code = (
        "import sys, bandits.learners.online\n"
        "print(sorted({'scipy', 'sklearn', 'duckdb', 'optuna', 'pydantic', 'sqlalchemy'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)

    assert done.stdout.strip() == "[]"


def test_the_greedy_row_is_with_floor_of_the_best():
    """The rows made ahead are what policy.with_floor makes of the best arm."""
    fast = taught(3)._fast

    assert fast.rows.tobytes() == with_floor(np.eye(3), np.ones((3, 3), np.bool_), SMALL.floor).tobytes()


def test_blocks_grow_with_the_log_and_not_before():
    """One by one at first; then a share of the log."""
    learner = taught(40)
    assert learner._limit == 1
    learner = taught(200)
    assert learner._limit == pytest.approx(0.1 * (200 - 40), abs=3)
    assert learner.events == 200
