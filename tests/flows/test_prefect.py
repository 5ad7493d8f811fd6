"""Facts about the night in Prefect: a real server, real schedules, a real flow run on a real record."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bandits.config import load_config
from bandits.home import Home
from bandits.serving import Server
from bandits.snapshots.keys import trusted_keys
from bandits.snapshots.loading import load
from bandits.types import Outcome, Scope
from bandits.warehouse.loading import read_runs
from tests.flows.conftest import asked, ended, pilotage, wait_for
from tests.scheduled import scopes as nights

ROOT = Path(__file__).parents[2]
SCOPE = Scope("demo", "main", "model_routing")


@pytest.fixture(scope="session")
def day(place):
    """700 decisions with outcomes, served by the real router into the real record: long prompts need the dear model."""
    rng = np.random.default_rng(0)
    now = time.time() - 3600.0
    with place.open_record() as record:
        router = Server(place, load_config(), SCOPE, record, rng, lambda: now).router
        for _ in range(700):
            context = rng.normal(size=76).astype(np.float32)
            decision = router.decide(context)
            quality = float(np.clip((0.6, 0.8 + 0.2 * np.tanh(context[0]), 0.9)[decision.action], 0, 1))
            cost = (3e-5, 5e-4, 1.5e-2)[decision.action]
            router.report(Outcome(decision.id, now, SCOPE, quality=quality, cost_usd=cost))
    return now


def test_each_cron_schedule_really_creates_runs(api):
    """Some versions of the libraries below Prefect start fine and silently never schedule anything."""
    deployments = {d["name"]: d for d in api.post("/deployments/filter", json={}).json()}
    crons = {
        "nightly": ["0 3 * * *"],
        "one-scope": [],
        "search": [],
        "trials": ["0 4 * * *"],
        "figures": ["30 5 * * *", "40 5 * * 1", "50 5 1 * *"],
        "maintain": ["0 2 * * *"],
        "every-five-minutes": ["*/5 * * * *"],
        "daily": ["0 6 * * *"],
        "inbox": [],
    }
    assert crons.keys() == deployments.keys()

    for name, wanted_crons in crons.items():
        deployment = deployments[name]
        here = [s["schedule"]["cron"] for s in deployment["schedules"] if s["active"]]
        assert sorted(here) == sorted(wanted_crons)
        if not wanted_crons:
            continue
        runs = {
            "deployments": {"id": {"any_": [deployment["id"]]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        }
        scheduled = wait_for(lambda wanted=runs: api.post("/flow_runs/filter", json=wanted).json())
        assert all(run["auto_scheduled"] for run in scheduled)


def test_the_form_of_a_run_on_demand_explains_its_parameters(api):
    """What the UI shows is built from this schema: every parameter of every deployment says what it is."""
    deployments = api.post("/deployments/filter", json={}).json()
    properties = {d["name"]: d["parameter_openapi_schema"]["properties"] for d in deployments}

    assert {"tenant", "workspace", "domain", "now"} == set(properties["one-scope"])
    assert "pilotage.toml" in properties["one-scope"]["tenant"]["description"]
    assert [
        f"{name}: {one}" for name, each in properties.items() for one in each if not each[one].get("description")
    ] == []


def test_a_night_publishes_a_snapshot_that_a_router_serves(api, place, day):
    """`pilotage night`: load, learn, judge, publish; its run is in the warehouse, its report an artifact."""
    done = pilotage("night", "--json")
    assert done.returncode == 0, done.stderr
    assert "leaked" not in done.stderr
    (report,) = json.loads(done.stdout)

    assert report["verdict"] == "published"
    assert report["rounds"] == 700
    assert report["version"] == "000001"
    runs = read_runs(place.warehouse, SCOPE)
    assert [run["id"] for run in runs] == [report["run_id"]]
    manifest = load(place.snapshots, SCOPE, trusted=trusted_keys(place.root), now=time.time()).manifest
    assert manifest.evidence["run_id"] == report["run_id"]
    artifacts = api.post("/artifacts/filter", json={}).json()
    assert any(report["run_id"] in (a["data"] or "") for a in artifacts if a["key"] == "night-demo-main-model-routing")

    with place.open_record() as record:
        server = Server(place, load_config(), SCOPE, record, np.random.default_rng(1))
        drawn = {server.router.decide(np.zeros(76, np.float32)).policy for _ in range(40)}
    assert drawn == {"explore", "000001"}  # half of those who ask: a canary


def test_the_command_line_tells_about_it(api, place, day):
    """snapshots, why and doctor, on what the night above left."""
    listed = pilotage("snapshots", "--json")
    assert listed.returncode == 0
    assert json.loads(listed.stdout)[0]["version"] == "000001"
    with place.open_record() as record:
        row = record.read(record.head() - 1)[-1]
    story = pilotage("why", row.entry.id, "--json")
    assert json.loads(story.stdout)["replays"] is True
    assert pilotage("doctor").returncode == 0


def test_a_night_without_enough_data_keeps_and_says_why(api, place, day, tmp_path, monkeypatch):
    """No data is not a failure of the run, and never a change."""
    monkeypatch.setenv("PILOTAGE_HOME", str(tmp_path))

    done = pilotage("night", "--json")

    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)
    assert report["verdict"] == "kept"
    assert "needs 200 rounds" in report["reason"]
    assert not (tmp_path / "snapshots").exists()


def test_a_run_on_demand_over_the_api_reaches_the_worker(api, place, day):
    """What the button in the UI does: parameters over the API, a process of the worker, a finished run."""
    deployment = api.get("/deployments/name/night/one-scope").json()
    parameters = {"tenant": "demo", "workspace": "main", "domain": "model_routing"}
    run = asked(api, deployment, parameters).json()

    assert wait_for(lambda: ended(api, run["id"]), 240.0)["state"]["type"] == "COMPLETED"
    assert len(read_runs(place.warehouse, SCOPE)) == 2


def test_the_pilot_runs_on_demand_with_parameters_and_leaves_its_run_and_report(api, place, tmp_path):
    """Two documents of our own, segmenting switched off: the worker's result is in the warehouse and in an artifact."""
    (tmp_path / "a.md").write_text("# Plans\n\nThe release went well and the votes are good.\n")
    (tmp_path / "b.txt").write_text("The outage was terrible. The gateway failed again, and people were angry.\n")
    deployment = api.get("/deployments/name/pilot/daily").json()
    parameters = {
        "tenant": "demo",
        "paths": [str(tmp_path / "a.md"), str(tmp_path / "b.txt")],
        "enable_segment": False,
    }
    run = asked(api, deployment, parameters).json()

    assert wait_for(lambda: ended(api, run["id"]), 240.0)["state"]["type"] == "COMPLETED"
    (found,) = read_runs(place.warehouse, Scope("demo", "main", "content_analysis"))
    report = found["report"]
    assert [d["name"] for d in report["ingest"]["documents"]] == ["a.md", "b.txt"]
    assert "segment" not in report
    assert report["embed"]["vectors"] == 2
    assert report["orchestrator"] == "langgraph"
    artifacts = api.post("/artifacts/filter", json={}).json()
    assert any(found["id"] in (a["data"] or "") for a in artifacts if a["key"] == "pilot-demo-main")


