"""Facts about automations: on a real server, what they are for really happens."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue

import httpx
import pytest

from bandits.warehouse.loading import read_runs
from tests.flows.conftest import ROOT, ended, wait_for

pytestmark = pytest.mark.slow

NIGHT = "from flows.night import night; night('nobody')"  # whom pilotage.toml does not know
LANDED = """
from prefect.events import emit_event
import flows
emit_event("pilotage.dataset.landed", {"prefect.resource.id": "pilotage.dataset.test"}).json()
"""
WAIT_S = 120.0


@pytest.fixture
def called() -> Iterator[Queue]:
    """Whoever is on duty: a server of the loopback, and what was posted to it."""
    calls: Queue = Queue()

    class Duty(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            calls.put((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            del arguments

    server = ThreadingHTTPServer(("127.0.0.1", 0), Duty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    calls.url = f"http://127.0.0.1:{server.server_port}/duty"  # type: ignore[attr-defined]
    yield calls
    server.shutdown()
    server.server_close()


@pytest.fixture
def on_duty(api: httpx.Client, called: Queue, monkeypatch: pytest.MonkeyPatch) -> httpx.Client:
    """The server of these tests, with the automations of whoever set PILOTAGE_WEBHOOK."""
    monkeypatch.setenv("PILOTAGE_WEBHOOK", called.url)  # type: ignore[attr-defined]
    monkeypatch.setenv("PILOTAGE_WEBHOOK_PRIVATE", "1")
    subprocess.run([sys.executable, "-m", "flows.automations"], cwd=ROOT, check=True, capture_output=True)
    return api


def test_a_flow_that_fails_calls_the_webhook_once_and_says_which(on_duty, called):
    """A real flow run in a process of its own; the call names flow, run and state, as JSON."""
    done = subprocess.run([sys.executable, "-c", NIGHT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1

    path, body = called.get(timeout=WAIT_S)
    found = json.loads(body)

    assert (path, found["flow"], found["state"]) == ("/duty", "night", "Failed")
    assert found["run"] == "night-nobody-main-model_routing"
    assert on_duty.get(f"/flow_runs/{found['id']}").json()["state"]["type"] == "FAILED"
    assert called.empty()


def test_a_night_that_fails_is_an_event_of_its_scope_too(on_duty, tmp_path, monkeypatch):
    """With its reason, for whoever watches scopes and not flows."""
    monkeypatch.setenv("PILOTAGE_HOME", str(tmp_path))
    (tmp_path / "record.db").write_bytes(b"this is no database" * 100)
    done = subprocess.run([sys.executable, "-c", NIGHT.replace("nobody", "demo")], cwd=ROOT, check=False)
    assert done.returncode == 1

    wanted = {"filter": {"event": {"name": ["pilotage.night.failed"]}}}
    (event,) = wait_for(lambda: on_duty.post("/events/filter", json=wanted).json()["events"], WAIT_S)
    assert event["resource"]["prefect.resource.id"] == "pilotage.scope.demo/main/model_routing"
    assert "record.db" in event["payload"]["reason"]


@pytest.mark.parametrize("type_", ["CRASHED", "FAILED"])
def test_a_run_of_any_name_that_crashed_is_told_as_json(on_duty, called, type_):
    """Names are for people, who write what they like."""
    flow = on_duty.post("/flows/", json={"name": "odd"}).json()
    name = 'he said "no"\\ and left'
    run = on_duty.post("/flow_runs/", json={"flow_id": flow["id"], "name": name}).json()
    assert run["name"] == name
    state = {"state": {"type": type_, "name": type_.capitalize(), "message": "the node went away"}, "force": True}
    on_duty.post(f"/flow_runs/{run['id']}/set_state", json=state).raise_for_status()

    found = json.loads(called.get(timeout=WAIT_S)[1])

    assert found == {"flow": "odd", "run": name, "id": run["id"], "state": type_.capitalize()}


def test_a_run_that_completes_calls_nobody(on_duty, called):
    """The next that fails is the first to be heard of."""
    flow = on_duty.post("/flows/", json={"name": "even"}).json()
    ids = []
    for type_ in ("COMPLETED", "CANCELLED", "FAILED"):
        run = on_duty.post("/flow_runs/", json={"flow_id": flow["id"]}).json()
        state = {"state": {"type": type_, "name": type_.capitalize()}, "force": True}
        on_duty.post(f"/flow_runs/{run['id']}/set_state", json=state).raise_for_status()
        ids.append(run["id"])

    assert json.loads(called.get(timeout=WAIT_S)[1])["id"] == ids[-1]
    assert called.empty()


def test_a_data_set_that_landed_starts_the_nights_and_they_end(on_duty, place):
    """An event from a process of its own; the deployment gets a run that nobody asked for and no clock made."""
    nights = on_duty.get("/deployments/name/nights/nightly").json()

    def runs() -> list[dict]:
        wanted = {"deployments": {"id": {"any_": [nights["id"]]}}, "limit": 200}
        found = on_duty.post("/flow_runs/filter", json=wanted).json()
        return [run for run in found if (run["created_by"] or {}).get("type") == "AUTOMATION"]

    before = {run["id"] for run in runs()}
    subprocess.run([sys.executable, "-c", LANDED], cwd=ROOT, check=True, capture_output=True)

    (run,) = wait_for(lambda: [run for run in runs() if run["id"] not in before], WAIT_S)
    assert wait_for(lambda: ended(on_duty, run["id"]), 2 * WAIT_S)["state"]["type"] == "COMPLETED"
    assert read_runs(place.warehouse), "the night left its run"
    assert len(runs()) == len(before) + 1
