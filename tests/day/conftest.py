"""What the tests of the day share: a policy that a night learned."""

from __future__ import annotations

import pytest

from bandits.config import NightConfig
from bandits.learners.linear_policy import LinearPolicy
from bandits.night import night
from tests.logs import domain, simulate


@pytest.fixture(scope="module")
def policy() -> LinearPolicy:
    """What a night learned; without a budget to keep, it plays the dear arm most."""
    return night.learn(simulate(1500, 1), domain(1.0), NightConfig(trials=1)).trained.policy