def test_a_parameter_of_nonsense_is_refused(api):
    """At once, not by a failed run in the night."""
    deployment = api.get("/deployments/name/night/one-scope").json()

    nonsense = {"tenant": "demo", "now": "yesterday"}

    assert asked(api, deployment, nonsense).status_code == 409


def test_the_night_flow_refuses_a_scope_that_is_not_configured(api, place):
    """Exit 1 and a sentence, no traceback."""
    done = pilotage("night", "nobody/main/model_routing")

    assert done.returncode == 1
    assert "scope must be configured" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_night_of_all_scopes_leaves_tables_links_and_events(api, place, day):
    """On demand over the API: a task a scope, and what people and automations want to know."""
    deployment = api.get("/deployments/name/nights/nightly").json()
    run = asked(api, deployment, {}).json()

    assert wait_for(lambda: ended(api, run["id"]), 240.0)["state"]["type"] == "COMPLETED"
    keys = {a["key"] for a in api.post("/artifacts/filter", json={}).json()}
    shared = {f"{what}-demo-main-model-routing" for what in ("night", "candidates", "promotion", "snapshot")}
    assert shared | {"nights"} <= keys
    wanted = {"filter": {"event": {"prefix": ["pilotage.night."]}}, "limit": 50}
    events = wait_for(lambda: api.post("/events/filter", json=wanted).json()["events"])
    assert {e["resource"]["prefect.resource.id"] for e in events} == {"pilotage.scope.demo/main/model_routing"}
    assert "pilotage.night.published" in {e["event"] for e in events}


