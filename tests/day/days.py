"""Days of a router that people answer, for the facts about learning between nights."""

from __future__ import annotations

import numpy as np

from bandits.day.learning import Learning
from bandits.record.memory import MemoryRecord
from bandits.router import Router
from bandits.served import Serving
from bandits.types import Decision, Outcome, Scope
from tests.logs import ARMS, domain, truth

SCOPE, OTHER = Scope("acme", "main", "model_routing"), Scope("rival", "main", "model_routing")
DEAR = 2
GRID = np.random.default_rng(9).normal(size=(40, 2)).astype(np.float32)


class Days:
    """A router, and people who answer it: arm `broken` earns .5 less."""

    def __init__(self, policy, record=None, mode="watch", seed=0, version="000001", **kwargs):
        self.record = MemoryRecord() if record is None else record
        self.now, self.rng = 0.0, np.random.default_rng([seed, 1])
        self.domain = domain(1.0, between_nights=mode)
        serving = Serving(policy, version) if policy is not None else None
        rng = np.random.default_rng([seed, 0])
        self.router = Router(SCOPE, self.domain, self.record, rng, lambda: self.now, serving=serving, **kwargs)

    def ask(self, user=""):
        self.now += 1.0
        return self.router.decide(self.rng.normal(size=2).astype(np.float32), user)

    def answer(self, decision, broken=None):
        reward = truth(decision.context[None])[0, decision.action] + self.rng.normal(0.0, 0.05)
        reward = float(np.clip(reward - 0.5 * (decision.action == broken), 0.0, 1.0))
        self.router.report(Outcome(decision.id, self.now, SCOPE, quality=reward, cost_usd=1e-4))

    def serve(self, n, broken=None):
        made = []
        for _ in range(n):
            made.append(self.ask())
            self.answer(made[-1], broken)
            self.router.catch_up()
        return made


def fold(record, policy, mode="watch", until=None, start=0, reward=None):
    """The fold from the definition: all rows, in order."""
    config = domain(1.0, between_nights=mode, **({} if reward is None else {"reward": reward}))
    learning = Learning(SCOPE, config, policy, "000001", start)
    learning.follow(record, record.head() if until is None else until)
    return learning


def plain(learning):
    """Every bit of a fold."""
    watch = learning.watch
    arrays = (learning.means, learning.counts, watch.draws, watch.usual, watch.quarantined)
    held = [(id_, h.action, h.time, h.context.tobytes(), h.outcomes) for id_, h in learning.waiting.items()]
    return (learning.position, learning.since, watch.wealth, held, *(a.tobytes() for a in arrays))


def rows(policy):
    """What a policy would do in 40 contexts, bit by bit."""
    return policy.probabilities(GRID, np.ones((40, 3), np.bool_)).tobytes()


def decision(id_="d", time=0.0, **fields):
    p = np.array([0.5, 0.25, 0.25])
    given = {"arms": ARMS, "schema": "vector-2", "excluded": {}, "policy": "000001"}
    return Decision(
        id=id_, time=time, scope=SCOPE, context=np.zeros(2, np.float32), probabilities=p, action=0, propensity=0.5,
        **given | fields,
    )  # fmt: skip
