"""Runs that go on without their caller: followed by asking or by events, cancelled, taken over, given to Prefect."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bandits.config import parse_config
from bandits.home import Home
from bandits.settings.pilot import PilotConfig
from graphs import runs as store
from graphs.depth import READ
from graphs.runs import RunStore
from graphs.state import PilotRequest

NOTES = {"name": "notes.md", "text": "# Deploy\n\nThe deploy failed on Friday. We rolled it back."}
TRAIL = [(step, what) for step in ("ingest", "segment", "embed", "analysis") for what in ("started", "completed")]


def begin(api, mode="background", **body):
    answer = api.post(f"/pilot/run?mode={mode}", json={"inputs": [NOTES]} | body)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/pilot/runs/{answer.json()['run_id']}"
    return answer.json()


def ended(api, run_id, within_s=60.0):
    """The run, once it has ended; asked again and again, as a caller would."""
    end = time.monotonic() + within_s
    while (run := api.get(f"/pilot/runs/{run_id}").json())["phase"] != "ended":
        assert time.monotonic() < end, run
        time.sleep(0.02)
    return run


def streamed(api, run_id, **headers):
    """[(id, event, data)] of a stream to its end."""
    with api.stream("GET", f"/pilot/runs/{run_id}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        told = [
            dict(line.split(": ", 1) for line in part.split("\n")) for part in answer.read().decode().split("\n\n")[:-1]
        ]
    return [(one.get("id"), one["event"], json.loads(one["data"])) for one in told]


@contextmanager
def held(running):
    """Keep the threads of a server's pilot busy."""
    pilot, go = running.app.state.parts.pilot, threading.Event()
    for _ in range(pilot._pool._max_workers):
        pilot._pool.submit(go.wait, 60)
    try:
        yield
    finally:
        go.set()


def test_a_run_in_the_background_is_followed_to_its_result(shared):
    """The same result that a caller who waits is given."""
    run = ended(shared.api, begin(shared.api)["run_id"])
    waited = shared.api.post("/pilot/run", json={"inputs": [NOTES]}).json()

    assert (run["status"], run["error"], run["cancelled"], run["mode"]) == ("ok", None, False, "background")
    assert run["steps"] == dict.fromkeys(["ingest", "segment", "embed", "analysis"], "completed")
    assert [(event["step"], event["what"]) for event in run["events"]] == TRAIL
    assert run["result"]["run_id"] == run["run_id"]
    assert run["result"]["analysis"] == waited["analysis"]


def test_a_run_that_was_waited_for_can_be_looked_at_afterwards(shared):
    """By the id in its answer, with the same content."""
    answer = shared.api.post("/pilot/run?enable_embed=no", json={"inputs": [NOTES]}).json()
    run = shared.api.get(f"/pilot/runs/{answer['run_id']}").json()

    assert (run["mode"], run["phase"]) == ("wait", "ended")
    assert run["result"] == answer
    assert run["steps"]["embed"] == "skipped"


def test_the_events_of_a_run_are_streamed_as_they_happen_and_once(shared):
    """Numbered, so that who comes back hears only the rest; the last one tells how it ended."""
    with held(shared.running):
        run_id = begin(shared.api)["run_id"]
    told = streamed(shared.api, run_id)

    assert [number for number, _, _ in told] == [*map(str, range(1, len(TRAIL) + 1)), None]
    assert [(data["step"], data["what"]) for _, event, data in told if event == "step"] == TRAIL
    assert told[-1][1:] == ("end", {"run_id": run_id, "status": "ok", "error": None})
    assert streamed(shared.api, run_id, **{"Last-Event-ID": "6"}) == told[6:]


