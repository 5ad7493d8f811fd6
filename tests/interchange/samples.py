"""Logs to write and read, and when two are the same."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from bandits.interchange import dsjson, parquet
from bandits.types import LoggedFeedback
from tests.logs import simulate

FORMATS = [dsjson, parquet]
GOLDEN = Path(__file__).parents[1] / "golden" / "interchange-1"
both = pytest.mark.parametrize("form", FORMATS, ids=["dsjson", "parquet"])


def same(one: LoggedFeedback, other: LoggedFeedback) -> bool:
    """To the bit: NaN is NaN, -0.0 is not 0.0, and types count."""
    for field in fields(LoggedFeedback):
        here, there = getattr(one, field.name), getattr(other, field.name)
        if isinstance(here, np.ndarray):
            if (here.dtype, here.shape, here.tobytes()) != (there.dtype, there.shape, there.tobytes()):
                return False
        elif here != there:
            return False
    return True


def sample(n: int = 6) -> LoggedFeedback:
    """A small log with an arm out of reach, an unknown cost, rewards 0 and 1, and words of other languages."""
    log = simulate(n, 3, probabilities=(0.1, 0.7, 0.2))
    probabilities, costs, rewards = log.probabilities.copy(), log.costs.copy(), log.rewards.copy()
    first = int(log.actions[0])
    probabilities[0] = 0.0
    probabilities[0, [first, (first + 1) % 3]] = 1 / 3, 2 / 3
    costs[1], costs[2], rewards[:3] = np.nan, 0.0, (0.0, 1.0, 5e-324)
    return replace(
        log,
        arms=("llama-3-1-8b", "größe", "a b|c:d"),
        ids=tuple(f"é|{id_}" for id_ in log.ids),
        times=log.times + 1.79e9 + 0.1,
        probabilities=probabilities,
        propensities=probabilities[np.arange(n), log.actions],
        costs=costs,
        rewards=rewards,
        missing=7,
        position=2**53 + 1,
    )


@st.composite
def logs(draw: st.DrawFn) -> LoggedFeedback:
    """Any log that can be: floats of every size, one arm or many, no round or some."""
    n, k, d = draw(st.integers(0, 5)), draw(st.integers(1, 4)), draw(st.integers(0, 3))
    unit, text = st.floats(0.0, 1.0), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
    weights = np.array(draw(st.lists(st.lists(st.floats(1e-300, 1.0), min_size=k, max_size=k), min_size=n, max_size=n)))
    probabilities = weights.reshape(n, k) / weights.reshape(n, k).sum(axis=1, keepdims=True)
    actions = np.array(draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n)), np.int64)
    context = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=d, max_size=d)
    costs = st.lists(st.just(np.nan) | st.floats(0.0, 1e300), min_size=n, max_size=n)
    return LoggedFeedback(
        arms=tuple(draw(st.lists(text, min_size=k, max_size=k, unique=True))),
        schema=draw(text),
        ids=tuple(draw(st.lists(text, min_size=n, max_size=n, unique=True))),
        times=np.array(draw(st.lists(st.floats(-6e10, 6e10), min_size=n, max_size=n)), np.float64),
        contexts=np.array(draw(st.lists(context, min_size=n, max_size=n)), np.float32).reshape(n, d),
        actions=actions,
        propensities=probabilities[np.arange(n), actions],
        probabilities=probabilities,
        rewards=np.array(draw(st.lists(unit, min_size=n, max_size=n)), np.float64),
        costs=np.array(draw(costs), np.float64),
        missing=draw(st.integers(0, 2**70)),
        position=draw(st.integers(0, 2**62)),
    )


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]
