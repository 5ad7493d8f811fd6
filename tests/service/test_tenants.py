"""Tenants: the key says whose request it is, and nothing of another tenant can be read, written or guessed at."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from bandits.errors import InvalidNameError, KeyFileError
from service.keys import KeyRing, list_keys, make_key, redact, revoke_key

EVERYWHERE = [
    ("POST", "/route"),
    ("POST", "/feedback"),
    ("GET", "/decisions/abc"),
    ("GET", "/snapshots"),
    ("GET", "/budgets"),
    ("GET", "/domains"),
    ("GET", "/keys"),
    ("DELETE", "/keys/plt_00000000"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/models"),
    ("GET", "/pilot/run"),
    ("POST", "/pilot/run"),
    ("GET", "/metrics"),
    ("GET", "/no-such-path"),
]


def body_of(path: str) -> dict | None:
    chat = {"model": "no such", "messages": [{"role": "user", "content": "x"}]}
    known = {"/route": {"prompt": "x"}, "/feedback": {"decision_id": "abc", "vote": 1}, "/v1/chat/completions": chat}
    return known.get(path)


NO_KEY = {
    "none": [],
    "wrong": [("Authorization", "Bearer plt_" + "A" * 43)],
    "no key": [("Authorization", "Bearer")],
    "blank": [("Authorization", "")],
    "other scheme": [("Authorization", "Basic {key}")],
    "no scheme": [("Authorization", "{key}")],
    "longer": [("Authorization", "Bearer {key}x")],
    "two": [("Authorization", "Bearer {key}"), ("Authorization", "Bearer {key}")],
    "other header": [("X-API-Key", "{key}")],
}


def refused(shared, method: str, path: str, headers: list[tuple[str, str]]) -> None:
    given = [(name, value.replace("{key}", shared.acme)) for name, value in headers]
    answer = shared.stranger.request(method, path, headers=given, content=b"{no json" if method == "POST" else None)

    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.json()["error"]["type"] == "KeyRefusedError"
    assert shared.acme not in answer.text


@pytest.mark.parametrize("headers", NO_KEY.values(), ids=NO_KEY)
def test_only_one_right_key_in_its_header_opens_the_service(shared, headers):
    """Anything else is 401 with the scheme that is wanted, and shows no key."""
    refused(shared, "GET", "/snapshots", headers)


@pytest.mark.parametrize(("method", "path"), EVERYWHERE)
def test_without_a_key_every_path_is_closed(shared, method, path):
    """Known or not, and before a body is even looked at."""
    refused(shared, method, path, [])


def test_the_scheme_may_be_written_in_any_case(shared):
    """RFC 9110: schemes of authentication are case-insensitive."""
    given = {"Authorization": f"bearer {shared.acme}"}

    assert shared.stranger.get("/snapshots", headers=given).status_code == 200


def test_a_foreign_decision_cannot_be_told_from_one_that_does_not_exist(shared):
    """Same status, same headers, same bytes, for reading and for feedback; and nothing of it is recorded."""
    api, other = shared.api, shared.other
    theirs = other.post("/route", json={"prompt": "x"}).json()["decision_id"]
    nobodys = "0" * 32

    for ask in (
        lambda made: api.get(f"/decisions/{made}"),
        lambda made: api.post("/feedback", json={"decision_id": made, "vote": 1}),
    ):
        foreign, unknown = ask(theirs), ask(nobodys)
        assert (foreign.status_code, unknown.status_code) == (404, 404)
        assert foreign.content == unknown.content
        assert dict(foreign.headers) | {"date": ""} == dict(unknown.headers) | {"date": ""}
    assert other.get(f"/decisions/{theirs}").json()["outcomes"] == []


@pytest.mark.parametrize(("method", "path"), EVERYWHERE[:-1])
def test_naming_another_tenant_is_refused_whether_it_exists_or_not(shared, method, path):
    """The same 403, byte for byte; naming one's own changes nothing."""
    api = shared.api
    answers = [
        api.request(method, path, params={"tenant": name}, json=body_of(path))
        for name in ("rival", "nobody", "", "A/B")
    ]

    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.content for answer in answers}) == 1
    if not path.startswith("/pilot"):  # shown in test_piloting
        own, plain = (
            api.request(method, path, params=params, json=body_of(path)) for params in ({"tenant": "acme"}, None)
        )
        assert own.status_code == plain.status_code != 403


def test_a_tenant_in_the_body_of_the_pilot_is_refused_alike(shared):
    """Query and body give the same bytes."""
    api = shared.api
    answers = [api.post("/pilot/run", json={"tenant": name}) for name in ("rival", "nobody")]
    answers.append(api.get("/pilot/run", params={"tenant": "rival"}))

    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.content for answer in answers}) == 1


