"""Facts about the cap on a log in parts: the rounds that stay are those that stay in memory, and so is the policy."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.learners.doubly_robust import Parameters
from bandits.learners.slab import DAY_S, Slab
from bandits.record.memory import MemoryRecord
from bandits.snapshots.manifest import content_hash
from bandits.training import influence
from bandits.training.fold import Logged, Spooled, parts_of, spool
from bandits.training.influence import NOTHING, LeftOut
from bandits.training.shares import capped
from bandits.training.training import prepare, train, train_log
from bandits.types import Decision, LoggedFeedback
from bandits.warehouse.loading import load
from tests.logs import simulate
from tests.training.rounds import DOMAIN, SCOPE, entries


class Pieces:
    """A part whose batches are in memory."""

    since = None

    def __init__(self, batches: list[LoggedFeedback]) -> None:
        self.read = batches

    def batches(self) -> list[LoggedFeedback]:
        """The rounds, as Logged gives them."""
        return self.read


def split(log: LoggedFeedback, cuts: list[int]) -> list[LoggedFeedback]:
    """The log in pieces, some of them empty."""
    owner = np.searchsorted(np.sort(cuts), np.arange(len(log)), side="right")
    return [log.where(owner == i) for i in range(len(cuts) + 1)]


def read(part: Spooled) -> list[bytes]:
    """Every column of a part."""
    slabs = list(part.slabs())
    names = ("times", "contexts", "actions", "propensities", "targets", "costs", "folds")
    return [b"".join(getattr(slab, name).tobytes() for slab in slabs) for name in names]


names = st.sampled_from(["", "ann", "bo", "ü", *(f"u{i}" for i in range(12))])


@settings(max_examples=60, deadline=None)
@given(
    users=st.lists(names, min_size=1, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    share=st.sampled_from([0.05, 0.1, 0.3, 0.5, 1.0]),
)
def test_the_same_rounds_stay_whatever_the_parts(tmp_path_factory, users, cuts, share):
    """Law: columns and counts of the parts, one after another, are those of the log capped in memory."""
    folder = tmp_path_factory.mktemp("parts")
    log = replace(simulate(len(users), 3), users=tuple(users))
    expected, out = influence.capped(log, share)
    parts = []
    for i, piece in enumerate(split(log, cuts)):
        (folder / str(i)).mkdir()
        parts.append(spool(Pieces(split(piece, [len(piece) // 2])), folder / str(i)))

    left, found = capped(parts, share)

    slab = Slab.of(expected)
    mine = [b"".join(columns) for columns in zip(*map(read, left), strict=True)]
    columns = ("times", "contexts", "actions", "propensities", "targets", "costs", "folds")
    assert mine == [getattr(slab, name).tobytes() for name in columns]
    assert (sum(part.n for part in left), found) == (len(expected), out)


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Logged:
    """A warehouse: 900 decisions over five days, one user made all of the first, most of the second, none later."""
    record = MemoryRecord()
    for row in entries(900, SCOPE, "vector-2", DOMAIN.arm_names, 100 * DAY_S):
        i, day = int((row.id if isinstance(row, Decision) else row.decision_id), 16), int(row.time // DAY_S) - 100
        busy = day == 0 or (day == 1 and i % 4)
        record.append(replace(row, user="mallory" if busy else f"u{i % 90}") if isinstance(row, Decision) else row)
    path = tmp_path_factory.mktemp("warehouse") / "warehouse.duckdb"
    load(record, path)
    return Logged(path, SCOPE, DOMAIN, 200 * DAY_S)


def hashed(trained) -> str:
    return content_hash(trained.policy.freeze().arrays)


@pytest.mark.parametrize("part", [1, 300, 10_000])
def test_a_log_in_parts_gives_the_policy_that_the_capped_log_gives_in_memory(log, part, tmp_path):
    """Through the warehouse and the disk, to the last bit; and another policy without the cap (the control)."""
    (whole,) = log.batches()
    expected, out = influence.capped(whole, 0.05)

    found = train_log(log, 200, Parameters(), tmp_path, part=part, user_share=0.05)

    assert out.users == 1
    assert out.rounds == Counter(whole.users)["mallory"] - 40
    assert (found.rounds, found.left_out) == (len(expected), out)
    assert hashed(found) == hashed(train(prepare(expected, DOMAIN, 200), Parameters()))
    assert hashed(found) != hashed(train_log(log, 200, Parameters(), tmp_path, part=part))


def test_parts_without_a_round_beyond_the_cap_stay_as_they_are(log, tmp_path):
    """So do their checkpoints, which are named by the digest; the others' digest is that of what is left."""
    parts = [spool(part, tmp_path) for part in parts_of(log, 1)]

    left, out = capped(parts, 0.05)

    assert [one == other for one, other in zip(left, parts, strict=True)] == [False, False, True, True, True]
    assert out == LeftOut(sum(part.n for part in parts) - sum(part.n for part in left), 1)
    assert capped(parts, 1.0) == (parts, NOTHING)
    assert capped([], 0.05) == ([], NOTHING)


@pytest.mark.slow
def test_other_processes_leave_out_the_same(log, tmp_path: Path):
    """Two real ones, each with part of the days."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        there = train_log(log, 200, Parameters(), tmp_path, part=1, over=pool.map, user_share=0.05)

    assert hashed(there) == hashed(train_log(log, 200, Parameters(), tmp_path, user_share=0.05))
