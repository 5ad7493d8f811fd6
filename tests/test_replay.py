"""Facts about replay: a logged decision comes out again to the last bit, and what was tampered with is named."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bandits.config import NightConfig
from bandits.explaining.replay import Policies, Verification, verify
from bandits.learners.frozen import thaw
from bandits.night import night
from bandits.record.sql import SqlRecord
from bandits.router import Router
from bandits.served import Serving
from bandits.snapshots.keys import signing_key, trusted_keys
from bandits.snapshots.publishing import publish
from bandits.types import Decision, Outcome, Scope
from tests.logs import domain, simulate

SCOPE, OTHER = Scope("acme", "main", "model_routing"), Scope("rival", "main", "model_routing")
DOMAIN = domain(6e-4)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two scopes; in one a learned policy takes over: 40 decisions, 15 outcomes, pressure that moves."""
    home = tmp_path_factory.mktemp("home")
    learned = night.learn(simulate(1500, 1), DOMAIN, NightConfig(trials=1)).trained.policy
    times = {"created": 0.0, "expires": 1e9}
    key = signing_key(home)
    version = publish(
        home / "snapshots", SCOPE, learned.freeze(), position=0, parent=None, evidence={}, key=key, **times
    ).version
    rng = np.random.default_rng(0)
    with SqlRecord(f"sqlite:///{home}/record.db") as record:
        routers = [Router(scope, DOMAIN, record, rng, lambda: 100.0) for scope in (SCOPE, OTHER)]
        for i in range(40):
            if i == 10:
                routers[0].swap(Serving(thaw(learned.freeze()), version))
            router = routers[i % 2]
            decision = router.decide(rng.normal(size=2).astype(np.float32))
            if i < 15:
                router.report(Outcome(decision.id, 100.0, router.scope, quality=0.5, cost_usd=1e-3))
    return home


@pytest.fixture
def home(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "home"))


def check(home: Path, *tampering: str, **kwargs) -> Verification:
    if tampering:
        with closing(sqlite3.connect(home / "record.db", isolation_level=None)) as connection:
            for table in ("decisions", "outcomes"):
                for verb in ("update", "delete"):
                    connection.execute(f"DROP TRIGGER {table}_no_{verb}")
            for statement in tampering:
                assert connection.execute(statement).rowcount > 0
    policies = Policies({"model_routing": DOMAIN}, home / "snapshots", trusted_keys(home))
    with SqlRecord(f"sqlite:///{home}/record.db") as record:
        return verify(record, policies, **kwargs)


def test_every_decision_of_an_honest_record_replays(home):
    """Of the first policy and of the learned one, whatever the pressure was."""
    found = check(home)

    assert (found.rows, found.decisions, found.replayed) == (55, 40, 40)
    assert found.ok
    assert not found.unknown
    assert found.render().endswith("ok")


def test_a_range_and_a_scope_bound_what_is_checked(home):
    """Positions 11 to 30 hold 20 rows; of one scope, only its decisions are replayed."""
    assert check(home, after=10, until=30).rows == 20
    assert check(home, after=10, until=10**9).rows == 45
    assert check(home, scope=OTHER).decisions == 20


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE decisions SET context = x'00004040000040c0' WHERE policy = '000001'", "does not replay from 000001"),
        ("UPDATE decisions SET pressure = 20 WHERE position = 3", "position 3: .* does not replay.*configuration"),
        ("UPDATE decisions SET excluded = '{\"middle\": \"no\"}' WHERE position = 50", "position 50: .*not replay"),
        ("UPDATE decisions SET seen = 50 WHERE position = 50", "position 50: .*not replay .*record up to 50"),
        ("UPDATE decisions SET propensity = propensity * 0.9 WHERE position = 51", "position 51: .*propensity"),
        ("DELETE FROM decisions WHERE position = 51", "position 51: missing"),
        ("DELETE FROM decisions WHERE position BETWEEN 51 AND 53", "position 51 to 53: missing"),
        ("DELETE FROM decisions WHERE position = 55", "position 55: missing"),
        ("UPDATE outcomes SET tenant = 'rival' WHERE position = 2", "position 2: an outcome of .*never made"),
        ("UPDATE outcomes SET decision_id = 'x' WHERE position = 2", "position 2: an outcome of x, .*never made"),
        ("UPDATE outcomes SET quality = 7 WHERE position = 2", "position 2: .*quality must be in"),
    ],
)  # fmt: skip
def test_a_row_that_was_tampered_with_is_named(home, statement, named):
    """And nothing else is."""
    found = check(home, statement)

    assert not found.ok
    assert [fault for fault in found.faults if re.search(named, fault)] == found.faults
    assert "FAULT" in found.render()


def test_decisions_of_a_policy_that_is_gone_are_counted_as_unknown_not_as_good(home):
    """And one that no longer verifies is as good as gone."""
    (file,) = (home / "snapshots").glob("*/*/*/000001/arrays.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    found = check(home)

    assert found.unknown == {"no policy acme/main/model_routing 000001 here": 15}
    assert found.replayed == 25
    assert "15 not replayed: no policy acme/main/model_routing 000001 here" in found.render()


def test_forced_decisions_are_not_replayed(home):
    """Nobody drew them."""
    with SqlRecord(f"sqlite:///{home}/record.db") as record:
        row = record.read(0, 1)[0].entry
        assert isinstance(row, Decision)
        forced = replace(row, id="forced", forced=True, probabilities=np.eye(3)[row.action], propensity=1.0)
        record.append(forced)

    assert check(home).unknown == {"forced: nobody drew them": 1}


def test_a_record_without_rows_is_fine(tmp_path):
    """Nothing to check is nothing wrong."""
    assert check(tmp_path).ok
