"""Operations: counters move by exactly what happened, readiness tells the truth, snapshots swap without a failure."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bandits.home import Home
from bandits.types import Scope
from service import quick
from service.gate import Gate
from service.metrics import EDGES, Metrics

PATIENCE_S = 30.0  # until a test gives up; none is passed by waiting


def numbers(client) -> Counter:
    """Every sample of /metrics: (name, label values in order of their names) -> value."""
    answer = client.get("/metrics")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return Counter(
        {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if not sample.name.endswith("_created")
        }
    )


def moved(before: Counter, after: Counter) -> dict:
    return {key: after[key] - before[key] for key in after.keys() | before.keys() if after[key] != before[key]}


def until(holds: Callable[[], bool]) -> None:
    """Ask again until it holds; fail when it never does."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came true"


def test_alive_and_ready_need_no_key(running):
    """And tell strangers nothing but counts."""
    with running.client(None) as stranger:
        assert stranger.get("/healthz").json() == {"status": "alive"}
        ready = stranger.get("/readyz")
    assert ready.json() == {"status": "ready", "record": "writable", "learned": 0, "first": 0, "stale": 0, "faults": []}


def test_a_new_app_has_counted_nothing(api):
    """Each app counts for itself."""
    assert {key: value for key, value in numbers(api).items() if value} == {}


def test_decisions_are_counted_once_each(api):
    """By domain, arm and slot; and each is timed, in buckets with an edge at exactly 0.1 s."""
    before = numbers(api)
    arms = Counter(api.post("/route", json={"prompt": "x"}).json()["arm"] for _ in range(12))
    api.post("/route", json={"context": [1, 2, 3], "domain": "own"})
    after = numbers(api)

    decided = {key[1:]: n for key, n in moved(before, after).items() if key[0] == "pilotage_decisions_total"}
    assert {
        arm: n for (arm, domain, slot), n in decided.items() if (domain, slot) == ("model_routing", "stable")
    } == arms
    assert sum(n for (_, domain, _), n in decided.items() if domain == "own") == 1
    assert after["pilotage_decision_duration_seconds_count",] == 13
    assert 0.1 in EDGES
    assert after["pilotage_decision_duration_seconds_bucket", "+Inf"] == 13
    assert ("pilotage_decision_duration_seconds_bucket", "0.1") in after


def test_outcomes_are_counted_by_what_they_measure(api):
    """One for each kind that an outcome holds; a refused one counts for nothing."""
    made = api.post("/route", json={"prompt": "x"}).json()["decision_id"]
    before = numbers(api)
    for part in ({"quality": 0.5, "cost_usd": 0.1}, {"vote": 1}, {"quality": 0.0}, {"quality": 2.0}):
        api.post("/feedback", json={"decision_id": made} | part)
    changes = moved(before, numbers(api))

    assert {key[1]: n for key, n in changes.items() if key[0] == "pilotage_outcomes_total"} == {
        "quality": 2,
        "cost_usd": 1,
        "vote": 1,
    }
    assert changes["pilotage_errors_total", "422"] == 1


def test_errors_are_counted_by_status(running, acme):
    """Each refusal once, whichever part of the service refused."""
    with running.client(acme) as api, running.client(None) as stranger:
        stranger.get("/snapshots")
        stranger.post("/route")
        api.get("/nope")
        api.put("/route")
        api.get("/decisions/none")
        api.post("/route", content=b"{", headers={"Content-Type": "application/json"})
        api.post("/route", content=b" " * 10_000_001)
        api.get("/snapshots?tenant=rival")
        errors = {key[1]: n for key, n in numbers(api).items() if key[0] == "pilotage_errors_total"}

    assert errors == {"401": 2, "403": 1, "404": 2, "405": 1, "413": 1, "422": 1}


def test_steps_of_the_pilot_are_counted_by_result(api):
    """Completed, skipped and failed; nothing stays in flight."""
    api.get("/pilot/run?enable_embed=0")
    api.post("/pilot/run", json={"inputs": [{"name": "a.vtt", "text": "x"}]})
    after = numbers(api)
    steps = {key[2:0:-1]: n for key, n in after.items() if key[0] == "pilotage_pilot_steps_total" and n}

    assert steps == {
        ("ingest", "completed"): 1,
        ("ingest", "failed"): 1,
        ("segment", "completed"): 1,
        ("segment", "skipped"): 1,
        ("embed", "skipped"): 2,
        ("analysis", "completed"): 1,
        ("analysis", "skipped"): 1,
    }
    assert after["pilotage_pilot_in_flight",] == 0


