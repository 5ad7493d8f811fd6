"""Logs whose truth is known for every arm, and a home filled through a real router and a real record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bandits.config import ArmConfig, DomainConfig, load_config
from bandits.features import text_context
from bandits.home import Home
from bandits.record.memory import MemoryRecord
from bandits.record.port import rows
from bandits.router import Router
from bandits.types import LoggedFeedback, Outcome, Scope
from bandits.warehouse.loading import load
from bandits.what_if.counterfactual import Log
from dashboard.figures import DAY_S

ARMS = ("cheap", "good", "dear")
PRICES = np.array([1e-4, 3e-4, 2e-3])
BUDGET = 2.5e-4
AFFORDS = 4e-4  # of the home: cheap and good are explored half and half, dear is out of reach
FLOOR = 0.06
SCOPE = Scope("acme", "main", "model_routing")
DOMAIN = DomainConfig(
    arms=tuple(ArmConfig(name=a, model=a, usd_per_request=p) for a, p in zip(ARMS, PRICES.tolist(), strict=True)),
    features="vector-2",
    floor=FLOOR,
    budget_usd_per_request=BUDGET,
)


def expected(contexts):
    """Expected reward of each arm, (n, 3): cheap is good only where x0 > 0."""
    x = np.asarray(contexts, np.float64)[:, 0]
    return np.stack([0.5 + 0.3 * np.tanh(2 * x), np.full(len(x), 0.75), np.full(len(x), 0.8)], axis=1)


def learned(contexts):
    """What the second day's policy plays: cheap where it is not bad, else the good one, and a floor for all."""
    cheap = np.asarray(contexts)[:, 0] > -0.4
    return (1.0 - FLOOR) * np.eye(3)[np.where(cheap, 0, 1)] + FLOOR / 3.0


@dataclass(frozen=True)
class Truth:
    """Population means: of the second day's policy, and of each arm."""

    live_reward: float
    live_usd: float
    rewards: np.ndarray
    usd: np.ndarray


def truth(n=400_000):
    """By brute force over the population of contexts, every arm's expected outcome known."""
    x = np.random.default_rng(99).normal(size=(n, 2))
    r, p = expected(x), learned(x)
    return Truth(float((p * r).sum(1).mean()), float((p @ PRICES).mean()), r.mean(0), PRICES)


def two_days(seed, n=600, explore=(0.5, 0.4, 0.1)):
    """A day of exploring at rates that see no context, and a day of the learned policy; rewards are 0 or 1."""
    rng = np.random.default_rng(seed)
    contexts = rng.normal(size=(2 * n, 2)).astype(np.float32)
    probabilities = np.where(np.arange(2 * n)[:, None] < n, np.array(explore), learned(contexts))
    u = rng.random(2 * n)
    actions = (u[:, None] > np.cumsum(probabilities, axis=1)).sum(axis=1).clip(max=2)
    rewards = (rng.random(2 * n) < expected(contexts)[np.arange(2 * n), actions]).astype(np.float64)
    costs = PRICES[actions] * rng.uniform(0.5, 1.5, 2 * n)
    feedback = LoggedFeedback(
        arms=ARMS,
        schema="vector-2",
        ids=tuple(f"{seed}-{i}" for i in range(2 * n)),
        times=np.repeat([0.0, DAY_S], n) + np.tile(np.linspace(0.0, DAY_S - 1.0, n), 2),
        contexts=contexts,
        actions=actions,
        propensities=probabilities[np.arange(2 * n), actions],
        probabilities=probabilities,
        rewards=rewards,
        costs=costs,
    )
    return Log(feedback, np.repeat(["explore", "000001"], n))


CONFIG = (
    f'[tenants.acme]\nworkspaces = ["main", "idle"]\n[domains.model_routing]\nfloor = 0.3\n'
    f"budget_usd_per_request = {AFFORDS}\n"
    + "".join(
        f'[[domains.model_routing.arms]]\nname = "{arm}"\nmodel = "maker/{arm}"\nusd_per_request = {price}\n'
        for arm, price in zip(ARMS, PRICES.tolist(), strict=True)
    )
)


@dataclass(frozen=True)
class Served:
    """What a test knows of the home that it filled, without asking it."""

    rewards: list[float]
    costs: list[float]
    arms: list[str]
    decisions: int


def fill(home: Home, now: float, n=600, silent=100, *, loaded=True, seed=0) -> Served:
    """Serve n requests of today through a real router, the last `silent` without feedback, into record and warehouse.

    They are appended to the file in one batch, since each append is a commit.
    """
    domain = load_config().domains[SCOPE.domain]
    rng = np.random.default_rng(seed)
    midnight = now - now % DAY_S
    clock = [midnight]
    memory = MemoryRecord()
    router = Router(SCOPE, domain, memory, rng, lambda: clock[0])
    rewards, costs, arms = [], [], []
    for i in range(n):
        clock[0] += (now - midnight) / (n + 1)
        decision = router.decide(text_context(f"prompt {i} {'why ' * (i % 7)}"))
        cost = float(PRICES[decision.action] * rng.uniform(0.5, 1.5))
        quality = float(rng.integers(decision.action, 5)) / 4 if i < n - silent else None
        router.report(Outcome(decision.id, clock[0], SCOPE, quality=quality, cost_usd=cost))
        arms.append(decision.arm)
        costs.append(cost)
        if quality is not None:
            rewards.append(quality)
    home.root.mkdir(parents=True, exist_ok=True)
    with home.open_record() as record:
        record.append(*(entry for _, entry in rows(memory)))
        if loaded:
            load(record, home.warehouse)
    return Served(rewards, costs, arms, n)


def configured(monkeypatch, folder: Path) -> Home:
    """A home of its own, still empty, and the configuration above."""
    config = folder / "pilotage.toml"
    config.write_text(CONFIG, encoding="utf-8")
    monkeypatch.setenv("PILOTAGE_CONFIG", str(config))
    monkeypatch.setenv("PILOTAGE_HOME", str(folder / "home"))
    return Home(folder / "home")
