"""Facts about erasure: nothing is left of a person, in any byte of any file, and nobody else notices."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from bandits.config import Config, parse_config
from bandits.errors import PilotageError
from bandits.explaining.audited import broken_links
from bandits.explaining.replay import Policies, verify
from bandits.home import Home
from bandits.ids import IdRing
from bandits.privacy import erasing as privacy
from bandits.privacy.people import People
from bandits.record.audit import Audit
from bandits.record.memory import MemoryRecord
from bandits.record.port import rows
from bandits.rewards import feedback
from bandits.router import Router
from bandits.serving import Server
from bandits.snapshots.keys import signing_key, trusted_keys
from bandits.snapshots.loading import list_versions
from bandits.snapshots.manifest import content_hash
from bandits.types import Decision, Outcome, Scope
from bandits.warehouse.loading import load as load_warehouse
from bandits.warehouse.loading import read_runs, write_run
from tests.logs import truth

ARMS = [
    {"name": n, "model": n, "usd_per_request": usd} for n, usd in (("cheap", 1e-4), ("middle", 1e-3), ("dear", 1e-2))
]
DOMAIN = {"arms": ARMS, "budget_usd_per_request": 6e-4, "features": "vector-2"}
CONFIG: Config = parse_config(
    {
        "domains": {"own": DOMAIN, "idle": DOMAIN},
        "tenants": {"acme": {"retention_days": 1.0}, "rival": {}},
        "night": {"learners": ["linear"]},
    },
    "test",
)
HERE, THERE = Scope("acme", "main", "own"), Scope("rival", "main", "own")
NOW = 1_790_000_000.0
MARK = np.float32(0.123456789).tobytes() + np.float32(-0.987654321).tobytes()  # the context of the person, and no other


def person(home: Home, tenant: str = "acme") -> str:
    return IdRing(home.root).pseudonym(tenant, "Ada Lovelace")


def fill(home: Home, n: int = 400) -> list[str]:
    """Two tenants of n decisions each; every tenth of acme is Ada's, with a context of her own; her decision ids."""
    rng = np.random.default_rng(0)
    ada, hers = person(home), []
    with home.open_record() as record:
        routers = [Router(scope, CONFIG.domains["own"], record, rng, lambda: NOW) for scope in (HERE, THERE)]
        for i in range(2 * n):
            router, is_hers = routers[i % 2], i % 20 == 0
            context = np.frombuffer(MARK, np.float32) if is_hers else rng.normal(size=2).astype(np.float32)
            decision = router.decide(context.copy(), user=ada if is_hers else f"other-{i}")
            quality = float(np.clip(truth(context[None, :])[0, decision.action] + rng.normal(0, 0.1), 0, 1))
            usd = ARMS[decision.action]["usd_per_request"]
            router.report(Outcome(decision.id, NOW, router.scope, quality=quality, cost_usd=usd))
            if is_hers:
                hers.append(decision.id)
        load_warehouse(record, home.warehouse)
    return hers


def publish_all(home: Home) -> None:
    for scope in (HERE, THERE):
        policy, position = privacy.learned_from(home, CONFIG, scope, NOW)
        for _ in range(2):
            privacy.publish(
                home.snapshots, scope, policy.freeze(), position=position, parent=None, evidence={}, created=NOW,
                expires=NOW + 1e6, key=signing_key(home.root),
            )  # fmt: skip


@pytest.fixture
def home(tmp_path) -> Home:
    made = Home(tmp_path / "home")
    fill(made)
    publish_all(made)
    write_run(made.warehouse, {"id": "run-1", "scope": str(HERE), "time": 1.0, "verdict": "kept", "report": {}})
    return made


