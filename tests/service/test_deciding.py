"""Deciding over HTTP: what is answered is what is recorded, and bad input is refused before anything is."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bandits.features import Asker, Request, Turn, context, text_context
from bandits.ids import bare
from bandits.privacy.people import People
from bandits.privacy.prompts import Prompts
from bandits.record.port import rows
from bandits.types import Scope

JSON = {"Content-Type": "application/json"}
TURN = {"role": "user", "text": "x"}


def decide(api, prompt: str = "Why is the sky blue?", **body: object) -> dict:
    answer = api.post("/route", json={"prompt": prompt} | body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_decision_is_answered_as_it_was_recorded(api, home):
    """Arm, propensity, probabilities, policy: bit for bit those of the record, with the features of the prompt."""
    answer = decide(api)
    with home.open_record() as record:
        kept = record.decision(bare(answer["decision_id"]), "acme")

    assert kept.scope == Scope("acme", "main", "model_routing")
    assert (answer["arm"], answer["propensity"], answer["policy"]) == (kept.arm, kept.propensity, "explore")
    assert answer["model"] == f"maker/{kept.arm}"
    assert list(answer["probabilities"].items()) == list(zip(kept.arms, kept.probabilities.tolist(), strict=True))
    assert answer["propensity"] == answer["probabilities"][answer["arm"]]
    assert sum(answer["probabilities"].values()) == pytest.approx(1.0, abs=1e-12)
    assert (answer["slot"], answer["excluded"]) == ("stable", {})
    assert kept.context.tobytes() == text_context("Why is the sky blue?").tobytes()


def test_a_context_may_take_the_place_of_the_prompt(api, home):
    """Numbers are recorded as they came; a prompt's own features may be sent instead of the prompt."""
    own = api.post("/route", json={"context": [0.5, -1, 3e10], "domain": "own", "workspace": "lab"}).json()
    sent = api.post("/route", json={"context": text_context("hello").tolist()}).json()
    with home.open_record() as record:
        assert record.decision(bare(own["decision_id"]), "acme").context.tolist() == [0.5, -1.0, np.float32(3e10)]
        assert record.decision(bare(own["decision_id"]), "acme").scope == Scope("acme", "lab", "own")
        assert record.decision(bare(sent["decision_id"]), "acme").context.tobytes() == text_context("hello").tobytes()


def test_a_conversation_and_the_asker_become_features_and_nothing_else(home, config, acme, start):
    """With the time of the request: those of text-2, bit for bit; no word of them is in the record or beside it."""
    domain = config.domains["model_routing"].model_copy(update={"features": "text-2"})
    config.__dict__["domains"] = config.domains | {"model_routing": domain}
    said = [
        {"role": "user", "text": "Why is the sky blue?", "time": 1e9},
        {"role": "assistant", "text": "Rayleigh scatters it."},
    ]
    asker = {"requests": 3, "mean_reward": 0.5, "favourite_share": 1, "days": 2.5}
    with start(clock=lambda: 2e9).client(acme) as api:
        made = decide(api, "and again?", conversation=said, asker=asker)["decision_id"]
        plain = decide(api, "and again?")["decision_id"]
    turns = (Turn("user", said[0]["text"], 1e9), Turn("assistant", said[1]["text"]))
    request = Request("and again?", turns, 2e9, Asker(3, 0.5, 1.0, 2.5))
    with home.open_record() as record:
        kept, bald = (record.decision(bare(one), "acme") for one in (made, plain))

    assert kept.context.tobytes() == context(request, "text-2").tobytes()
    assert bald.context.tobytes() == context(Request("and again?", time=2e9), "text-2").tobytes()
    assert kept.context.tobytes() != bald.context.tobytes()
    assert [file for file in home.root.rglob("*") if file.is_file() and b"Rayleigh" in file.read_bytes()] == []


def test_the_longest_conversation_is_taken(shared):
    """50 turns, 100,000 characters in all; a domain that does not look at them decides all the same."""
    decide(shared.api, conversation=[{"role": "user", "text": "x" * 2_000}] * 50)


def test_an_arm_that_cannot_be_paid_is_excluded_with_its_reason(home, config, acme, start):
    """Its probability is 0 and the answer says why."""
    domain = config.domains["model_routing"]
    dear = domain.arms[2].model_copy(update={"usd_per_request": 5.0})
    domains = config.domains | {"model_routing": domain.model_copy(update={"arms": (*domain.arms[:2], dear)})}
    config.__dict__["domains"] = domains
    with start().client(acme) as api:
        answer = decide(api)

    assert answer["probabilities"]["large"] == 0.0
    assert "budget" in answer["excluded"]["large"]


