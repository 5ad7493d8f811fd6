"""The pilot over HTTP: each flag has its effect, and documents that cannot be read are refused, not failed on."""

from __future__ import annotations

import json

import pytest

from service.pilot import Pilot

NOTES = {
    "name": "notes.md",
    "text": "# Deploy\n\nThe deploy failed on Friday. We rolled it back.\n\nThe cache was cold.",
}


def test_the_pilot_runs_on_the_documents_of_the_body(shared):
    """All four steps, for the tenant of the key."""
    api = shared.api
    run = api.post("/pilot/run", json={"inputs": [NOTES, {"name": "b.txt", "text": "Nothing else happened."}]}).json()

    assert (run["tenant"], run["workspace"], run["status"]) == ("acme", "main", "ok")
    assert [document["name"] for document in run["ingest"]["documents"]] == ["notes.md", "b.txt"]
    assert run["segment"]["segments"] == run["embed"]["vectors"] > 0
    assert run["embed"]["namespace"] == "acme:main:pilot"
    assert run["analysis"]["language"] == "en"
    ended = {event["step"]: event["what"] for event in run["events"]}
    assert ended == dict.fromkeys(["ingest", "segment", "embed", "analysis"], "completed")


def test_without_documents_the_packaged_example_is_read(shared):
    """GET, POST without a body and POST with an empty object are the same run."""
    api = shared.api
    runs = [api.get("/pilot/run"), api.post("/pilot/run"), api.post("/pilot/run", json={})]

    assert [run.status_code for run in runs] == [200] * 3
    assert [run.json()["ingest"]["documents"][0]["name"] for run in runs] == ["standup.vtt"] * 3
    assert runs[0].json()["analysis"] == runs[1].json()["analysis"] == runs[2].json()["analysis"]


def test_the_tenant_flag_may_name_the_keys_own(shared):
    """And the run is that tenant's; without the flag it is as well."""
    api, other = shared.api, shared.other
    for client, name in ((api, "acme"), (other, "rival")):
        for params in ({"tenant": name}, {}):
            run = client.post("/pilot/run", params=params, json={"inputs": [NOTES]}).json()
            assert (run["tenant"], run["embed"]["namespace"]) == (name, f"{name}:main:pilot")


def test_the_workspace_flag_chooses_the_workspace(shared):
    """In the query or in the body; the vectors stand in its namespace."""
    api = shared.api
    for run in (api.get("/pilot/run?workspace=lab"), api.post("/pilot/run", json={"workspace": "lab"})):
        assert (run.json()["workspace"], run.json()["embed"]["namespace"]) == ("lab", "acme:lab:pilot")


@pytest.mark.parametrize("flag", ["segment", "embed"])
@pytest.mark.parametrize("word", ["1", "true", "yes", "on", "TRUE", "On", "0", "false", "no", "off", "False", "oFF"])
def test_a_step_is_in_the_answer_exactly_when_its_flag_is_truthy(shared, flag, word):
    """And the trail says that it was switched off in the request."""
    flags = {"enable_segment": "0", "enable_embed": "0"} | {f"enable_{flag}": word}
    run = shared.api.post("/pilot/run", params=flags, json={"inputs": [NOTES]}).json()
    on = word.lower() in ("1", "true", "yes", "on")

    assert (flag in run) is on
    assert ({"segment", "embed"} - {flag}).isdisjoint(run)
    assert {"ingest", "analysis"} < run.keys()
    (ended,) = [event["what"] for event in run["events"] if event["step"] == flag and event["what"] != "started"]
    assert ended == ("completed" if on else "skipped")


@pytest.mark.parametrize(("off", "left"), [("segment", {"embed"}), ("embed", {"segment"})])
def test_each_flag_works_on_the_example_by_itself(shared, off, left):
    """GET with one flag: that step is gone, the other stays."""
    run = shared.api.get(f"/pilot/run?enable_{off}=no").json()

    assert run.keys() & {"segment", "embed"} == left


def test_flags_in_the_body_have_the_same_effect(shared):
    """JSON's own true and false, and null for the default."""
    api = shared.api
    run = api.post("/pilot/run", json={"inputs": [NOTES], "enable_segment": False, "enable_embed": True}).json()
    assert ("segment" in run, "embed" in run) == (False, True)
    run = api.post("/pilot/run?enable_embed=no", json={"inputs": [NOTES], "enable_segment": None}).json()
    assert ("segment" in run, "embed" in run) == (True, False)