def test_lists_and_metrics_show_the_scopes_of_the_key_alone(api, other, publish):
    """Snapshots, metrics and the reasons of /readyz name no scope of another tenant."""
    publish(scope="acme/main/model_routing")
    publish(scope="rival/main/model_routing")
    for client in (api, other):
        assert client.post("/route", json={"prompt": "x"}).json()["policy"] == "000001"

    for client, own, foreign in ((api, "acme", "rival"), (other, "rival", "acme")):
        texts = [client.get(path).text for path in ("/snapshots", "/metrics", "/budgets")]
        assert all(f"{own}/main/model_routing" in text for text in texts)
        texts += [client.get(path).text for path in ("/domains", "/keys", "/v1/models")]
        assert not any(foreign in text for text in texts)


def test_a_key_of_a_tenant_that_is_not_configured_opens_nothing(running, home):
    """It is refused, with the mend."""
    with running.client(make_key(home, "gone", "old")) as client:
        answer = client.post("/route", json={"prompt": "x"})

    assert (answer.status_code, "pilotage.toml" in answer.text) == (403, True)


def test_making_and_revoking_a_key_takes_effect_at_the_next_request(running, home):
    """No restart; the other keys stay."""
    first = make_key(home, "acme", "first")
    with running.client(first) as one:
        assert one.get("/snapshots").status_code == 200
        with running.client(make_key(home, "acme", "second")) as two:
            assert two.get("/snapshots").status_code == 200
            revoke_key(home, first[:12])
            assert (one.get("/snapshots").status_code, two.get("/snapshots").status_code) == (401, 200)


def test_only_the_hash_of_a_key_is_kept_and_only_for_its_owner(home):
    """256 random bits; mode 0600 in a folder of mode 0700; what is listed is not enough to ask with."""
    key = make_key(home, "acme", "bot")
    path = home.root / "keys" / "api-keys.json"
    (kept,) = list_keys(home)

    assert key.startswith("plt_")
    assert len(key) == 4 + 43  # 32 bytes in base64
    assert key not in path.read_text()
    assert key[12:] not in path.read_text()
    assert (kept.tenant, kept.name, kept.prefix) == ("acme", "bot", key[:12])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert json.loads(path.read_text())[0].keys() == {
        "prefix",
        "hash",
        "tenant",
        "name",
        "created",
        "scopes",
        "expires",
    }
    ring = KeyRing(home)
    assert ring.find(key.encode()).tenant == "acme"
    assert {ring.find(each.encode()) for each in (kept.hash, kept.prefix, "", key[:-1])} == {None}


def test_keys_made_at_once_are_all_kept(home):
    """No writer overwrites another's key."""
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda i: make_key(home, "acme", f"k{i}"), range(24)))
    ring = KeyRing(home)

    assert [ring.find(key.encode()).tenant for key in made] == ["acme"] * 24


def test_a_key_cannot_be_made_for_a_name_that_is_none(home):
    """Tenant and name are keys everywhere, or nothing is written."""
    for tenant, name in (("Acme", "bot"), ("acme", "the bot"), ("", "bot")):
        with pytest.raises(InvalidNameError, match="must be 1 to 63"):
            make_key(home, tenant, name)
    assert list_keys(home) == []


def test_revoking_needs_the_prefix_of_exactly_one_key(home):
    """Nothing is revoked by an unknown or empty prefix, or by one that fits several."""
    make_key(home, "acme", "one")
    make_key(home, "acme", "two")
    for prefix in ("", "plt_", "plt_????????"):
        with pytest.raises(KeyFileError, match="of one key"):
            revoke_key(home, prefix)
    assert len(list_keys(home)) == 2


@pytest.mark.parametrize("damage", ["readable by others", "no JSON", "no keys", "a hash that is none"])
def test_a_file_of_keys_that_cannot_be_trusted_lets_nobody_in(api, home, damage):
    """503, unready, and the path of the home stays out of the answer; mended, all is well."""
    path = home.root / "keys" / "api-keys.json"
    assert api.get("/snapshots").status_code == 200
    good = path.read_bytes()
    if damage == "readable by others":
        path.chmod(0o644)
    else:
        texts = {"no JSON": "[", "no keys": '[{"key": 1}]'}
        path.write_text(texts.get(damage, good.decode().replace('"hash": "', '"hash": "x')))

    answer = api.get("/snapshots")
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "KeyFileError")
    assert str(home.root) not in answer.text
    assert "$PILOTAGE_HOME/keys/api-keys.json" in answer.text
    assert httpx.get(api.base_url.join("/readyz")).status_code == 503
    assert httpx.get(api.base_url.join("/healthz")).status_code == 200
    path.chmod(0o600)
    path.write_bytes(good)
    os.utime(path, ns=(1, 1))  # the same bytes again, at another time
    assert api.get("/snapshots").status_code == 200


def test_whatever_looks_like_a_key_is_cut_to_its_beginning():
    """Anywhere in a text; other text stays."""
    assert redact("?a=plt_Ab-_0123456789&b=plt_ or plotted") == "?a=plt_…&b=plt_ or plotted"
