"""What a key is good for, how it is followed by another, and that no wrong key is nearer than any other."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from bandits.errors import InvalidNameError, KeyFileError
from bandits.record.audit import Audit
from service.gate import NEEDED, OPEN
from service.keys import SCOPES, KeyRing, list_keys, make_key, renew_key


def every_operation(document: dict) -> list[tuple[str, str, str]]:
    """(method, path with something in each place, scope that the document names)."""
    found = []
    for path, operations in document["paths"].items():
        if path not in OPEN:
            for method, operation in operations.items():
                ((scope,),) = [one["ApiKey"] for one in operation["security"]]
                filled = path.replace("{decision_id}", "0" * 32).replace("{prefix}", "plt_00000000")
                filled = filled.replace("{run_id}", "0" * 32)
                found.append((method.upper(), filled.replace("{model}", "small"), scope))
    return found


def test_each_operation_opens_to_its_scope_and_to_no_other(shared):
    """The route table × every scope, from the document; the scopes of a key add up to nothing more."""
    operations = every_operation(shared.stranger.get("/openapi.json").json())
    assert {scope for _, _, scope in operations} == set(SCOPES)

    for scope in SCOPES:
        with shared.running.client(make_key(shared.home, "acme", f"only-{scope}", [scope])) as client:
            for method, path, wanted in operations:
                body = {"content": b"{}", "headers": {"Content-Type": "application/json"}} if method == "POST" else {}
                if path.startswith("/pilot") and scope == wanted:
                    body["params"] = {"workspace": "none"}
                answer = client.request(method, path, **body)
                refused = answer.status_code == 403 and answer.json()["error"]["type"] == "ScopeRefusedError"
                assert refused is (scope != wanted), (method, path, scope, answer.text)


def test_a_route_of_which_nobody_said_what_it_needs_is_open_to_nobody(running, acme):
    """Not even to a key that is good for everything: nothing is open by oversight."""
    running.app.router.add_api_route("/forgotten", lambda: "open", methods=["GET"])
    running.app.router.add_api_route("/snapshots", lambda: "open", methods=["DELETE"])
    with running.client(acme) as client:
        client.event_hooks["response"].clear()
        assert client.get("/forgotten").status_code == 404
        assert client.delete("/snapshots").status_code == 405
    assert set(NEEDED.values()) == set(SCOPES)


def test_a_key_is_renewed_with_overlap(home):
    """Both are good until the old one ends; the new one is good for the same, and never ends."""
    now = [time.time()]
    ring = KeyRing(home, lambda: now[0])
    old = make_key(home, "acme", "bot", ["route"])
    new = renew_key(home, old[:12], overlap_s=60.0)

    assert [ring.find(key.encode()).scopes for key in (old, new)] == [("route",), ("route",)]
    now[0] += 61.0
    assert ring.find(old.encode()) is None
    assert ring.find(new.encode()).expires is None
    renew_key(home, old[:12], overlap_s=1e9)  # what has ended does not come back
    assert ring.find(old.encode()) is None


def test_renewing_reaches_no_key_of_another_tenant(home):
    """By its prefix neither."""
    theirs = make_key(home, "rival", "bot")
    with pytest.raises(KeyFileError, match="is of 0; known: there is none"):
        renew_key(home, theirs[:12], 0.0, "acme")


def test_keys_over_http_are_of_the_own_tenant_alone(api, other, home, acme):
    """Made, listed, renewed, revoked, each sealed in the audit chain; a foreign one cannot be told from none."""
    theirs = other.post("/keys", json={"name": "theirs"}).json()["key"]
    made = api.post("/keys", json={"name": "bot", "scopes": ["route"]}).json()["key"]
    renewed = api.post(f"/keys/{made[:12]}/renewal", json={"overlap_s": 0.0}).json()["key"]
    listed = api.get("/keys").json()

    assert [one["prefix"] for one in listed] == [acme[:12], made[:12], renewed[:12]]
    assert theirs[:12] not in json.dumps(listed)
    foreign, nobodys = api.delete(f"/keys/{theirs[:12]}"), api.delete("/keys/plt_00000000")
    assert (foreign.status_code, foreign.content) == (nobodys.status_code, nobodys.content) == (404, nobodys.content)
    assert api.delete(f"/keys/{renewed[:12]}").json()["name"] == "bot"
    for key in (made, renewed):
        assert api.get("/snapshots", headers={"Authorization": f"Bearer {key}"}).status_code == 401
    with Audit(home.audit_url) as chain:
        told = [(row.tenant, row.content["why"]) for row in chain.rows()]
    assert told[0] == ("rival", "an API key was made")
    assert [why for tenant, why in told if tenant == "acme"] == [
        "an API key was made", "an API key was renewed", "an API key was revoked",
    ]  # fmt: skip


@pytest.mark.parametrize("scopes", [[], ["root"], "route"])
def test_a_key_must_be_good_for_something_that_there_is(home, scopes):
    """Or nothing is written."""
    with pytest.raises(InvalidNameError, match="must be good for"):
        make_key(home, "acme", "bot", scopes)
    assert list_keys(home) == []


def test_a_key_of_before_there_were_scopes_stays_good(home):
    """The file of an older version reads, and its keys open what they opened."""
    key = make_key(home, "acme", "bot")
    path = home.root / "keys" / "api-keys.json"
    kept = json.loads(path.read_text())
    for name in ("scopes", "expires"):
        del kept[0][name]
    path.write_text(json.dumps(kept))

    assert KeyRing(home).find(key.encode()).scopes == SCOPES


@pytest.mark.slow
def test_a_wrong_key_takes_as_long_however_much_of_it_is_right(home):
    """20,000 wrong keys that share 0 to 40 characters with a good one: time and likeness are not in order."""
    from scipy.stats import spearmanr

    rng, key = np.random.default_rng(0), make_key(home, "acme", "bot").encode()
    ring = KeyRing(home)
    ring.find(key)
    alike = rng.integers(0, 41, size=20_000)
    wrong = [key[:n] + b"!" + key[n + 1 :] for n in alike]
    took = np.empty(len(wrong))
    for i, one in enumerate(wrong):
        start = time.perf_counter_ns()
        found = ring.find(one)
        took[i] = time.perf_counter_ns() - start
        assert found is None

    assert spearmanr(alike, took).pvalue > 0.01