def test_a_run_that_is_cancelled_takes_no_further_step(shared):
    """It ends as failed, and says why; a second time changes nothing."""
    with held(shared.running):
        run_id = begin(shared.api)["run_id"]
        assert shared.api.get(f"/pilot/runs/{run_id}").json()["phase"] == "waiting"
        asked = shared.api.delete(f"/pilot/runs/{run_id}")
        assert (asked.status_code, asked.json()["cancelled"]) == (202, True)
    run = ended(shared.api, run_id)

    assert (run["status"], run["steps"]) == (
        "failed",
        dict.fromkeys(["ingest", "segment", "embed", "analysis"], "skipped"),
    )
    assert "cancelled" in run["error"]["reason"]
    assert shared.api.delete(f"/pilot/runs/{run_id}").json() == run


def test_whoever_waits_for_a_run_that_is_cancelled_is_told_so(shared):
    """409, not a fault of the service."""
    answers = []
    pilot = shared.running.app.state.parts.pilot
    with held(shared.running):
        waiting = threading.Thread(
            target=lambda: answers.append(shared.api.post("/pilot/run", json={"inputs": [NOTES]}))
        )
        before = pilot._store().begin
        stored = threading.Event()

        def begun(*given, **more):
            run_id = before(*given, **more)
            pilot._store().cancel(run_id, "acme")
            stored.set()
            return run_id

        pilot._store().begin = begun
        waiting.start()
    assert stored.wait(60)
    del pilot._store().begin
    waiting.join(60)

    assert (answers[0].status_code, answers[0].json()["error"]["type"]) == (409, "RunCancelledError")


@pytest.mark.parametrize("path", ["/pilot/runs/{}", "/pilot/runs/{}/events"])
def test_a_run_of_another_tenant_is_not_there(shared, path):
    """As little as one that never was; nor can it be cancelled."""
    run_id = begin(shared.api)["run_id"]
    there, nowhere = (shared.other.get(path.format(one)) for one in (run_id, "0" * 32))

    assert (there.status_code, nowhere.status_code) == (404, 404)
    assert there.text.replace(run_id, "") == nowhere.text.replace("0" * 32, "")
    assert shared.other.delete(f"/pilot/runs/{run_id}").status_code == 404
    assert ended(shared.api, run_id)["status"] == "ok"
    assert shared.stranger.get(path.format(run_id)).status_code == 401


def test_an_address_that_is_not_public_is_left_out(shared):
    """With the reason; alone, the request is refused."""
    bad = "http://169.254.169.254/latest"
    run = shared.api.post("/pilot/run", json={"inputs": [NOTES], "urls": [bad]}).json()
    alone = shared.api.post("/pilot/run", json={"urls": [bad]})

    assert (run["status"], run["ingest"]["left_out"][0]["fault"]) == ("degraded", "refused")
    assert alone.status_code == 422
    assert "not public" in alone.json()["error"]["message"]
    for url in ("file:///etc/passwd", "/etc/passwd", "ftp://a.test/", ""):
        assert shared.api.post("/pilot/run", json={"urls": [url]}).status_code == 422


def test_a_run_that_a_service_left_behind_goes_on_with_the_next(serve_at, home, config, acme, monkeypatch):
    """One that waits for somebody who is still there does not."""
    home.root.mkdir(parents=True, exist_ok=True)
    request = PilotRequest("acme", "main", [("notes.md", NOTES["text"])])
    with RunStore.at(home) as runs:
        monkeypatch.setattr(store, "_SELF", "gone")
        left = runs.begin(request, mode="background", owner=store.this_process())
        monkeypatch.undo()
        waits = runs.begin(request, mode="background", owner=store.this_process())
        prefects = runs.begin(request, mode="enqueue")
    with serve_at(home, config).client(acme) as api:
        assert ended(api, left)["status"] == "ok"
        assert [api.get(f"/pilot/runs/{one}").json()["phase"] for one in (waits, prefects)] == ["waiting"] * 2