def test_the_longest_prompt_is_taken_and_one_character_more_is_not(shared):
    """The cap is 100,000 characters."""
    decide(shared.api, "x" * 100_000)

    assert shared.api.post("/route", json={"prompt": "x" * 100_001}).status_code == 422


def test_feedback_is_recorded_as_it_came(running, acme, home):
    """What was not measured stays None; it may come in pieces and more than once."""
    with running.client(acme) as api:
        made = decide(api, workspace="lab")["decision_id"]
        parts = [{"quality": 0.25}, {"vote": -1, "latency_s": 0}, {"quality": 1, "cost_usd": 2e-4}]
        answers = [api.post("/feedback", json={"decision_id": made} | part) for part in parts]
    with home.open_record() as record:
        kept = record.outcomes(bare(made))

    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"recorded": True})] * 3
    assert [(o.quality, o.vote, o.cost_usd, o.latency_s) for o in kept] == [
        (0.25, None, None, None),
        (None, -1, None, 0.0),
        (1.0, None, 2e-4, None),
    ]
    assert {(o.scope, o.source) for o in kept} == {(Scope("acme", "lab", "model_routing"), "app")}


def test_a_decision_is_explained(api):
    """Its probabilities come out of its policy again, and its reward from what came back."""
    made = decide(api)
    api.post("/feedback", json={"decision_id": made["decision_id"], "quality": 0.75, "cost_usd": 3e-4})
    story = api.get(f"/decisions/{made['decision_id']}").json()

    assert (story["arm"], story["propensity"], story["policy"]) == (made["arm"], made["propensity"], "explore")
    assert {arm["name"]: arm["probability"] for arm in story["arms"]} == made["probabilities"]
    assert (story["replays"], story["reward"], story["cost_usd"]) == (True, 0.75, 3e-4)
    assert [outcome["quality"] for outcome in story["outcomes"]] == [0.75]


def test_a_restarted_service_knows_the_decisions_of_the_one_before(start, acme):
    """State is the record: feedback and explanation work across a restart."""
    with start().client(acme) as before:
        made = decide(before)["decision_id"]
    with start().client(acme) as after:
        assert after.post("/feedback", json={"decision_id": made, "vote": 1}).json() == {"recorded": True}
        assert after.get(f"/decisions/{made}").json()["reward"] == 1.0


def test_many_callers_at_once_each_get_a_decision_of_their_own(running, acme, home):
    """Eight threads, two domains: as many rows as answers, no id twice."""
    with running.client(acme) as api, ThreadPoolExecutor(8) as pool:
        bodies = [{"prompt": "a"}, {"context": [1.0, 2.0, 3.0], "domain": "own"}] * 40
        answers = list(pool.map(lambda body: api.post("/route", json=body), bodies))
    with home.open_record() as record:
        kept = {row.entry.id for row in rows(record)}

    assert {answer.status_code for answer in answers} == {200}
    assert {bare(answer.json()["decision_id"]) for answer in answers} == kept
    assert len(kept) == 80


def test_snapshots_are_listed_and_the_serving_one_is_marked(api, publish):
    """Newest last; filters by workspace and domain; a scope without any adds nothing."""
    publish("small")
    publish("large")
    publish("small", "acme/lab/model_routing")
    assert decide(api)["policy"] == "000002"
    found = api.get("/snapshots").json()

    assert [(one["scope"], one["version"], one["serving"], one["fault"]) for one in found] == [
        ("acme/lab/model_routing", "000001", False, None),
        ("acme/main/model_routing", "000001", False, None),
        ("acme/main/model_routing", "000002", True, None),
    ]
    assert len(api.get("/snapshots", params={"workspace": "lab"}).json()) == 1
    assert api.get("/snapshots", params={"domain": "own"}).json() == []


