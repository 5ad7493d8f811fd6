"""Experiments in the path of a decision: which policy serves this unit at this time, if not the one of the scope.

A pure function of the configuration, the unit and the time, so every process serves alike, and a report works out from
the record who was given what: nothing is stored for it. A unit takes part in one experiment at most, in the one that
began first of those whose hash picks it; which one that is depends on no outcome, so each experiment sees a fair draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bandits.assignment import Experiment, variant
from bandits.config import DomainConfig
from bandits.learners.baselines import ContextFree
from bandits.policy import Policy
from bandits.settings.experiments import ExperimentConfig, shares_of
from bandits.types import Slot, Vector

HOLDBACK = "holdback"
SERVED = "served"  # of a holdback: everybody else, whom experiments may claim


class Chosen(NamedTuple):
    """A policy that serves one unit: what the decision logs is its version and slot."""

    policy: Policy
    version: str
    slot: Slot


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """One experiment of a domain, with the policies that its variants play."""

    name: str
    config: ExperimentConfig
    steps: tuple[tuple[float, Experiment], ...]  # how units are spread from each time on
    end: float  # UTC, seconds since the epoch
    policies: Mapping[str, Policy | None]  # by variant; None: what the scope serves anyway

    @property
    def start(self) -> float:
        """When it begins, UTC, seconds since the epoch."""
        return self.steps[0][0]

    def unit(self, user: str, decision_id: str) -> str:
        """What is assigned; "" is nobody, who takes no part."""
        return user if self.config.unit == "user" else decision_id

    def claims(self, unit: str, time: float) -> bool:
        """Whether `unit` takes part at `time` (UTC seconds since the epoch), or would at a later step of the ramp."""
        return self._is_open(unit, time) and variant(self.steps[-1][1], unit) is not None

    def variant(self, unit: str, time: float) -> str | None:
        """What `unit` is given at `time`; None: it takes no part, or not yet."""
        if not self._is_open(unit, time):
            return None
        return variant(next(plan for at, plan in reversed(self.steps) if at <= time), unit)

    def _is_open(self, unit: str, time: float) -> bool:
        return bool(unit) and self.start <= time < self.end

    @property
    def slot(self) -> Slot:
        """Of decisions by a policy that the variants force."""
        return Slot.HOLDBACK if self.name == HOLDBACK else Slot.EXPERIMENT


class Assigned(NamedTuple):
    """The one experiment that a unit takes part in, and what it is given there."""

    experiment: Running
    variant: str


class Experiments:
    """All experiments of one domain, past, running and to come, in the order in which they claim units."""

    def __init__(self, name: str, domain: DomainConfig) -> None:
        declared = sorted(domain.experiments.items(), key=lambda pair: (pair[1].start, pair[0]))
        if domain.holdback is not None:  # first: nobody who is held back may learn anything from anybody
            declared.insert(0, (HOLDBACK, domain.holdback.as_experiment()))
        self.running = tuple(
            Running(
                name=key,
                config=config,
                steps=config.steps(f"{name}/{key} {config.start.isoformat()}"),
                end=config.end.timestamp(),
                policies={each: builtin(one.policy, domain) for each, one in config.variants.items()},
            )
            for key, config in declared
        )
        self.prices: Vector = np.array([arm.usd_per_request for arm in domain.arms])  # that variants reckon with

    def __bool__(self) -> bool:
        return bool(self.running)

    def assigned(self, user: str, decision_id: str, time: float) -> Assigned | None:
        """Where this unit takes part at `time`; None: nowhere, or nowhere yet."""
        for one in self.running:
            unit = one.unit(user, decision_id)
            if one.claims(unit, time):
                found = one.variant(unit, time)
                if (one.name, found) != (HOLDBACK, SERVED):
                    return Assigned(one, found) if found else None
        return None

    def exposure(self, experiment: Running, user: str, decision_id: str, time: float) -> str | None:
        """The variant of `experiment` that this decision counts for; None: it counts for none.

        The holdback is held against all others, whatever experiments they are part of.
        """
        if experiment.name == HOLDBACK:
            return experiment.variant(user, time)
        found = self.assigned(user, decision_id, time)
        return found.variant if found and found.experiment.name == experiment.name else None

    def policy_for(self, user: str, decision_id: str, time: float) -> Chosen | None:
        """The policy that serves this decision; None: what the scope serves anyway.

        user: pseudonym, "" for nobody in particular.   time: UTC, seconds since the epoch.
        """
        found = self.assigned(user, decision_id, time)
        policy = found.experiment.policies[found.variant] if found else None
        if found is None or policy is None:
            return None
        return Chosen(policy, found.experiment.config.variants[found.variant].policy, found.experiment.slot)


def builtin(name: str, domain: DomainConfig) -> Policy | None:
    """The policy that the configuration alone defines under this name; None for `stable` and versions of snapshots."""
    explore = name == "explore"
    if not explore and not name.startswith(("fixed:", "mix:")):
        return None
    values = np.zeros(len(domain.arms)) if explore else np.array(shares_of(name, domain.arm_names))
    prices = np.array([arm.usd_per_request for arm in domain.arms])
    rule = "explore" if explore else "shares"
    return ContextFree(
        rule, domain.arm_names, domain.features, values, prices, domain.budget_usd_per_request, domain.floor
    )