def test_no_label_holds_a_prompt_a_decision_or_a_key(api, acme):
    """Only names of the configuration."""
    made = api.post("/route", json={"prompt": "unmistakable words"}).json()["decision_id"]
    text = api.get("/metrics").text

    assert not any(secret in text for secret in ("unmistakable", made, acme, acme[:12]))


def test_a_record_that_cannot_be_written_makes_the_service_unready(running, acme, home):
    """503 with the reason, without the path of the home; alive all the same; ready again when it is free."""
    lock = sqlite3.connect(home.root / "record.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    with running.client(None) as stranger:
        unready = stranger.get("/readyz")
        assert stranger.get("/healthz").status_code == 200
        lock.execute("ROLLBACK")
        lock.close()
        assert stranger.get("/readyz").status_code == 200

    assert (unready.status_code, unready.json()["error"]["type"]) == (503, "RecordError")
    assert "locked" in unready.text
    assert str(home.root) not in unready.text


def test_a_published_snapshot_serves_and_is_shown(start, acme, publish):
    """Without a restart: /route, /metrics and /readyz agree on the version."""
    with start(refresh_s=0.01).client(acme) as api:
        assert api.post("/route", json={"prompt": "x"}).json()["policy"] == "explore"
        assert numbers(api)["pilotage_snapshot_info", "acme/main/model_routing", "explore"] == 1
        version = publish("large")
        until(lambda: api.post("/route", json={"prompt": "x"}).json()["policy"] == version)

        shown = numbers(api)
        assert shown["pilotage_snapshot_info", "acme/main/model_routing", version] == 1
        assert ("pilotage_snapshot_info", "acme/main/model_routing", "explore") not in shown
        assert api.get("/readyz").json()["learned"] == 1


def test_snapshots_are_swapped_under_requests_without_a_failure(start, acme, publish):
    """Three callers ask on while three versions are published; every request is answered, and every version acts."""
    running, done, answers = start(refresh_s=0.01), threading.Event(), []

    def ask() -> None:
        with running.client(acme) as client:
            while not done.is_set():
                answer = client.post("/route", json={"prompt": "x"})
                answers.append((answer.status_code, answer.json().get("policy")))

    callers = [threading.Thread(target=ask) for _ in range(3)]
    for caller in callers:
        caller.start()
    try:
        for arm in ("large", "small", "middle"):
            version = publish(arm)
            until(lambda version=version: (200, version) in answers.copy())
    finally:
        done.set()
        for caller in callers:
            caller.join()

    assert {status for status, _ in answers} == {200}
    assert {policy for _, policy in answers} >= {f"{i:06d}" for i in range(1, 4)}


def test_a_tampered_snapshot_keeps_the_last_good_one_serving(start, acme, rival, home, publish, tmp_path):
    """/route goes on, /readyz counts it for all and tells its tenant why, /snapshots shows the fault."""
    scope, elsewhere = "acme/main/model_routing", Home(tmp_path / "elsewhere")
    good = publish("large")
    publish("small", to=elsewhere)
    publish("small", to=elsewhere)
    bad = elsewhere.snapshots / scope / "000002"
    data = bytearray((bad / "arrays.safetensors").read_bytes())
    data[-1] ^= 1
    (bad / "arrays.safetensors").write_bytes(data)

    running = start(refresh_s=0.01)
    with running.client(acme) as api, running.client(rival) as other, running.client(None) as stranger:
        assert api.post("/route", json={"prompt": "x"}).json()["policy"] == good
        bad.rename(home.snapshots / scope / "000002")
        until(lambda: api.get("/readyz").json()["stale"] == 1)

        assert api.post("/route", json={"prompt": "x"}).json()["policy"] == good
        told = api.get("/readyz")
        assert told.status_code == 200
        assert [scope in fault and "000002" in fault for fault in told.json()["faults"]] == [True]
        for client in (other, stranger):
            assert (client.get("/readyz").json()["stale"], client.get("/readyz").json()["faults"]) == (1, [])
        listed = api.get("/snapshots").json()
        assert [(one["version"], one["fault"] is None, one["serving"]) for one in listed] == [
            ("000001", True, True),
            ("000002", False, False),
        ]
        newer = publish("middle")
        until(lambda: api.post("/route", json={"prompt": "x"}).json()["policy"] == newer)
        until(lambda: api.get("/readyz").json()["stale"] == 0)


def test_keys_that_cannot_be_trusted_are_told_while_the_first_policy_serves(start, acme, home, publish):
    """/readyz counts the scope and says why, without the place of the home; mended, the snapshot serves."""
    version = publish("large")
    public = home.root / "keys" / "signing.pub"
    public.chmod(0o666)
    with start(refresh_s=0.01).client(acme) as api:
        assert api.post("/route", json={"prompt": "x"}).json()["policy"] == "explore"
        ready = api.get("/readyz")
        assert (ready.status_code, ready.json()["stale"], len(ready.json()["faults"])) == (200, 1, 1)
        assert "chmod" in ready.text
        assert str(home.root) not in ready.text
        public.chmod(0o644)
        until(lambda: api.post("/route", json={"prompt": "x"}).json()["policy"] == version)
        until(lambda: api.get("/readyz").json()["stale"] == 0)


def test_a_fault_of_the_disk_is_no_fault_of_the_caller(start, acme, home, publish):
    """503 where it stops a request; and the thread that looks for snapshots outlives it."""
    with start(refresh_s=0.01).client(acme) as api:
        assert api.post("/route", json={"prompt": "x"}).json()["policy"] == "explore"
        odd = home.root / "keys" / "odd.pub"
        odd.mkdir()
        until(lambda: api.get("/readyz").json()["stale"] == 1)
        assert api.post("/route", json={"prompt": "x"}).json()["policy"] == "explore"
        answer = api.get("/snapshots")
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "StorageError")
        odd.rmdir()
        version = publish("large")
        until(lambda: api.post("/route", json={"prompt": "x"}).json()["policy"] == version)