BAD_ROUTE = {
    "neither prompt nor context": ({}, 422, "exactly one"),
    "both": ({"prompt": "x", "context": [1.0]}, 422, "exactly one"),
    "empty prompt": ({"prompt": ""}, 422, "prompt"),
    "prompt of another type": ({"prompt": 7}, 422, "prompt"),
    "half a surrogate pair": ({"prompt": "\ud800"}, 422, "unicode"),
    "unknown field": ({"prompt": "x", "temperature": 1}, 422, "temperature: no such field"),
    "tenant in the body": ({"prompt": "x", "tenant": "rival"}, 422, "tenant: no such field"),
    "unknown workspace": ({"prompt": "x", "workspace": "attic"}, 404, "one of lab, main"),
    "another tenant's workspace": ({"prompt": "x", "workspace": "secret-lab"}, 404, "one of lab, main"),
    "no name of a workspace": ({"prompt": "x", "workspace": "../main"}, 422, "workspace must be"),
    "unknown domain": ({"prompt": "x", "domain": "weather"}, 404, "one of model_routing, own"),
    "no name of a domain": ({"prompt": "x", "domain": "A B"}, 422, "domain must be"),
    "a prompt where numbers are due": ({"prompt": "x", "domain": "own"}, 422, "send its numbers"),
    "too few numbers": ({"context": [1.0], "domain": "own"}, 422, "shape (3,)"),
    "no numbers": ({"context": [], "domain": "own"}, 422, "context"),
    "text for a number": ({"context": [1.0, "2", 3.0], "domain": "own"}, 422, "context.1"),
    "a truth for a number": ({"context": [1.0, True, 3.0], "domain": "own"}, 422, "context.1"),
    "NaN": ({"context": [1.0, float("nan"), 3.0], "domain": "own"}, 422, "finite"),
    "infinity": ({"context": [1.0, float("inf"), 3.0], "domain": "own"}, 422, "finite"),
    "more than float32 holds": ({"context": [1.0, 1e300, 3.0], "domain": "own"}, 422, "finite"),
    "a number of 400 digits": ({"context": [1.0, 10**400, 3.0], "domain": "own"}, 422, "context.1"),
    "far too many numbers": ({"context": [0.0] * 10_000, "domain": "own"}, 422, "context"),
    "too many turns": ({"prompt": "x", "conversation": [TURN] * 51}, 422, "at most 50 items"),
    "too long a conversation": (
        {"prompt": "x", "conversation": [TURN | {"text": "x" * 2_001}] * 50},
        422,
        "at most 100,000 characters in all, but has 100,050; leave out the oldest turns",
    ),
    "a turn of nobody": ({"prompt": "x", "conversation": [TURN | {"role": "system"}]}, 422, "conversation.0.role"),
    "a turn before the epoch": ({"prompt": "x", "conversation": [TURN | {"time": -1}]}, 422, "conversation.0.time"),
    "a turn without text": ({"prompt": "x", "conversation": [{"role": "user"}]}, 422, "conversation.0.text"),
    "numbers and a conversation": (
        {"context": [1.0, 2.0, 3.0], "domain": "own", "conversation": [TURN]},
        422,
        "must come with a prompt",
    ),
    "numbers and an asker": (
        {"context": [1.0, 2.0, 3.0], "domain": "own", "asker": {"requests": 1}},
        422,
        "must come with a prompt",
    ),
    "fewer than no requests": ({"prompt": "x", "asker": {"requests": -1}}, 422, "asker.requests"),
    "a reward beyond 1": ({"prompt": "x", "asker": {"requests": 1, "mean_reward": 2}}, 422, "asker.mean_reward"),
    "a list": ([1], 422, "body"),
    "null": (None, 422, "body"),
}


@pytest.mark.parametrize(("body", "status", "words"), BAD_ROUTE.values(), ids=BAD_ROUTE)
def test_a_bad_route_is_refused_and_nothing_is_recorded(shared, body, status, words):
    """Each with its status and a text that says what must hold."""
    head = shared.head()
    answer = shared.api.post("/route", content=json.dumps(body), headers=JSON)

    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]
    assert shared.head() == head


BAD_BYTES = {
    "no JSON": (b'{"prompt": ', JSON, "must be JSON"),
    "not UTF-8": (b"\xff\xfe\xfd", JSON, "must be JSON"),
    "nested without end": (b"[" * 100_000, JSON, "nested at most 32 deep"),
    "no body": (b"", JSON, "body: must be given"),
    "no content type": (b'{"prompt": "x"}', {}, "Content-Type: application/json"),
    "a form": (b"prompt=x", {"Content-Type": "application/x-www-form-urlencoded"}, "Content-Type: application/json"),
}


@pytest.mark.parametrize(("raw", "headers", "words"), BAD_BYTES.values(), ids=BAD_BYTES)
def test_bytes_that_are_no_json_are_refused(shared, raw, headers, words):
    """With 422, and the place of the fault where there is one."""
    answer = shared.api.post("/route", content=raw, headers=headers)

    assert answer.status_code == 422
    assert words in answer.json()["error"]["message"]