def everything(home: Home) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(home.root.rglob("*")) if path.is_file())


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_nothing_of_a_person_is_left_in_any_byte_and_nobody_else_notices(home):
    """Context, pseudonym, ids: in the files before, in none after; the policy is the one that never saw her."""
    with home.open_record() as record:
        hers = [entry for _, entry in rows(record) if isinstance(entry, Decision) and entry.user == person(home)]
        ids = {decision.id for decision in hers}
        others = [(p, e) for p, e in rows(record) if (e.id if isinstance(e, Decision) else e.decision_id) not in ids]
    rivals = tree(home.snapshots / "rival")
    before = everything(home)
    assert MARK in before
    assert person(home).encode() in before

    report = privacy.erase(home, CONFIG, "acme", person(home), NOW)

    assert (report.decisions, report.outcomes, report.epoch) == (len(hers), len(hers), 2)
    after = everything(home)
    for secret in (MARK, person(home).encode(), *(decision.id.encode() for decision in hers)):
        assert secret not in after
    assert tree(home.snapshots / "rival") == rivals
    never = MemoryRecord()
    for _, entry in others:
        never.append(entry)
    expected = privacy.night.learn(feedback(rows(never), HERE, CONFIG.domains["own"], NOW), CONFIG.domains["own"],
                                   CONFIG.night.model_copy(update={"trials": 1}))  # fmt: skip
    chosen = privacy.night.judge(expected, CONFIG.night.model_copy(update={"trials": 1}))
    (left,) = list_versions(home.snapshots, HERE, trusted=trusted_keys(home.root), now=NOW)
    assert left.version == report.snapshots[str(HERE)] == "000003"
    assert left.manifest.content == content_hash(chosen.policies[chosen.guard.chosen].freeze().arrays)
    with home.open_record() as record:
        assert [(p, e.time) for p, e in rows(record)] == [(p, e.time) for p, e in others]
        assert len(record.erased(0, record.head())) == 2 * len(hers)
    assert [run["id"] for run in read_runs(home.warehouse)] == ["run-1"]
    assert broken_links(home) == []
    assert [row.action for row in Audit(home.audit_url).rows("acme")] == ["erasure"]


def test_erasing_twice_or_somebody_unknown_changes_nothing(home):
    """And says so; the epoch goes on."""
    privacy.erase(home, CONFIG, "acme", person(home), NOW)
    files = tree(home.snapshots)

    for user in (person(home), "nobody-we-know"):
        report = privacy.erase(home, CONFIG, "acme", user, NOW)
        assert (report.decisions, report.epoch, report.snapshots) == (0, 2, {})
        assert "nothing was found" in report.render()
    assert tree(home.snapshots) == files
    with pytest.raises(PilotageError, match="must name a person"):
        privacy.erase(home, CONFIG, "acme", "", NOW)


def test_the_same_person_with_another_tenant_is_another_pseudonym(home):
    """Erasing her here leaves what the other tenant keeps."""
    assert person(home, "acme") != person(home, "rival")
    with home.open_record() as record:
        made = Router(THERE, CONFIG.domains["own"], record, np.random.default_rng(9), lambda: NOW)
        kept = made.decide(np.zeros(2, np.float32), user=person(home, "rival"))
    privacy.erase(home, CONFIG, "acme", person(home), NOW)

    with home.open_record() as record:
        assert record.decision(kept.id, "rival").user == person(home, "rival")


@pytest.mark.parametrize("step", ["record", "key", "caches", "snapshots", "audit"])
def test_an_erasure_that_is_killed_is_completed_by_the_next_run(home, step):
    """SIGKILL behind each step: then the same end as without, one row in the audit, nothing left to do."""
    People(home.people).keys(("acme", person(home)))
    child = os.fork()
    if child == 0:

        def kill(done: str) -> None:
            if done == step:
                os.kill(os.getpid(), signal.SIGKILL)

        privacy.erase(home, CONFIG, "acme", person(home), NOW, kill)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert list(home.erasures.glob("*.json"))

    privacy.complete(home, CONFIG)

    assert not list(home.erasures.glob("*.json"))
    assert MARK not in everything(home)
    assert person(home).encode() not in everything(home)
    assert [row.action for row in Audit(home.audit_url).rows("acme")] == ["erasure"]
    assert len(list_versions(home.snapshots, HERE, trusted=trusted_keys(home.root), now=NOW)) == 1


