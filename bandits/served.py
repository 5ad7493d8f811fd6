"""What serves: a policy with the version that decisions log, as its domain serves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bandits.arms import fitted
from bandits.config import DomainConfig
from bandits.day.learning import Learning
from bandits.errors import ContextError
from bandits.experiments.serving import builtin
from bandits.policy import Policy
from bandits.record.port import Record
from bandits.types import Scope


@dataclass(frozen=True, slots=True)
class Serving:
    """The policy that serves, the version that decisions log, and the position of the record that it learned up to."""

    policy: Policy
    version: str
    position: int = 0


@dataclass(frozen=True, slots=True)
class OnTrial:
    """A canary: its policy, what was learned behind it, and whom it takes (unit, UTC seconds) at each decision."""

    serving: Serving
    takes: Callable[[str, float], bool]
    learning: Learning | None

    @property
    def policy(self) -> Policy:
        """What its decisions are drawn from."""
        return self.serving.policy if self.learning is None else self.learning.learned


def first_policy(domain: DomainConfig) -> Serving:
    """What serves before any night: explores all affordable arms, evenly at first (learners/first_day.py)."""
    policy = builtin("explore", domain)
    assert policy is not None
    return Serving(policy, "explore")


def begin(serving: Serving, scope: Scope, domain: DomainConfig, record: Record) -> Learning | None:
    """What is learned behind a snapshot before any row is folded; None where nothing is learned between nights."""
    if domain.between_nights == "still":
        return None
    return Learning(scope, domain, serving.policy, serving.version, serving.position, record.epoch().number)


def fit(serving: Serving, scope: Scope, domain: DomainConfig) -> Serving:
    """A policy as its domain serves it: over the arms there are now. Raises ContextError for other features."""
    if serving.policy.schema != domain.features:
        raise ContextError(
            f"a policy for {scope} must have features {domain.features!r}, but {serving.version} has "
            f"{serving.policy.schema!r}; train again after the configuration changed."
        )
    catalogue = np.array([arm.usd_per_request for arm in domain.arms])
    return replace(serving, policy=fitted(serving.policy, domain.arm_names, catalogue))