@pytest.mark.parametrize("word", ["", "2", "t", "y", "maybe", "true ", "ja", "null", "１"])
@pytest.mark.parametrize("flag", ["enable_segment", "enable_embed"])
def test_any_other_word_for_a_flag_is_refused(shared, flag, word):
    """With 422 that lists the words there are; nothing is run."""
    api = shared.api
    answer = api.get("/pilot/run", params={flag: word})

    assert answer.status_code == 422
    assert "must be 1, true, yes, on, or 0, false, no, off" in answer.json()["error"]["message"]


BAD = {
    "a misspelt flag": ("?enable_embeds=1", None, 422, "no such field"),
    "a flag twice": ("?enable_embed=1&enable_embed=0", None, 422, "once"),
    "query and body at odds": ("?enable_embed=1", {"enable_embed": False}, 422, "the same in query and body"),
    "workspaces at odds": ("?workspace=lab", {"workspace": "main"}, 422, "the same in query and body"),
    "unknown workspace": ("?workspace=attic", None, 404, "one of lab, main"),
    "another tenant's workspace": ("?workspace=secret-lab", None, 404, "one of lab, main"),
    "no name of a workspace": ("?workspace=..", None, 422, "workspace must be"),
    "a word for a truth": ("", {"enable_embed": "true"}, 422, "enable_embed"),
    "no inputs": ("", {"inputs": []}, 422, "inputs"),
    "too many inputs": ("", {"inputs": [NOTES] * 101}, 422, "inputs"),
    "a path for an input": ("", {"inputs": ["/etc/hostname"]}, 422, "inputs"),
    "an input without text": ("", {"inputs": [{"name": "a.md"}]}, 422, "text: must be given"),
    "an input with more": ("", {"inputs": [NOTES | {"path": "/etc/hostname"}]}, 422, "path: no such field"),
    "half a surrogate pair": ("", {"inputs": [{"name": "a.md", "text": "\udc00"}]}, 422, "unicode"),
    "a kind that cannot be read": ("", {"inputs": [{"name": "a.exe", "text": "x"}]}, 422, ".exe is not a kind"),
    "an empty document": ("", {"inputs": [{"name": "a.md", "text": " "}]}, 422, "a.md"),
    "captions that are none": ("", {"inputs": [{"name": "a.vtt", "text": "x"}]}, 422, "WEBVTT"),
}


@pytest.mark.parametrize(("query", "body", "status", "words"), BAD.values(), ids=BAD)
def test_a_bad_request_is_refused(shared, query, body, status, words):
    """Each with its status and a text that says what must hold."""
    api = shared.api
    headers = {"Content-Type": "application/json"}
    answer = api.post(f"/pilot/run{query}", content=json.dumps(body), headers=headers)

    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]


def test_one_bad_document_is_left_out_and_said_so(shared):
    """The rest is analysed, and the run is degraded."""
    api = shared.api
    run = api.post("/pilot/run", json={"inputs": [NOTES, {"name": "a.vtt", "text": "x"}]}).json()

    assert (run["status"], run["degradations"][0]["event"]) == ("degraded", "documents_left_out")
    assert [one["name"] for one in run["ingest"]["left_out"]] == ["a.vtt"]


def test_a_name_that_looks_like_a_path_opens_no_file(shared):
    """The text is that of the body."""
    api = shared.api
    run = api.post("/pilot/run", json={"inputs": [{"name": "/etc/hostname.txt", "text": "Only these words."}]}).json()

    assert run["ingest"]["documents"][0]["characters"] == len("Only these words.")


def test_more_runs_than_may_wait_are_refused(start, acme):
    """503 with Retry-After, while decisions go on; a run that has ended makes room for the next."""
    with start(pilot=Pilot(at_once=1, waiting=-1)).client(acme) as api:
        busy = api.get("/pilot/run")
        assert (busy.status_code, busy.headers["Retry-After"]) == (503, "5")
        assert api.post("/route", json={"prompt": "x"}).status_code == 200
    with start(pilot=Pilot(at_once=1, waiting=0)).client(acme) as api:
        assert [api.post("/pilot/run", json={"inputs": [NOTES]}).status_code for _ in range(2)] == [200, 200]