def test_serving_goes_on_while_a_person_is_erased(home):
    """No decision fails; the server takes up the policy that was learned anew."""
    with home.open_record() as record:
        server = Server(home, CONFIG, HERE, record, np.random.default_rng(3), lambda: NOW)
        stop, failed = threading.Event(), []

        def serve() -> None:
            while not stop.is_set():
                try:
                    decision = server.router.decide(np.zeros(2, np.float32), user="somebody")
                    server.router.report(Outcome(decision.id, NOW, HERE, quality=0.5))
                except PilotageError as error:
                    failed.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            privacy.erase(home, CONFIG, "acme", person(home), NOW)
        finally:
            stop.set()
            thread.join()

        assert failed == []
        assert server.refresh()
        assert server.router.serving.version == "000003"
        position = load_warehouse(record, home.warehouse).position
        assert position == record.head()
    assert MARK not in everything(home)


def test_decisions_of_an_earlier_epoch_are_not_promised_to_replay(home):
    """They answer so; those of the new epoch replay, and what was erased is no gap."""
    privacy.erase(home, CONFIG, "acme", person(home), NOW)
    with home.open_record() as record:
        server = Server(home, CONFIG, HERE, record, np.random.default_rng(3), lambda: NOW)
        for _ in range(5):
            server.router.decide(np.zeros(2, np.float32))
        policies = Policies(CONFIG.domains, home.snapshots, trusted_keys(home.root))
        found = verify(record, policies)
        assert found.faults == []
        assert found.erased == 80
        assert "80 rows were erased" in found.render()
        late = verify(record, policies, record.epoch().start)
    assert (late.decisions, late.replayed) == (5, 5)


def test_an_export_tells_all_that_is_kept_of_a_person_and_nothing_of_others(home):
    """Every decision with its outcomes, as JSON."""
    with home.open_record() as record:
        found = list(privacy.export(record, "acme", person(home)))
        assert list(privacy.export(record, "rival", person(home))) == []

    assert len(found) == 20 * 2
    assert {one["user"] for one in found} == {person(home)}
    assert all(len(one["outcomes"]) == 1 for one in found)
    json.dumps(found, allow_nan=False)


def test_what_is_older_than_a_tenant_keeps_is_swept_away(tmp_path):
    """retention_days: 1. Decisions of three days ago go, of every person; those of today and of others stay."""
    home = Home(tmp_path)
    with home.open_record() as record:
        for scope in (HERE, THERE):
            for days in (3.0, 0.0):
                rng, at = np.random.default_rng([int(days), scope is HERE]), NOW - days * 86_400.0
                router = Router(scope, CONFIG.domains["own"], record, rng, lambda at=at: at)
                router.decide(np.zeros(2, np.float32), user="anybody")
                router.decide(np.zeros(2, np.float32))

    reports = privacy.sweep(home, CONFIG, NOW)

    assert {tenant: report.decisions for tenant, report in reports.items()} == {"acme": 2}
    assert privacy.sweep(home, CONFIG, NOW) == {}
    with home.open_record() as record:
        kept = [(e.scope.tenant, NOW - e.time) for _, e in rows(record)]
    assert kept == [("acme", 0.0)] * 2 + [("rival", 3 * 86_400.0)] * 2 + [("rival", 0.0)] * 2


def test_an_outcome_of_an_erased_decision_is_unknown(home):
    """It cannot bring the person back."""
    with home.open_record() as record:
        decision = next(e for _, e in rows(record) if isinstance(e, Decision) and e.user == person(home))
    privacy.erase(home, CONFIG, "acme", person(home), NOW)

    with home.open_record() as record, pytest.raises(PilotageError, match="must follow its decision"):
        record.append(Outcome(decision.id, NOW, HERE, quality=1.0))
