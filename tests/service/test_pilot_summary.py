"""The service writes the pilot's summary with the models that it serves: over real HTTP, on both sides."""

from __future__ import annotations

import threading

import pytest

from bandits.home import Home
from bandits.settings.gateway import GatewayConfig
from bandits.settings.pilot import PilotConfig
from service.keys import make_key
from tests.service.conftest import serving
from tests.service.test_chatting import configured, providers
from tests.service.test_pilot_runs import ended

NOTES = {"inputs": [{"name": "notes.md", "text": "The deploy failed on Friday because the timeout was wrong."}]}
SAID = ("A wrong timeout made the deploy fail. [0]\n",)


@pytest.fixture
def door(tmp_path):
    """The service, a client of acme, and the servers of its models."""
    home = Home(tmp_path)
    quick = GatewayConfig(connect_s=0.5, first_token_s=0.5, stall_s=0.5, total_s=1.0)
    with providers("one", "two") as servers:
        for server in servers.values():
            server.texts = SAID
        config = configured(servers).model_copy(update={"pilot": PilotConfig(summary="auto"), "gateway": quick})
        with serving(home, config) as running, running.client(make_key(home, "acme", "test")) as api:
            yield running, api, servers


@pytest.mark.parametrize("mode", ["wait", "background"])
def test_a_run_is_summed_up_by_a_model_whose_decision_can_be_voted_on(door, mode):
    """The decision is that of any other prompt of the tenant: its story has the cost, and feedback finds it."""
    _, api, servers = door
    result = api.post(f"/pilot/run?mode={mode}&workspace=lab", json=NOTES).json()
    if mode == "background":
        result = ended(api, result["run_id"])["result"]
    author = result["analysis"]["author"]
    story = api.get(f"/decisions/{author['decision_id']}").json()
    vote = api.post("/feedback", json={"decision_id": author["decision_id"], "vote": 1})

    assert result["status"] == "ok"
    assert [one["label"] for one in result["analysis"]["summary"]] == ["A wrong timeout made the deploy fail."]
    assert story["scope"] == "acme/lab/model_routing"
    assert (story["arm"], story["served"]) == (author["arm"], author["arm"])
    assert story["cost_usd"] == author["cost_usd"] == pytest.approx(20e-6)
    assert vote.status_code == 200, vote.text
    assert sum(len(server.calls) for server in servers.values()) == 1


def test_models_that_fail_leave_the_extract_and_their_breakers_are_those_of_every_prompt(door):
    """Both arms were asked, by the gateway that answers /v1 as well."""
    running, api, servers = door
    for server in servers.values():
        server.fault = "server"
    result = api.post("/pilot/run", json=NOTES).json()

    assert (result["status"], result["degradations"][0]["event"]) == ("degraded", "summary_not_written")
    assert result["analysis"]["summary"][0]["label"].startswith("The deploy failed")
    assert set(running.app.state.parts.models.gateway.states()) == {("one", "maker/one"), ("two", "maker/two")}


def test_a_service_that_stops_waits_for_a_summary_that_is_being_written(tmp_path):
    """The run asks on the event loop that waits for the run: neither may keep the other from going on."""
    home, asked = Home(tmp_path), threading.Event()
    key = make_key(home, "acme", "test")
    with providers("one", "two") as servers:

        def hang():
            asked.set()
            return "hang_headers"

        for server in servers.values():
            server.fault = hang
        quick = GatewayConfig(connect_s=0.5, first_token_s=0.5, stall_s=0.5, total_s=1.0)
        config = configured(servers).model_copy(update={"pilot": PilotConfig(summary="one"), "gateway": quick})
        with serving(home, config) as running, running.client(key) as api:
            run_id = api.post("/pilot/run?mode=background", json=NOTES).json()["run_id"]
            assert asked.wait(60)
        with serving(home, config) as running, running.client(key) as api:
            run = ended(api, run_id)

    assert run["status"] == "degraded"
    assert "before its deadline" in run["degradations"][0]["reason"]
