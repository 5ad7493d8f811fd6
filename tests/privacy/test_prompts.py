"""Facts about kept prompts: only where a tenant wants them, only with the person's key, and gone with it."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing

import pytest

from bandits.config import parse_config
from bandits.errors import RecordError
from bandits.home import Home
from bandits.privacy import erasing as privacy
from bandits.privacy.people import People
from bandits.privacy.prompts import Prompts, keep
from bandits.testing.ports import sample_decision
from bandits.types import Scope

ARMS = [{"name": name, "model": name, "usd_per_request": 1e-4} for name in ("small", "large")]
CONFIG = parse_config(
    {
        "domains": {"own": {"arms": ARMS, "budget_usd_per_request": 1e-3, "features": "vector-2"}},
        "tenants": {"acme": {"store_prompts": True, "retention_days": 1.0}, "rival": {}},
    },
    "test",
)
NOW = 1_790_000_000.0
ASKED = "what shall I do about my knee"


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path)


def prompts(home: Home) -> Prompts:
    return Prompts(home.prompts, People(home.people))


def decide(home: Home, name: str = "d1", tenant: str = "acme", user: str = "ada", time: float = NOW):
    decision = sample_decision(name, scope=Scope(tenant, "main", "own"), user=user, time=time)
    with home.open_record() as record:
        record.append(decision)
    return decision


def everything(home: Home) -> bytes:
    return b"".join(path.read_bytes() for path in home.root.rglob("*") if path.is_file())


def test_what_is_kept_is_sealed_and_found_by_its_decision(home):
    """The text, the decision's id and the pseudonym are in no byte of the file, which nobody else may read."""
    decision = decide(home)
    for text in ("an older one", ASKED, "ü \ud800"):
        keep(home, CONFIG, decision, text)
        assert prompts(home).get(decision) == text

    assert stat.S_IMODE(home.prompts.stat().st_mode) == 0o600
    stored = home.prompts.read_bytes()
    for secret in (b"knee", decision.id.encode() * 2, decision.user.encode()):
        assert secret not in stored
    assert prompts(home).get(sample_decision("d2", scope=decision.scope, user="ada")) is None
    assert prompts(home).get(sample_decision("d1", scope=decision.scope, user="eve")) is None


@pytest.mark.parametrize(("tenant", "user"), [("rival", "ada"), ("acme", "")])
def test_nothing_is_kept_unless_the_tenant_wants_it_and_somebody_asked(home, tenant, user):
    """The default is off; and nobody could ever ask for what nobody asked to be erased."""
    keep(home, CONFIG, decide(home, tenant=tenant, user=user), ASKED)

    assert not home.prompts.exists()


def test_an_export_tells_the_prompt(home):
    """Beside the decision that it led to, and only where one is kept."""
    first, _ = decide(home), decide(home, "d2")
    keep(home, CONFIG, first, ASKED)

    with home.open_record() as record:
        told = list(privacy.export(record, "acme", "ada", prompts(home)))
        without = list(privacy.export(record, "acme", "ada"))
    assert [one.get("prompt") for one in told] == [ASKED, None]
    assert [one.get("prompt") for one in without] == [None, None]


def test_an_erasure_takes_the_prompts_and_leaves_those_of_others(home):
    """Also their sealed bytes."""
    hers, others = decide(home), decide(home, "d2", user="eve")
    for decision in (hers, others):
        keep(home, CONFIG, decision, ASKED)

    privacy.erase(home, CONFIG, "acme", "ada", NOW)

    assert prompts(home).get(others) == ASKED
    assert prompts(home).get(hers) is None
    with closing(sqlite3.connect(home.prompts)) as connection:
        assert connection.execute("SELECT count(*) FROM prompts").fetchone() == (1,)
    assert People(home.people).number("acme", "ada") is None
    prompts(home).forget_all_but([])
    assert prompts(home).get(others) is None


def test_a_tenants_prompts_go_when_its_decisions_are_too_old(home):
    """retention_days: 1."""
    old, young = decide(home, time=NOW - 90_000.0), decide(home, "d2")
    for decision in (old, young):
        keep(home, CONFIG, decision, ASKED)

    privacy.sweep(home, CONFIG, NOW)

    assert [prompts(home).get(decision) for decision in (old, young)] == [None, ASKED]


def test_a_file_that_is_no_database_is_an_error(home):
    """And is left as it is."""
    home.prompts.write_bytes(b"something else" * 100)
    with pytest.raises(RecordError, match="not a database"):
        keep(home, CONFIG, decide(home), ASKED)