def test_votes_on_a_report_are_outcomes_of_how_deep_it_was_read(serve_at, home, config, acme):
    """Where the domain is configured: each document's decision stands in the result, and takes a vote once."""
    arms = [
        {"name": name, "model": name, "usd_per_request": usd}
        for name, usd in zip(READ, (1e-5, 1e-4, 1e-3), strict=True)
    ]
    domains = config.model_dump()["domains"] | {"content_analysis": {"arms": arms, "budget_usd_per_request": 1e-2}}
    deep = parse_config(config.model_dump(exclude={"record"}) | {"domains": domains}, "test")
    running = serve_at(home, deep)
    with running.client(acme) as api:
        long = {"name": "long.txt", "text": "The deploy failed on Friday. " * 300}
        run = api.post("/pilot/run", json={"inputs": [NOTES, long]}).json()
        depths = run["ingest"]["depths"]
        votes = [api.post("/feedback", json={"decision_id": one["decision_id"], "vote": 1}).json() for one in depths]
        story = api.get(f"/decisions/{depths[0]['decision_id']}").json()

    assert [one["document"] for one in depths] == [one["id"] for one in run["ingest"]["documents"]]
    assert {one["depth"] for one in depths} <= set(READ)
    assert votes == [{"recorded": True}] * 2
    assert (story["scope"], story["arm"], story["reward"]) == ("acme/main/content_analysis", depths[0]["depth"], 1.0)


class Prefect(BaseHTTPRequestHandler):
    """As much of a Prefect server as the service speaks to."""

    def do_GET(self):
        known = self.path == "/api/deployments/name/pilot/daily"
        self._answer(200 if known else 404, {"id": "d-1"} if known else {"detail": "Deployment not found"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        self._answer(201, {"id": "f-1"})

    def _answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def prefect(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Prefect)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_run_for_prefect_is_stored_and_its_number_handed_over(shared, prefect):
    """Not its documents: whoever works for Prefect takes them from the store."""
    accepted = begin(shared.api, "enqueue", enable_embed=False)
    run = shared.api.get(f"/pilot/runs/{accepted['run_id']}").json()

    assert accepted["flow_run_id"] == "f-1"
    assert (run["mode"], run["phase"]) == ("enqueue", "waiting")
    ((path, body),) = prefect.asked
    assert path == "/api/deployments/d-1/create_flow_run"
    parameters = {"tenant": "acme", "workspace": "main", "run_id": accepted["run_id"]}
    assert body == {"parameters": parameters, "idempotency_key": accepted["run_id"]}


def test_without_a_prefect_server_nothing_is_enqueued_and_nothing_is_left(shared, monkeypatch):
    """503 with its type: not set, not there, not deployed."""
    pilot = shared.running.app.state.parts.pilot
    stored = []
    before = pilot._store().begin
    monkeypatch.setattr(
        pilot._store(), "begin", lambda *given, **more: stored.append(before(*given, **more)) or stored[-1]
    )
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    for url in (None, "http://127.0.0.1:9/api"):
        if url:
            monkeypatch.setenv("PREFECT_API_URL", url)
        answer = shared.api.post("/pilot/run?mode=enqueue", json={"inputs": [NOTES]})
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "PrefectUnavailableError")
    assert len(stored) == 2
    for run_id in stored:
        assert shared.api.get(f"/pilot/runs/{run_id}").status_code == 404


def test_a_deployment_that_is_not_there_is_named(serve_at, home, config, acme, prefect):
    """With what deploys it."""
    settings = PilotConfig(deployment="pilot/elsewhere")
    with serve_at(home, config.model_copy(update={"pilot": settings})).client(acme) as api:
        answer = api.post("/pilot/run?mode=enqueue")
    assert answer.status_code == 503
    assert "pilot/elsewhere, but answers with 404; deploy it" in answer.json()["error"]["message"]


def test_any_other_mode_is_refused(shared):
    """And nothing is run."""
    assert shared.api.get("/pilot/run?mode=later").status_code == 422


def test_the_store_of_a_home_is_beside_its_record(tmp_path):
    """Or with it on its server."""
    with RunStore.at(Home(tmp_path)) as runs:
        assert runs.url == f"sqlite:///{tmp_path}/pilot.db"
