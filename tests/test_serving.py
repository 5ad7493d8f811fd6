"""Facts about a server of one scope: on the newest good snapshot, whatever happens to keys and folders."""

from __future__ import annotations

import numpy as np
import pytest

from bandits import serving
from bandits.config import parse_config
from bandits.day.checkpoint import load
from bandits.home import Home
from bandits.learners.baselines import ContextFree
from bandits.learners.frozen import thaw
from bandits.policy import FrozenPolicy
from bandits.record.memory import MemoryRecord
from bandits.served import Serving, begin
from bandits.serving import Server
from bandits.snapshots.keys import signing_key
from bandits.snapshots.publishing import publish
from bandits.types import Outcome, Scope

SCOPE = Scope("acme", "main", "own")
ARMS = [{"name": name, "model": name, "usd_per_request": 1e-4} for name in ("a", "b")]
DOMAIN = {"arms": ARMS, "budget_usd_per_request": 1e-3, "features": "vector-2"}
CONFIG = parse_config({"tenants": {"acme": {}}, "domains": {"own": DOMAIN}}, "test")
GOOD = ContextFree("fixed", ("a", "b"), "vector-2", np.array([1.0, 0.0]), np.array([1e-4, 1e-4]), 1e-3, 0.02).freeze()


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path)


def server(home: Home) -> Server:
    return Server(home, CONFIG, SCOPE, MemoryRecord(), np.random.default_rng(0), lambda: 100.0)


def put(home: Home, frozen: FrozenPolicy) -> str:
    key = signing_key(home.root)
    times = {"created": 0.0, "expires": 1e9}
    return publish(home.snapshots, SCOPE, frozen, position=0, parent=None, evidence={}, key=key, **times).version


def test_before_the_first_night_it_explores(home):
    """No key, no snapshot, no fault."""
    made = server(home)

    assert made.router.serving.version == "explore"
    assert made.last_error is None
    assert made.refresh() is False


def test_it_takes_up_what_is_published_later(home):
    """Also when there was no key yet when it started."""
    made = server(home)
    version = put(home, GOOD)

    assert made.refresh() is True
    assert made.router.serving.version == version
    assert made.refresh() is False


@pytest.mark.parametrize(
    "unfit",
    [
        FrozenPolicy("oracle", ("a", "b"), "vector-2", {"x": np.zeros(1)}),  # a kind of the future
        FrozenPolicy("mix", ("a", "b"), "vector-2", {"values": np.zeros(2)}),  # arrays missing
        FrozenPolicy("mix", ("c", "d"), "vector-2", dict(GOOD.arrays)),  # no arm that there is now
        FrozenPolicy("mix", ("a", "b"), "vector-3", dict(GOOD.arrays)),  # other features
    ],
    ids=["kind", "arrays", "arms", "schema"],
)
def test_a_verified_snapshot_that_does_not_fit_is_refused_for_as_long_as_it_is_the_newest(home, unfit):
    """The last good one serves, the fault stays in sight, and the next good one mends it."""
    good = put(home, GOOD)
    made = server(home)
    put(home, unfit)

    for _ in range(2):
        assert made.refresh() is False
        assert made.last_error is not None
        assert made.router.serving.version == good

    newer = put(home, GOOD)
    assert made.refresh() is True
    assert made.last_error is None
    assert made.router.serving.version == newer


def test_a_key_that_others_may_write_is_a_fault_and_not_the_end(home):
    """Mended, it serves."""
    version = put(home, GOOD)
    public = home.root / "keys" / "signing.pub"
    public.chmod(0o666)

    made = server(home)
    assert made.router.serving.version == "explore"
    assert "chmod" in str(made.last_error)

    public.chmod(0o644)
    assert made.refresh() is True
    assert made.router.serving.version == version


class CountingRecord(MemoryRecord):
    """Counts the rows that are read."""

    rows_read = 0

    def read(self, after=0, limit=10_000, **how):
        found = super().read(after, limit)
        self.rows_read += len(found)
        return found


def test_a_restart_goes_on_from_what_was_learned_before_and_reads_little(home, monkeypatch):
    """Of 60 rows behind the snapshot only those behind the checkpoint; every bit of what was learned is there."""
    monkeypatch.setattr(serving, "CHECKPOINT_EVERY", 40)
    put(home, GOOD)
    record = CountingRecord()
    before = Server(home, CONFIG, SCOPE, record, np.random.default_rng(0), lambda: 100.0)
    for _ in range(30):
        decision = before.router.decide(np.zeros(2, np.float32))
        before.router.report(Outcome(decision.id, 100.0, SCOPE, quality=0.5))
        before.refresh()
    record.rows_read = 0

    after = Server(home, CONFIG, SCOPE, record, np.random.default_rng(1), lambda: 100.0)

    assert record.rows_read < 3 * 20 + 4  # router, its copy for the next checkpoint, and what was learned; four to know
    one, two = before.router.known.learning, after.router.known.learning
    assert (one.position, one.means.tolist(), one.counts.tolist()) == (60, two.means.tolist(), two.counts.tolist())
    assert (one.watch.wealth, one.waiting.keys()) == (two.watch.wealth, two.waiting.keys())
    assert after.router.decide(np.zeros(2, np.float32)).seen == 60


def test_after_a_swap_a_checkpoint_of_the_new_policy_is_kept_soon(home, monkeypatch):
    """At the next look: a restart need not fold again what came while the night worked."""
    monkeypatch.setattr(serving, "CHECKPOINT_EVERY", 10)
    put(home, GOOD)
    record = MemoryRecord()
    made = Server(home, CONFIG, SCOPE, record, np.random.default_rng(0), lambda: 100.0)
    for _ in range(12):
        made.router.decide(np.zeros(2, np.float32))
    made.refresh()
    version = put(home, GOOD)
    assert made.refresh()
    made.refresh()

    learning = begin(Serving(thaw(GOOD), version), SCOPE, made.router.domain, record)
    assert load(home.learning(SCOPE), learning, record)
    assert len(learning.waiting) == 12
