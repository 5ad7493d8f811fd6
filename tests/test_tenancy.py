"""One tenant's history leaves no trace in what another learns: from the record to the signed snapshot."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.learners.doubly_robust import Parameters
from bandits.record.sql import SqlRecord
from bandits.snapshots.keys import signing_key
from bandits.snapshots.publishing import publish
from bandits.testing.ports import sample_decision, sample_outcome
from bandits.training import training
from bandits.types import Scope, Slot
from bandits.warehouse.loading import load, read_feedback
from tests.logs import ARMS, domain

OURS = Scope("acme", "main", "model_routing")
THEIRS = [
    Scope("rival", "main", "model_routing"),
    Scope("acme", "other", "model_routing"),
    Scope("acme", "main", "ads"),
]
NOW = 1_790_100_000.0
DOMAIN = domain(5e-3)


def rounds(scope, count, seed, tag):
    """Decisions over the three arms with an outcome each, as the record takes them."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        probabilities = rng.dirichlet(np.ones(3)) * 0.7 + 0.1
        probabilities /= probabilities.sum()
        action = int(rng.choice(3, p=probabilities))
        decision = sample_decision(
            f"{tag}{i}",
            time=NOW - 1000.0 + i,
            scope=scope,
            schema="vector-2",
            context=rng.normal(size=2).astype(np.float32),
            arms=ARMS,
            excluded={},
            probabilities=probabilities,
            action=action,
            propensity=float(probabilities[action]),
            slot=Slot.STABLE,
            forced=False,
        )
        cost = float(rng.random() * 1e-2)
        reported = sample_outcome(
            decision.id, scope=scope, time=decision.time + 1.0, quality=float(rng.random()), cost_usd=cost
        )
        found.append((decision, reported))
    return found


OUR_ROUNDS = rounds(OURS, 100, 7, "ours-")


@st.composite
def histories(draw):
    """Rounds of other scopes and where among ours each comes; their outcomes may be late, doubled, or none."""
    theirs = []
    for number, scope in enumerate(draw(st.lists(st.sampled_from(THEIRS), min_size=1, max_size=3))):
        for decision, outcome in rounds(scope, draw(st.integers(1, 30)), draw(st.integers(0, 9)), f"x{number}-"):
            again = [replace(outcome, quality=1.0)] * draw(st.integers(0, 2))
            theirs.append((draw(st.integers(0, 99)), decision, again))
    return theirs


def snapshot(folder, ours, theirs):
    """What our scope publishes, {file: bytes}, after `ours` and `theirs` in the same record."""
    folder.mkdir()
    with SqlRecord(f"sqlite:///{folder}/record.db") as record:
        for place, (decision, outcome) in enumerate(ours):
            before = [entry for at, other, came in theirs if at == place for entry in (other, *came)]
            record.append(*before, decision, outcome)
        load(record, folder / "warehouse.duckdb")
    log = read_feedback(folder / "warehouse.duckdb", OURS, DOMAIN, NOW)
    assert (len(log), log.missing) == (100, 0)
    trained = training.train(training.prepare(log, DOMAIN, 50), Parameters())
    key = signing_key(folder.parent / "home")
    when = {"created": NOW, "expires": NOW + 1e6}
    publish(folder, OURS, trained.policy.freeze(), position=log.position, parent=None, evidence={}, **when, key=key)
    (published,) = [path.parent for path in folder.rglob("manifest.json")]
    return {path.name: path.read_bytes() for path in published.iterdir()}


class TestTenancy:
    @settings(max_examples=6, deadline=None)
    @given(theirs=histories())
    def test_what_others_do_leaves_our_snapshot_byte_for_byte_alike(self, tmp_path_factory, theirs):
        """Law: the policy is the same file; the manifest too, but for how far the shared record reaches."""
        base = tmp_path_factory.mktemp("tenancy")
        alone, among = snapshot(base / "alone", OUR_ROUNDS, []), snapshot(base / "among", OUR_ROUNDS, theirs)
        assert among["arrays.safetensors"] == alone["arrays.safetensors"]
        mine, other = json.loads(alone["manifest.json"]), json.loads(among["manifest.json"])
        assert other.pop("position") >= mine.pop("position")
        assert other == mine

    def test_another_outcome_of_our_own_changes_it(self, tmp_path):
        """The control: the comparison can see a difference."""
        decision, outcome = OUR_ROUNDS[50]
        changed = [*OUR_ROUNDS[:50], (decision, replace(outcome, quality=1.0 - outcome.quality)), *OUR_ROUNDS[51:]]
        alone, other = snapshot(tmp_path / "alone", OUR_ROUNDS, []), snapshot(tmp_path / "other", changed, [])
        assert other["arrays.safetensors"] != alone["arrays.safetensors"]
