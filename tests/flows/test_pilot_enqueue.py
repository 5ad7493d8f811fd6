"""The pilot in a real Prefect: what the service enqueues, a worker runs."""

from __future__ import annotations

import pytest

from bandits.config import load_config
from service.keys import make_key
from tests.flows.conftest import ROOT, ended, wait_for
from tests.service.conftest import serving

pytestmark = pytest.mark.slow


def test_what_the_service_enqueues_is_run_by_a_worker_and_followed_here(api, place):
    """Its documents go by the store; Prefect sees a number."""
    key = make_key(place, "demo", "enqueue")
    with serving(place, load_config(ROOT / "pilotage.toml")) as running:
        http = running.client(key)
        notes = {"inputs": [{"name": "notes.md", "text": "The deploy failed on Friday. We rolled back."}]}
        accepted = http.post("/pilot/run?mode=enqueue&enable_embed=0", json=notes).json()
        flow_run = wait_for(lambda: ended(api, accepted["flow_run_id"]))
        run = http.get(f"/pilot/runs/{accepted['run_id']}").json()

    assert flow_run["state"]["type"] == "COMPLETED"
    assert "deploy" not in str(flow_run["parameters"])
    assert (run["phase"], run["status"], run["mode"]) == ("ended", "ok", "enqueue")
    assert run["steps"]["embed"] == "skipped"
    assert run["result"]["ingest"]["documents"][0]["name"] == "notes.md"