BAD_FEEDBACK = {
    "nothing measured": ({}, "at least one"),
    "only nulls": ({"quality": None}, "at least one"),
    "quality above 1": ({"quality": 1.01}, "quality"),
    "quality below 0": ({"quality": -0.1}, "quality"),
    "quality as text": ({"quality": "0.5"}, "quality"),
    "quality NaN": ({"quality": float("nan")}, "finite"),
    "vote 0": ({"vote": 0}, "vote"),
    "vote true": ({"vote": True}, "vote"),
    "vote 1.0": ({"vote": 1.0}, "vote"),
    "a negative cost": ({"cost_usd": -1e-9}, "cost_usd"),
    "an endless cost": ({"cost_usd": float("inf")}, "finite"),
    "a cost that would stop a budget for good": ({"cost_usd": 1e308}, "cost_usd"),
    "a negative latency": ({"latency_s": -1}, "latency_s"),
    "a source": ({"vote": 1, "source": "judge"}, "source: no such field"),
    "a time": ({"vote": 1, "time": 0}, "time: no such field"),
}


@pytest.mark.parametrize(("part", "words"), BAD_FEEDBACK.values(), ids=BAD_FEEDBACK)
def test_bad_feedback_is_refused_and_nothing_is_recorded(shared, part, words):
    """Even for a decision that exists."""
    made, head = decide(shared.api)["decision_id"], shared.head()
    answer = shared.api.post("/feedback", content=json.dumps({"decision_id": made} | part), headers=JSON)

    assert answer.status_code == 422
    assert words in answer.json()["error"]["message"]
    assert shared.head() == head


@pytest.mark.parametrize("announced", [True, False], ids=["length announced", "in chunks"])
def test_a_body_above_10_mb_is_refused(shared, announced):
    """With 413, whether its length was announced or not; one just below is read (and is no prompt: 422)."""
    api, chunk = shared.api, b" " * 1_000_000
    body = chunk * 11 if announced else iter([chunk] * 11)
    answer = api.post("/route", content=body, headers=JSON)

    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "BodyTooLargeError")
    assert api.post("/route", content=chunk * 10, headers=JSON).status_code == 422
    assert api.post("/route", content=chunk * 9 + b'{"prompt": "x"}', headers=JSON).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/route"), ("POST", "/feedback"), ("GET", "/decisions/x"), ("GET", "/snapshots"), ("GET", "/metrics")],
)
def test_an_unknown_query_flag_is_refused(shared, method, path):
    """A misspelt flag must not be taken for its absence; one flag twice has no one meaning."""
    api = shared.api
    body = {"prompt": "x"} if path == "/route" else {"decision_id": "x", "vote": 1} if method == "POST" else None

    assert "wrkspace: no such field" in api.request(method, f"{path}?wrkspace=lab", json=body).text
    twice = api.request(method, f"{path}?tenant=acme&tenant=acme", json=body)
    assert (twice.status_code, "once" in twice.text) == (422, True)


def test_a_bad_filter_of_snapshots_is_refused(shared):
    """Unknown names are 404, impossible ones 422."""
    api = shared.api
    tried = [{"workspace": "attic"}, {"domain": "weather"}, {"workspace": "A"}, {"domain": "A"}]

    assert [api.get("/snapshots", params=one).status_code for one in tried] == [404, 404, 422, 422]


def test_an_unknown_path_or_method_is_a_typed_error(shared):
    """Not a page, not a redirect."""
    api = shared.api
    for answer, status in ((api.get("/nope"), 404), (api.put("/route"), 405), (api.post("/route/"), 404)):
        assert answer.status_code == status
        assert answer.json()["error"]["type"] == "InvalidRequestError"


def test_a_prompt_is_kept_sealed_where_the_tenant_wants_it(home, config, acme, rival, start):
    """store_prompts: found by the decision; of the other tenant nothing is kept."""
    tenants = config.tenants | {"acme": config.tenants["acme"].model_copy(update={"store_prompts": True})}
    config.__dict__["tenants"] = tenants
    running = start()
    found = {}
    for tenant, key in (("acme", acme), ("rival", rival)):
        with running.client(key) as api:
            token = decide(api, "about my knee", user="ada")["decision_id"]
        with home.open_record() as record:
            found[tenant] = record.decision(bare(token), tenant)
    prompts = Prompts(home.prompts, People(home.people))

    assert prompts.get(found["acme"]) == "about my knee"
    assert prompts.get(found["rival"]) is None
    assert b"knee" not in b"".join(path.read_bytes() for path in home.root.rglob("*") if path.is_file())
