"""A scope without orders, and one whose candidate has just begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rollout.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def rolling(world: World) -> tuple[World, str, str]:
    """A stable version serves, and a candidate has just begun."""
    stable = world.put(1.0, 0.0)
    world.start()
    candidate = world.put(0.0, 1.0)
    world.begin(candidate, stable)
    world.server.refresh()
    return world, stable, candidate
