"""OpenAI's API, asked with OpenAI's own client over real HTTP; the models behind it are real servers as well."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

from bandits.config import Config, parse_config
from bandits.settings.gateway import GatewayConfig
from gateway.testing_faults import TEXT, FaultServer, fault_server
from service.keys import make_key

ASK = [{"role": "user", "content": "What colour is the sky on a clear day?"}]
ROOT = Path(__file__).parents[2]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


@contextmanager
def providers(*names: str) -> Iterator[dict[str, FaultServer]]:
    """Fault servers in an event loop of their own."""
    loop, ready, made, done = asyncio.new_event_loop(), threading.Event(), {}, asyncio.Event()

    async def serve() -> None:
        async with fault_server() as one, fault_server() as two:
            made.update(zip(names, (one, two), strict=False))
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait(30.0)
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(30.0)
        loop.close()


def configured(servers: dict[str, FaultServer], **more: object) -> Config:
    """Two arms, each of a provider of its own, that cost the same."""
    arms = [
        {
            "name": name, "model": f"maker/{name}", "provider": name, "usd_per_request": 1e-4, "tools": True,
            "usd_per_million": {"input": 1.0, "output": 2.0}, "prices_as_of": "2026-11-01",
        }
        for name in ("one", "two")
    ]  # fmt: skip
    kinds = {name: {"kind": "openai", "base_url": server.url + "/v1"} for name, server in servers.items()}
    return parse_config(
        {
            "providers": kinds,
            "tenants": {"acme": {"workspaces": ["main", "lab"], **more}, "rival": {}},
            "domains": {"model_routing": {"arms": arms, "budget_usd_per_request": 1e-3, "burst": 1_000_000}},
        },
        "test",
    )


@pytest.fixture(scope="module")
def door(tmp_path_factory) -> Iterator[tuple]:
    """A service over two models, and the official client."""
    from bandits.home import Home
    from tests.service.conftest import serving

    home = Home(tmp_path_factory.mktemp("door") / "home")
    key = make_key(home, "acme", "test")
    with providers("one", "two") as servers, serving(home, configured(servers)) as running:
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0)
        yield running, client, servers, running.client(key)


@pytest.fixture(autouse=True)
def sound(request) -> Iterator[None]:
    """No fault is left behind for the next test, and no breaker open."""
    yield
    if "door" in request.fixturenames:
        running, _, servers, _ = request.getfixturevalue("door")
        for server in servers.values():
            server.fault = None
        running.app.state.parts.models.__dict__.pop("gateway", None)


def test_the_official_client_gets_an_answer_and_its_story(door):
    """The text, the usage, the headers; and the record knows what it cost."""
    _, client, _, api = door
    raw = client.chat.completions.with_raw_response.create(model="auto", messages=ASK, user="anna")
    answer, headers = raw.parse(), raw.headers

    assert answer.choices[0].message.content == "".join(TEXT)
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (12, 4)
    story = api.get(f"/decisions/{headers['x-pilotage-decision-id']}").json()
    assert story["served"] == headers["x-pilotage-arm"] == story["arm"]
    assert headers["x-pilotage-model"] == answer.model == f"maker/{story['arm']}"
    assert headers["x-pilotage-policy"] == story["policy"]
    assert float(headers["x-pilotage-cost-usd"]) == pytest.approx(12e-6 + 8e-6)
    assert story["cost_usd"] == pytest.approx(20e-6)
    (attempt,) = story["attempts"]
    assert (attempt["result"], attempt["input_tokens"], attempt["output_tokens"]) == ("stop", 12, 4)
    assert not story["forced"]


def test_the_official_client_reads_a_stream(door):
    """Piece by piece; the last chunk has the usage and the cost, and only where it is wanted."""
    _, client, _, _ = door
    chunks = list(
        client.chat.completions.create(
            model="auto:model_routing@lab", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]

    assert texts == list(TEXT)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.total_tokens == 16
    assert chunks[-1].usage.cost_usd == pytest.approx(20e-6)
    plain = list(client.chat.completions.create(model="auto", messages=ASK, stream=True))
    assert all(chunk.usage is None for chunk in plain)


def test_a_model_that_is_insisted_on_is_asked_and_never_learned_from(door):
    """By the arm's name or the provider's; no other stands in for it."""
    _, client, servers, api = door
    for name, arm in (("two", "two"), ("maker/one", "one")):
        raw = client.chat.completions.with_raw_response.create(model=name, messages=ASK)
        story = api.get(f"/decisions/{raw.headers['x-pilotage-decision-id']}").json()
        assert (story["forced"], story["arm"], story["served"], story["propensity"]) == (True, arm, arm, 1.0)
    servers["two"].fault = "server"
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="two", messages=ASK)
    assert caught.value.status_code == 502


@pytest.mark.parametrize("stream", [True, False])
def test_a_model_that_fails_is_stood_in_for_and_a_vote_is_about_who_answered(door, stream):
    """The arm drawn keeps its failure; what a person says of the answer is said of the stand-in."""
    _, client, servers, api = door
    servers["one"].fault = "empty"
    while True:
        raw = client.chat.completions.with_raw_response.create(model="auto", messages=ASK, stream=stream)
        made = raw.headers["x-pilotage-decision-id"]
        if stream:
            assert "".join(c.choices[0].delta.content or "" for c in raw.parse() if c.choices) == "".join(TEXT)
        story = api.get(f"/decisions/{made}").json()
        if story["arm"] == "one":
            break
    assert raw.headers["x-pilotage-arm"] == story["served"] == "two"
    assert [(a["arm"], a["result"]) for a in story["attempts"]] == [("", "failed:empty"), ("two", "stop")]
    assert story["reward"] == 0.0

    assert api.post("/feedback", json={"decision_id": made, "vote": 1}).json() == {"recorded": True}
    story = api.get(f"/decisions/{made}").json()
    assert (story["outcomes"][-1]["vote"], story["outcomes"][-1]["arm"]) == (1, "two")
    assert story["reward"] == 0.0


def test_a_stream_that_breaks_is_an_error_to_the_client(door):
    """What came stands; the official client raises."""
    _, client, servers, _ = door
    for server in servers.values():
        server.fault = "cut"
    chunks, got = client.chat.completions.create(model="auto", messages=ASK, stream=True), []

    with pytest.raises(openai.APIError):
        got.extend(chunk.choices[0].delta.content for chunk in chunks)
    assert TEXT[0] in got


def test_a_model_that_begins_anew_says_that_what_came_is_void(serve_at, home, acme):
    """Where another may take over midway, the chunk before its answer has `restart`; what follows is whole."""
    with providers("one", "two") as servers:
        config = configured(servers).model_copy(update={"gateway": GatewayConfig(midway="restart")})
        client = openai.OpenAI(base_url=f"{serve_at(home, config).url}/v1", api_key=acme, max_retries=0)
        servers["one"].fault = "cut"
        for _ in range(100):  # until the one that breaks is drawn
            chunks = list(client.chat.completions.create(model="auto", messages=ASK, stream=True))
            marks = [at for at, chunk in enumerate(chunks) if getattr(chunk, "restart", False)]
            if marks:
                break
    (mark,) = marks
    texts = [[chunk.choices[0].delta.content or "" for chunk in part] for part in (chunks[:mark], chunks[mark:])]
    assert 0 < len("".join(texts[0])) < len("".join(TEXT)) == len("".join(texts[1]))
    assert {chunk.model for chunk in chunks[:mark]} == {"maker/one"}
    assert {chunk.model for chunk in chunks[mark + 1 :]} == {"maker/two"}


@pytest.mark.parametrize("stream", [True, False])
def test_what_no_model_answered_names_its_decision(door, stream):
    """It is in the record, with what was tried; so the error says which it is, as the answers do."""
    _, client, servers, api = door
    for server in servers.values():
        server.fault = "server"

    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="auto", messages=ASK, stream=stream)

    error = caught.value
    story = api.get(f"/decisions/{error.response.headers['x-pilotage-decision-id']}").json()
    assert (error.status_code, error.request_id) == (502, error.response.headers["x-pilotage-decision-id"])
    assert error.response.headers["x-pilotage-policy"] == story["policy"]
    assert float(error.response.headers["x-pilotage-cost-usd"]) == pytest.approx(story["cost_usd"] or 0.0)
    assert {attempt["result"] for attempt in story["attempts"]} == {"failed:server"}
    assert story["served"] is None


def test_openai_s_own_name_of_a_request_is_what_feedback_takes(door):
    """The client keeps it with the answer: no header has to be read for a vote."""
    _, client, _, api = door
    answer = client.chat.completions.create(model="auto", messages=ASK)
    vote = {"decision_id": answer._request_id, "vote": 1}
    assert [api.post("/feedback", json=vote).json()["recorded"] for _ in range(2)] == [True, False]


def test_tools_and_what_else_openai_knows_go_through(door):
    """As the provider got them."""
    _, client, servers, _ = door
    client.chat.completions.create(
        model="one", messages=[{"role": "developer", "content": "Be brief."}, *ASK], tools=[TOOL], tool_choice="auto",
        temperature=0.5, max_completion_tokens=7, stop="END", seed=3, reasoning_effort="low", logprobs=False,
    )  # fmt: skip
    body = servers["one"].calls[-1].body

    assert body["tools"] == [TOOL]
    assert (body["tool_choice"], body["temperature"], body["max_tokens"]) == ("auto", 0.5, 7)
    assert (body["stop"], body["seed"], body["reasoning_effort"], body["logprobs"]) == (["END"], 3, "low", False)
    assert [message["role"] for message in body["messages"]][-1] == "user"
    assert "user" not in body


def test_the_models_are_listed(door):
    """Each can be asked for, and found by its name."""
    _, client, _, _ = door
    names = [model.id for model in client.models.list()]

    assert names == ["auto", "auto:model_routing", "one", "two"]
    assert client.models.retrieve("two").owned_by == "two"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("three")


BAD = {
    "no such model": ({"model": "gpt-none"}, 404, "GET /v1/models"),
    "no such domain": ({"model": "auto:nothing"}, 404, "domain must be one of"),
    "a foreign workspace": ({"model": "auto:model_routing@secret-lab"}, 404, "workspace must be one of lab, main"),
    "a field that nobody knows": ({"model": "auto", "extra_body": {"tempurature": 1}}, 422, "tempurature: no such"),
    "two answers": ({"model": "auto", "n": 2}, 422, "body.n"),
    "no question": ({"model": "auto", "messages": [{"role": "system", "content": "x"}]}, 422, "role user"),
    "nothing at all": ({"model": "auto", "messages": []}, 422, "body.messages"),
}


@pytest.mark.parametrize(("change", "status", "words"), BAD.values(), ids=BAD)
def test_what_cannot_be_asked_is_refused_and_nothing_is_recorded(door, change, status, words):
    """With a text that says what must hold, which the client shows."""
    running, client, _, _ = door
    head = running.app.state.parts.record.head()
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**({"messages": ASK} | change))

    assert caught.value.status_code == status
    assert words in str(caught.value)
    assert running.app.state.parts.record.head() == head


def test_a_cap_that_is_used_up_is_402_and_names_itself(serve_at, home, acme):
    """Not 429: waiting a second is in vain, and clients that retry would."""
    with providers("one", "two") as servers:
        running = serve_at(home, configured(servers, caps={"usd_per_day": 1.5e-4}))
        with running.client(acme) as api:
            client = openai.OpenAI(base_url=f"{running.url}/v1", api_key=acme, max_retries=0)
            for _ in range(20):
                try:
                    client.chat.completions.create(model="auto", messages=ASK)
                except openai.APIStatusError as error:
                    refused = error
                    break
            assert refused.status_code == 402
            assert "the day of tenant acme" in str(refused)
            assert int(refused.response.headers["Retry-After"]) > 0
            told = api.get("/budgets", params={"workspace": "main"}).json()
            (cap,) = told["caps"]
            assert (cap["cap"], cap["limit_usd"], cap["held_usd"]) == ("day", 1.5e-4, 0.0)
            assert cap["spent_usd"] + cap["left_usd"] == pytest.approx(1.5e-4)
            assert told["scopes"][0]["spent_usd"] == pytest.approx(cap["spent_usd"])
            api.event_hooks["response"].clear()
            assert api.post("/route", json={"prompt": "x"}).status_code == 402


def test_the_key_of_a_provider_is_seen_by_the_provider_alone(serve_at, home, acme, monkeypatch, caplog):
    """Whatever fails: not in an answer, a log line at any level, or what an object shows of itself."""
    canary = "sk-canary-5f3c1e77"
    monkeypatch.setenv("CANARY_KEY", canary)
    caplog.set_level(0)
    with providers("one", "two") as servers:
        config = configured(servers)
        keyed = {name: one.model_copy(update={"key_env": "CANARY_KEY"}) for name, one in config.providers.items()}
        running, texts = serve_at(home, config.model_copy(update={"providers": keyed})), []
        with running.client(acme) as api:
            for fault in (None, "no_credit", "server", "wrong_type", "bad_json", "empty"):
                servers["one"].fault = servers["two"].fault = fault
                for model in ("auto", "one"):
                    for stream in (False, True):
                        body = {"model": model, "messages": ASK, "stream": stream}
                        texts.append(api.post("/v1/chat/completions", json=body).text)
            texts += [api.get(path).text for path in ("/domains", "/metrics", "/readyz", "/budgets")]
            parts = running.app.state.parts
            texts += [repr(parts), repr(parts.models.gateway), repr(parts.models.gateway.adapters), caplog.text]
    assert any("blue" in text for text in texts)
    assert not any(canary in text or acme in text for text in texts)


def test_the_example_in_the_docs_runs(door):
    """docs/example_app.py, as it stands there."""
    running, client, _, _ = door
    environ = os.environ | {"PILOTAGE_URL": running.url, "PILOTAGE_KEY": client.api_key}
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "example_app.py"], env=environ, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "".join(TEXT) in done.stdout
    assert len((ROOT / "docs" / "example_app.py").read_text().splitlines()) <= 30
