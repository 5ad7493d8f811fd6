"""How sure a policy is of its estimates: calibrated on known truth, kept in the snapshot, told in the story."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bandits.errors import SnapshotError
from bandits.explaining.why import explain
from bandits.learners.doubly_robust import Parameters
from bandits.learners.frozen import thaw
from bandits.learners.linear_policy import LinearPolicy
from bandits.record.memory import MemoryRecord
from bandits.router import Router
from bandits.training.training import prepare, train
from bandits.types import Outcome, Scope
from tests.logs import domain, simulate

SCOPE = Scope("acme", "main", "model_routing")
FRESH = np.random.default_rng(99).normal(size=(300, 2)).astype(np.float32)


def expected(contexts):
    """A truth that the model can say: three arms that differ by little, as its prior has it."""
    slopes = np.array([[0.06, 0.05], [0.06, 0.06], [0.05, 0.05]])
    return np.array([0.45, 0.55, 0.5]) + np.clip(contexts, -3.0, 3.0) @ slopes.T


def learned(n: int, seed: int) -> LinearPolicy:
    """From n rewards of 0 or 1."""
    log = simulate(n, seed, expected=expected, noise=0.0)
    log = replace(log, rewards=(np.random.default_rng(seed).random(n) < log.rewards).astype(np.float64))
    return train(prepare(log, domain(1.0), 200), Parameters()).policy


def errors_of(n: int, seeds: range) -> np.ndarray:
    """(q_hat - truth) / sigma over logs, fresh contexts and arms."""
    found = []
    for seed in seeds:
        policy = learned(n, seed)
        found.append((policy.scores(FRESH).q_hat - expected(FRESH)) / policy.sigma(FRESH))
    return np.stack(found)


@pytest.mark.parametrize("n", [400, 3000])
def test_it_is_calibrated_on_known_truth(n):
    """Two deviations hold the truth in nine cases of ten and more, and are no wider than twice what is needed."""
    z = errors_of(n, range(12))

    assert (np.abs(z) < 2.0).mean() > 0.9
    assert 0.5 < z.std() < 1.3
    assert (np.abs(3.0 * z) < 2.0).mean() < 0.75  # the control: a third of it would be caught


def test_it_shrinks_as_the_log_grows_and_is_wider_where_less_was_seen():
    """About 1 / sqrt(n); the arm drawn half as often is known worse, and what lies far out worse than the middle."""
    few, many = learned(500, 1), learned(8000, 1)
    small, large = few.sigma(FRESH), many.sigma(FRESH)
    middle, far = few.sigma(np.array([[0.0, 0.0], [4.0, 4.0]], np.float32))

    assert 2.5 < (small / large).mean() < 5.0  # sqrt(16) = 4
    assert large[:, 2].mean() > 1.2 * large[:, 0].mean()
    assert (far > 1.5 * middle).all()


def test_rewards_that_are_all_alike_prove_no_certainty():
    """Fifty times the same leaves something to learn."""
    log = simulate(300, 1)
    log = replace(log, rewards=np.full(300, 0.7))

    sigma = train(prepare(log, domain(1.0), 200), Parameters()).policy.sigma(FRESH)

    assert (sigma > 1e-4).all()


def test_it_is_in_the_snapshot_where_the_policy_knows_it():
    """The same after freezing; a snapshot of before has none, and then none is told; another shape is refused."""
    policy = learned(400, 1)
    frozen = policy.freeze()

    assert thaw(frozen).sigma(FRESH).tobytes() == policy.sigma(FRESH).tobytes()
    arrays = {name: array for name, array in frozen.arrays.items() if name != "covariances"}
    before = thaw(replace(frozen, arrays=arrays))
    assert before.sigma(FRESH) is None
    assert before.scores(FRESH).q_hat.tobytes() == policy.scores(FRESH).q_hat.tobytes()
    with pytest.raises(SnapshotError, match="covariances must have shape"):
        thaw(replace(frozen, arrays=frozen.arrays | {"covariances": np.zeros((3, 2, 2), np.float32)}))


def test_the_story_of_the_first_day_tells_what_is_believed():
    """Mean and deviation of Beta(1 + successes, 1 + failures) of what was heard by then; of unheard arms nothing."""
    rng, config = np.random.default_rng(3), domain(1.0)
    with MemoryRecord() as record:
        router = Router(SCOPE, config, record, np.random.default_rng(4), lambda: 100.0)
        heard, stories = Counter(), []
        for _ in range(60):
            decision = router.decide(rng.normal(size=2).astype(np.float32))
            stories.append((explain(decision, (), config, Path("nowhere"), {}, 200.0, record), heard.copy()))
            won = int(rng.random() < 0.6)
            heard[decision.arm, won] += 1
            router.report(Outcome(decision.id, 100.0, SCOPE, quality=float(won), cost_usd=1e-4))
            router.catch_up()

    for story, counted in stories:
        assert story.replays
        for arm in story.arms:
            won, lost = counted[arm.name, 1], counted[arm.name, 0]
            if won + lost == 0:
                assert (arm.q_hat, arm.sigma) == (None, None)
            else:
                n = won + lost + 2
                assert arm.q_hat == pytest.approx((won + 1) / n)
                assert arm.sigma == pytest.approx(np.sqrt((won + 1) * (lost + 1) / (n**2 * (n + 1))))
    assert stories[0][0].render().count("±") == 0
    assert stories[-1][0].render().count("±") == 3
    assert max(map(len, stories[-1][0].render().splitlines())) <= 80
