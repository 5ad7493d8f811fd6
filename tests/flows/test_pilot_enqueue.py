"""The pilot in a real Prefect: what the service enqueues, and an inbox on a schedule's account."""

from __future__ import annotations

import pytest

from bandits.config import load_config
from flows.pilot import inbox
from graphs.runs import RunStore
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


def test_an_inbox_is_read_once(api, place, tmp_path):
    """The flow's own words; a second run finds nothing new."""
    (tmp_path / "a.txt").write_text("The quiz night was wonderful.")

    first, second = inbox("demo", str(tmp_path)), inbox("demo", str(tmp_path))

    assert first["status"] == "ok"
    assert second is None
    with RunStore.at(place) as runs:
        assert runs.view(first["run_id"], "demo").phase == "ended"