WORKSPACES = """
[tenants.acme]
workspaces = ["main", "side"]
[domains.own]
features = "vector-2"
budget_usd_per_request = 1.5e-3
arms = [
    {{name = "cheap", model = "a", usd_per_request = 1e-4}}, {{name = "middle", model = "b", usd_per_request = 1e-3}},
    {{name = "dear", model = "c", usd_per_request = 1e-2}},
]
[night]
trials = 2
learners = ["linear"]
"""
NIGHTS = "import json; from flows.night import nights; print(json.dumps(nights(now={now})))"


@pytest.mark.slow
def test_the_flow_spends_the_nights_in_as_many_processes_as_it_is_told(api, tmp_path, monkeypatch):
    """One worker and two, in a home each: the same contents, nothing trained twice; two tasks that run at once."""
    scopes, found, overlap = [nights.SCOPE, nights.SIDE], [], []
    (tmp_path / "pilotage.toml").write_text(WORKSPACES.format(), encoding="utf-8")
    monkeypatch.setenv("PILOTAGE_CONFIG", str(tmp_path / "pilotage.toml"))
    config = load_config()
    for workers in (1, 2):
        home = nights.filled(Home(tmp_path / str(workers)), nights.rows_of(scopes, 300))
        monkeypatch.setenv("PILOTAGE_HOME", str(home.root))
        monkeypatch.setenv("PILOTAGE_NIGHT_WORKERS", str(workers))
        for repeated in (False, True):
            command = [sys.executable, "-c", NIGHTS.format(now=nights.NOW)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            table = json.loads(done.stdout.splitlines()[-1])
            assert [(one["scope"], one["verdict"], one["repeated"]) for one in table] == [
                (str(scope), "published", repeated) for scope in scopes
            ]
            if not repeated:
                overlap.append(_at_once(api, scopes))
        nights.assert_spent_once(home, config, scopes)
        found.append(nights.contents(home, scopes))

    assert found[0] == found[1]
    assert overlap == [False, True]


def _at_once(api, scopes: list[Scope]) -> bool:
    """Whether the newest tasks of these scopes ran at the same time."""
    wanted = {"sort": "EXPECTED_START_TIME_DESC", "limit": 2, "task_runs": {"name": {"any_": list(map(str, scopes))}}}

    def over() -> list[dict] | None:
        runs = api.post("/task_runs/filter", json=wanted).json()  # they arrive as events, a little later
        return runs if len(runs) == 2 and all(run["end_time"] for run in runs) else None

    one, two = wait_for(over)
    return max(one["start_time"], two["start_time"]) < min(one["end_time"], two["end_time"])


def test_automations_are_there_once_however_often_they_are_set_up(api, monkeypatch):
    """Data that landed starts the nights; a webhook only where one is configured."""

    def names() -> list[str]:
        return sorted(a["name"] for a in api.post("/automations/filter", json={}).json())

    assert names() == ["Pilotage: a data set landed"]
    monkeypatch.setenv("PILOTAGE_WEBHOOK", "http://127.0.0.1:9/duty")
    monkeypatch.setenv("PILOTAGE_WEBHOOK_PRIVATE", "1")
    for _ in range(2):
        subprocess.run([sys.executable, "-m", "flows.automations"], cwd=ROOT, check=True, capture_output=True)
    assert names() == ["Pilotage: a data set landed", "Pilotage: a flow failed"]
