"""Logs with known truth, for tests of learners and nights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bandits.config import ArmConfig, DomainConfig
from bandits.types import LoggedFeedback, Matrix, Vector

ARMS = ("cheap", "middle", "dear")
PRICES = np.array([1e-4, 1e-3, 1e-2])


def domain(budget: float, prices: Vector = PRICES, **settings: object) -> DomainConfig:
    """A domain of three arms with two own features."""
    arms = tuple(
        ArmConfig(name=name, model=name, usd_per_request=price) for name, price in zip(ARMS, prices, strict=True)
    )
    return DomainConfig(arms=arms, features="vector-2", budget_usd_per_request=budget, **settings)


def sampled_domain(*arms: str, **reward: object) -> DomainConfig:
    """A domain of these arms with the features of bandits.testing.ports.sample_decision."""
    return DomainConfig.model_validate(
        {
            "arms": [{"name": arm, "model": arm, "usd_per_request": 1.0} for arm in arms],
            "budget_usd_per_request": 1.0,
            "reward": reward,
        }
    )


def same(one: LoggedFeedback, other: LoggedFeedback) -> bool:
    """Whether two logs are equal in every field, arrays to the last bit; fails with the field's name."""
    for name in one.__dataclass_fields__:
        left, right = getattr(one, name), getattr(other, name)
        if isinstance(left, np.ndarray):
            assert (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes()), name
        else:
            assert left == right, name
    return True


def truth(contexts: Matrix) -> Matrix:
    """Expected reward of each arm, (n, 3): dear is always good, middle where x0 > 0, cheap where x1 > 0."""
    x = np.asarray(contexts, dtype=np.float64)
    return np.stack([0.5 + 0.3 * np.tanh(x[:, 1]), 0.6 + 0.3 * np.tanh(x[:, 0]), np.full(len(x), 0.85)], axis=1)


def simulate(
    n: int,
    seed: int,
    *,
    expected: Callable[[Matrix], Matrix] = truth,
    probabilities: tuple[float, ...] = (0.4, 0.4, 0.2),
    noise: float = 0.1,
    prices: Vector = PRICES,
) -> LoggedFeedback:
    """n rounds drawn by one context-free distribution; rewards clipped to [0, 1], log-normal costs."""
    rng = np.random.default_rng(seed)
    contexts = rng.normal(size=(n, 2)).astype(np.float32)
    k = len(probabilities)
    actions = rng.choice(k, p=probabilities, size=n)
    rewards = np.clip(expected(contexts)[np.arange(n), actions] + rng.normal(0.0, noise, n), 0.0, 1.0)
    p = np.array(probabilities)
    return LoggedFeedback(
        arms=ARMS[:k],
        schema="vector-2",
        ids=tuple(f"{seed}-{i}" for i in range(n)),
        times=np.arange(n, dtype=np.float64),
        contexts=contexts,
        actions=actions,
        propensities=p[actions],
        probabilities=np.tile(p, (n, 1)),
        rewards=rewards,
        costs=prices[actions] * np.exp(rng.normal(0.0, 0.2, n)),
        position=2 * n,
    )
