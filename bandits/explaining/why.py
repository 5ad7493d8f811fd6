"""Why this model? The whole story of one decision, with its probabilities computed again from the snapshot."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Any

from nacl.signing import VerifyKey

from bandits.config import DomainConfig
from bandits.day.learning import Guarded
from bandits.errors import ConfigError, SnapshotError
from bandits.explaining.replay import Policies, replays
from bandits.features import names
from bandits.learners.baselines import ContextFree
from bandits.learners.frozen import rules
from bandits.learners.linear_policy import LinearPolicy, PricedPolicy
from bandits.record.port import Record
from bandits.rewards import cost, reward
from bandits.snapshots.loading import load
from bandits.types import Decision, Outcome, Vector


@dataclass(frozen=True, slots=True)
class ArmStory:
    """What was known of one arm. q_hat, its posterior deviation sigma, and cost_usd are None where the policy that
    acted does not know them.
    """

    name: str
    probability: float
    q_hat: float | None
    sigma: float | None
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
    learner: Mapping[str, Any] | None = None  # who learned the policy, why, and what each would have earned
    rules: str | None = None  # of a policy that prints itself

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
            "features": _named(d),
            "arm": d.arm,
            "propensity": d.propensity,
            "price": d.price,
            "pressure": d.pressure,
            "forced": d.forced,
            "seen": d.seen,
            "conversation": d.conversation,
            "arms": [asdict(arm) for arm in self.arms],
            "attempts": [_told(outcome) for outcome in self.outcomes if outcome.result],
            "served": served_by(d, self.outcomes),
            "outcomes": [_told(outcome) for outcome in self.outcomes],
            "reward": self.reward,
            "cost_usd": self.cost_usd,
            "replays": self.replays,
            "learner": self.learner,
            "rules": self.rules,
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
            f"  {'arm':<24} {'probability':>11} {'reward est.':>11} {'':>7} {'USD est.':>10}",
        ]
        rows = [
            f"{'*' if arm.name == d.arm else ' ':>2}{arm.name:<24} {arm.probability:>11.4f} "
            f"{_number(arm.q_hat, '.4f'):>11} {'' if arm.sigma is None else f'±{arm.sigma:.4f}':>7} "
            f"{_number(arm.cost_usd, '.2e'):>10}"
            + "".join(f"\n      {said}" for said in (_excluded(arm), arm.quarantined) if said)
            for arm in self.arms
        ]
        again = {True: "equal, to the last bit", False: "NOT EQUAL", None: "unknown, its snapshot is not here"}
        tail = [
            f"  came back: reward {_number(self.reward, '.4f')}, cost {_number(self.cost_usd, '.2e')} USD, "
            f"{len(self.outcomes)} outcome(s)",
            *(f"  asked {o.arm or d.arm}: {_attempt(o)}" for o in self.outcomes if o.result),
            f"  probabilities computed again: {again[self.replays]}",
        ]
        if self.learner is not None:
            tail.append(_filled(f"learned by {self.learner['learner']}: {self.learner['reason']}", "  "))
        if self.rules is not None:
            tail += ["  its rules, in standard deviations:", *(_filled(x, "    ") for x in self.rules.splitlines())]
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
    nothing: list[float | None] = [None] * len(decision.arms)
    q_hat = sigma = usd = nothing
    kept_away: list[str | None] = [None] * len(decision.arms)
    same = None
    if policy is not None:
        same = replays(decision, policy)
        if isinstance(policy, Guarded):
            kept_away, policy = policy.told(), policy.base
        usd, context = list(policy.prices), decision.context[None, :]
        if isinstance(policy, PricedPolicy):
            scores = policy.scores(context)
            q_hat, usd = scores.q_hat[0].tolist(), scores.cost_hat[0].tolist()
        if isinstance(policy, LinearPolicy) and (deviations := policy.sigma(context)) is not None:
            sigma = deviations[0].tolist()
        if isinstance(policy, ContextFree) and (believed := policy.believed()) is not None:
            q_hat, sigma = map(_known, believed)
    arms = [
        ArmStory(name, float(p), q, s, c, decision.excluded.get(name), said)
        for name, p, q, s, c, said in zip(
            decision.arms, decision.probabilities, q_hat, sigma, usd, kept_away, strict=True
        )
    ]
    return Story(
        decision,
        arms,
        outcomes,
        reward(outcomes, decision.time, now, domain.reward),
        cost(outcomes),
        same,
        _learner(decision, snapshots, trusted),
        rules(policy) if policy is not None else None,
    )


def _known(values: Vector) -> list[float | None]:
    return [None if isnan(value) else value for value in values.tolist()]


def _learner(decision: Decision, snapshots: Path, trusted: Mapping[str, VerifyKey]) -> Mapping[str, Any] | None:
    """What the snapshot that acted signs of the choice among learners, if a learned policy acted and it is here."""
    try:
        found = load(snapshots, decision.scope, decision.policy, trusted=trusted, now=decision.time).manifest.evidence
    except SnapshotError:
        return None
    choice = found.get("choice") if found.get("chosen") == "candidate" else None
    return choice if isinstance(choice, dict) else None


def served_by(decision: Decision, outcomes: Sequence[Outcome]) -> str | None:
    """The arm whose answer was shown: of the last attempt that did not fail; None where no attempt was told of."""
    answered = [one.arm or decision.arm for one in outcomes if one.result and not one.failed]
    return answered[-1] if answered else None


def _told(outcome: Outcome) -> dict[str, Any]:
    return asdict(outcome) | {"scope": str(outcome.scope)}


def _attempt(outcome: Outcome) -> str:
    said = [outcome.result]
    said += [] if outcome.cost_usd is None else [f"{outcome.cost_usd:.2e} USD"]
    said += [] if outcome.latency_s is None else [f"{outcome.latency_s:.3g} s"]
    return ", ".join(said)


def _named(decision: Decision) -> dict[str, float]:
    """The context by name of its features, where they have names and are known still."""
    if decision.schema.startswith("vector-"):
        return {}
    try:
        columns = names(decision.schema)
    except ConfigError:  # of a version before
        return {}
    return dict(zip(columns, decision.context.tolist(), strict=False))


def _excluded(arm: ArmStory) -> str | None:
    return f"not drawn: {arm.excluded}" if arm.excluded else None


def _filled(line: str, indent: str) -> str:
    indent += line[: len(line) - len(line.lstrip())]
    return textwrap.fill(line.lstrip(), 80, initial_indent=indent, subsequent_indent=indent + "  ")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
