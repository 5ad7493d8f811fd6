"""Why this model? The whole story of one decision, with its probabilities computed again from the snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nacl.signing import VerifyKey

from bandits.config import DomainConfig
from bandits.learners.linear_policy import LinearPolicy
from bandits.learning import Guarded
from bandits.record import Record
from bandits.replay import Policies, replays
from bandits.rewards import cost, reward
from bandits.types import Decision, Outcome


@dataclass(frozen=True, slots=True)
class ArmStory:
    """What was known of one arm. q_hat and cost_usd are None where the policy that acted has no such estimate."""

    name: str
    probability: float
    q_hat: float | None
    cost_usd: float | None
    excluded: str | None  # why it could not be drawn
    quarantined: str | None = None  # since when it is only probed


@dataclass(frozen=True, slots=True)
class Story:
    """A decision, explained."""

    decision: Decision
    arms: list[ArmStory]
    outcomes: Sequence[Outcome]
    reward: float | None
    cost_usd: float | None
    replays: bool | None  # the snapshot gives the logged probabilities again; None: the snapshot is not there

    def as_dict(self) -> dict[str, Any]:
        """For a machine: plain JSON."""
        d = self.decision
        return {
            "id": d.id,
            "time": d.time,
            "scope": str(d.scope),
            "policy": d.policy,
            "slot": str(d.slot),
            "schema": d.schema,
            "context": d.context.tolist(),
            "arm": d.arm,
            "propensity": d.propensity,
            "price": d.price,
            "pressure": d.pressure,
            "forced": d.forced,
            "seen": d.seen,
            "arms": [asdict(arm) for arm in self.arms],
            "outcomes": [asdict(outcome) | {"scope": str(outcome.scope)} for outcome in self.outcomes],
            "reward": self.reward,
            "cost_usd": self.cost_usd,
            "replays": self.replays,
        }

    def render(self) -> str:
        """For a terminal of 80 columns."""
        d = self.decision
        head = [
            f"decision {d.id}",
            f"  scope {d.scope}, policy {d.policy} ({d.slot}), features {d.schema}",
            f"  drew {d.arm} with probability {d.propensity:.4f}",
            *([f"  learned on from its snapshot up to position {d.seen} of the record"] if d.seen else []),
            f"  a dollar had to earn {d.price:.4g} reward; pressure to spend less {d.pressure:.2f}",
            f"  {'arm':<24} {'probability':>11} {'reward est.':>11} {'USD est.':>10}",
        ]
        rows = [
            f"{'*' if arm.name == d.arm else ' ':>2}{arm.name:<24} {arm.probability:>11.4f} "
            f"{_number(arm.q_hat, '.4f'):>11} {_number(arm.cost_usd, '.2e'):>10}"
            + "".join(f"\n      {said}" for said in (_excluded(arm), arm.quarantined) if said)
            for arm in self.arms
        ]
        again = {True: "equal, to the last bit", False: "NOT EQUAL", None: "unknown, its snapshot is not here"}
        tail = [
            f"  came back: reward {_number(self.reward, '.4f')}, cost {_number(self.cost_usd, '.2e')} USD, "
            f"{len(self.outcomes)} outcome(s)",
            f"  probabilities computed again: {again[self.replays]}",
        ]
        return "\n".join(head + rows + tail)


def explain(
    decision: Decision,
    outcomes: Sequence[Outcome],
    domain: DomainConfig,
    snapshots: Path,
    trusted: Mapping[str, VerifyKey],
    now: float,
    record: Record,
) -> Story:
    """Tell the story of `decision`; recomputes its probabilities from the policy that acted, where that is at hand.

    record: of the decision; what the policy had learned since its snapshot is learned again from it.
    """
    policy = Policies({decision.scope.domain: domain}, snapshots, trusted).of(decision, record)
    q_hat: list[float | None] = [None] * len(decision.arms)
    usd: list[float | None] = [None] * len(decision.arms)
    kept_away: list[str | None] = [None] * len(decision.arms)
    same = None
    if policy is not None:
        same = replays(decision, policy)
        if isinstance(policy, Guarded):
            kept_away, policy = policy.told(), policy.base
        usd = list(policy.prices)
        if isinstance(policy, LinearPolicy):
            scores = policy.scores(decision.context[None, :])
            q_hat, usd = scores.q_hat[0].tolist(), scores.cost_hat[0].tolist()
    arms = [
        ArmStory(name, float(p), q, c, decision.excluded.get(name), said)
        for name, p, q, c, said in zip(decision.arms, decision.probabilities, q_hat, usd, kept_away, strict=True)
    ]
    return Story(decision, arms, outcomes, reward(outcomes, decision.time, now, domain.reward), cost(outcomes), same)


def _excluded(arm: ArmStory) -> str | None:
    return f"not drawn: {arm.excluded}" if arm.excluded else None


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
