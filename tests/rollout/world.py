"""What the tests of rollouts share: a home, a clock that a test turns, users, and a server of one scope."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nacl.signing import VerifyKey

from bandits.config import Config, parse_config
from bandits.home import Home
from bandits.learners.baselines import ContextFree
from bandits.record.memory import MemoryRecord
from bandits.rollout.giving import begin
from bandits.rollout.machine import Order
from bandits.rollout.orders import OrderBook
from bandits.serving import Server
from bandits.snapshots.keys import SigningKey, signing_key
from bandits.snapshots.publishing import publish
from bandits.types import Decision, Outcome, Scope

SCOPE = Scope("acme", "main", "own")
ARMS = ("a", "b")
FAST = {"stages": [0.2, 0.5, 1.0], "min_seconds": 2.0, "min_sample": 5, "slow_s": 1.0}


def config(**rollout: object) -> Config:
    """Two arms, two features of the test's own."""
    arms = [{"name": name, "model": name, "usd_per_request": 1e-4} for name in ARMS]
    domain = {"arms": arms, "budget_usd_per_request": 1e-3, "features": "vector-2"}
    return parse_config({"tenants": {"acme": {}}, "domains": {"own": domain}, "rollout": FAST | rollout}, "test")


class World:
    """Everything around one scope; time stands still until a test moves it."""

    def __init__(self, root: Path, url: str | None = None, **rollout: object) -> None:
        """url: of the database that has the orders; left out, a file of the home."""
        self.home, self.config, self.now = Home(root, url), config(**rollout), 1_000.0
        self.key: SigningKey = signing_key(root)
        self.home.open_record().close()
        self.record, self.rng = MemoryRecord(), np.random.default_rng(0)
        self.drawn: list[Decision] = []
        self.server: Server | None = None

    def put(self, *values: float) -> str:
        """Publish a policy that prefers the arm of the highest value; its version."""
        prices = np.array([1e-4, 1e-4])
        policy = ContextFree("fixed", ARMS, "vector-2", np.array(values or (1.0, 0.0)), prices, 1e-3, 0.02)
        given = {"position": 0, "parent": None, "evidence": {}, "created": 0.0, "expires": 1e9}
        return publish(self.home.snapshots, SCOPE, policy.freeze(), key=self.key, **given).version

    def begin(self, version: str, previous: str | None) -> None:
        begin(self.home, SCOPE, self.config, version, previous=previous, key=self.key, now=self.now, why="better")

    def start(self) -> Server:
        """A server that has just started."""
        self.server = Server(self.home, self.config, SCOPE, self.record, self.rng, lambda: self.now)
        return self.server

    def decide(self, user: str) -> Decision:
        assert self.server is not None
        decision = self.server.router.decide(np.zeros(2, np.float32), user)
        self.drawn.append(decision)
        return decision

    def report(self, decision: Decision, quality: float, **more: object) -> None:
        assert self.server is not None
        self.server.router.report(Outcome(decision.id, self.now, SCOPE, quality=quality, **more))

    def serve(self, users: range, good: float = 0.8, bad: float | None = None) -> list[Decision]:
        """One decision of each user, and its outcome: `good`, or of the canary `bad`."""
        made = []
        for user in users:
            decision = self.decide(f"u{user}")
            worth = bad if bad is not None and decision.slot == "canary" else good
            self.report(decision, worth, latency_s=0.1)
            made.append(decision)
        return made

    def pass_time(self, seconds: float) -> None:
        """Look as a server does, a second at a time."""
        for _ in range(int(seconds)):
            self.now += 1.0
            self.server.refresh()

    def book(self) -> OrderBook:
        return OrderBook(self.home.record_url, {self.key.id: VerifyKey(self.key.public)})

    def orders(self) -> list[Order]:
        return self.book().history(SCOPE)