def test_a_fault_of_the_service_shows_no_inside(running, acme):
    """500 with a typed body; the words of the exception stay in the log."""

    def broken() -> None:
        raise RuntimeError("an inner secret")

    running.app.add_api_route("/v1/broken", broken, include_in_schema=False)
    with running.client(acme) as api:
        answer = api.get("/v1/broken")
        assert (answer.status_code, answer.json()["error"]["type"]) == (500, "InternalError")
        assert "secret" not in answer.text
        assert numbers(api)["pilotage_errors_total", "500"] == 1


@pytest.mark.parametrize(("where", "what"), [(quick, "decide"), (Gate, "_admitted")], ids=["quick", "gate"])
def test_a_fault_before_the_framework_shows_no_inside_either(running, acme, monkeypatch, where, what):
    """A plain POST /route never comes to the framework; the next one is answered."""

    async def broken(*_: object) -> None:
        raise RuntimeError("an inner secret")

    with running.client(acme) as api:
        with monkeypatch.context() as once:
            once.setattr(where, what, broken)
            answer = httpx.post(f"{running.url}/route", json={"prompt": "x"}, headers=api.headers)
        assert (answer.status_code, answer.json()["error"]["type"]) == (500, "InternalError")
        assert "secret" not in answer.text
        assert answer.headers["cache-control"] == "no-store"
        assert api.post("/route", json={"prompt": "x"}).status_code == 200
        assert numbers(api)["pilotage_errors_total", "500"] == 1


def test_quarantined_arms_are_counted_by_scope(api):
    """None of a scope whose arms are all sound; two of one where two broke."""
    api.post("/route", json={"prompt": "x"})
    assert numbers(api)["pilotage_quarantined_arms", "acme/main/model_routing"] == 0

    text = Metrics().render({}, {Scope("acme", "main", "own"): ("a", "b")}, {}).decode()
    assert 'pilotage_quarantined_arms{scope="acme/main/own"} 2.0' in text


def test_what_it_counts_has_the_names_of_the_convention(api):
    """Counters end in _total, times in _seconds; every family has a help text."""
    api.post("/route", json={"prompt": "x"})
    api.get("/nope")
    families = [f for f in text_string_to_metric_families(api.get("/metrics").text) if not f.name.endswith("_created")]

    assert {(family.name, family.type) for family in families} == {
        ("pilotage_decisions", "counter"),
        ("pilotage_decision_duration_seconds", "histogram"),
        ("pilotage_outcomes", "counter"),
        ("pilotage_errors", "counter"),
        ("pilotage_snapshot_info", "gauge"),
        ("pilotage_quarantined_arms", "gauge"),
        ("pilotage_rollout_share", "gauge"),
        ("pilotage_rollout_info", "gauge"),
        ("pilotage_pilot_steps", "counter"),
        ("pilotage_pilot_in_flight", "gauge"),
    }
    assert all(family.documentation for family in families)
    for family, sample in itertools.chain.from_iterable(
        zip([f] * len(f.samples), f.samples, strict=True) for f in families
    ):
        assert family.type != "counter" or sample.name.endswith("_total")
