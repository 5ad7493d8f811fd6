"""Feedback over HTTP: only for a decision that one was answered with, and each event once."""

from __future__ import annotations

import pytest

from bandits.home import Home
from bandits.ids import bare
from bandits.record.port import rows
from bandits.snapshots.keys import rotate_id_key
from bandits.types import Decision
from service.keys import make_key


def decide(api, **body: object) -> str:
    answer = api.post("/route", json={"prompt": "Why is the sky blue?"} | body)
    assert answer.status_code == 200, answer.text
    return answer.json()["decision_id"]


def report(api, token: str, headers: dict[str, str] | None = None, **body: object) -> object:
    answer = api.post("/feedback", json={"decision_id": token} | body, headers=headers)
    return answer.json()["recorded"] if answer.status_code == 200 else (answer.status_code, answer.content)


def test_a_decision_answered_to_one_user_takes_feedback_from_that_user_alone(api, home):
    """The record has a pseudonym, which is neither the name nor good for reporting."""
    mine, nobodys = decide(api, user="alice@example.org"), decide(api)
    with home.open_record() as record:
        pseudonym = record.decision(bare(mine), "acme").user
        assert record.decision(bare(nobodys), "acme").user == ""
    assert len(pseudonym) == 32
    assert "alice" not in pseudonym
    wrong = [report(api, mine, vote=1, user=user) for user in ("bert", pseudonym, "Alice@example.org")]
    wrong += [report(api, mine, vote=1), report(api, nobodys, vote=1, user="alice@example.org")]
    assert {status for status, _ in wrong} == {404}
    assert len(set(wrong)) == 1
    assert report(api, mine, vote=1, user="alice@example.org") is True
    assert report(api, nobodys, vote=1) is True


def test_what_is_forged_foreign_or_unsigned_is_refused_in_the_same_bytes(api, other):
    """Whether there is such a decision must not show; nothing is written."""
    token, theirs = decide(api), decide(other)
    changed = token[:-1] + ("0" if token[-1] != "0" else "1")
    tried = [changed, bare(token), bare(token) + theirs[32:], theirs, token.upper(), "f" * 64, "x", token[:-1] + "\n"]
    answers = {report(api, one, vote=1) for one in tried}
    assert {status for status, _ in answers} == {404}
    assert len(answers) == 1
    assert api.get(f"/decisions/{token}").json()["outcomes"] == []
    assert report(api, token, vote=1) is True


def test_a_repeat_is_answered_and_not_recorded(api, home):
    """The same once more is heard once; a changed mind is news, and so is changing back."""
    token = decide(api)
    assert [report(api, token, vote=vote) for vote in (1, 1, -1, -1, 1)] == [True, False, True, False, True]
    assert [report(api, token, cost_usd=1e-4) for _ in range(2)] == [True, False]
    with home.open_record() as record:
        assert [outcome.vote for outcome in record.outcomes(bare(token))] == [1, -1, 1, None]


def test_a_named_event_is_heard_once_whatever_came_since(api):
    """A retry that arrives late does not undo a changed mind."""
    token = decide(api)
    assert report(api, token, vote=1, event_id="click-1") is True
    assert report(api, token, vote=-1, event_id="click-2") is True
    assert report(api, token, vote=1, event_id="click-1") is False
    assert report(api, token, vote=1, event_id="click-3") is True
    assert report(api, token, quality=0.5, event_id="click-3") is True  # another part of it


def test_a_request_with_an_idempotency_key_is_heard_once(api):
    """The header that clients send with their retries."""
    token, named = decide(api), {"Idempotency-Key": "r-1"}
    assert report(api, token, named, quality=0.5) is True
    assert report(api, token, named, quality=0.5) is False
    assert report(api, token, {"Idempotency-Key": "r-2"}, quality=0.5) is True
    assert report(api, decide(api), named, quality=0.5) is True  # another decision


def test_repeats_are_not_counted_as_outcomes(api):
    """Metrics count what was recorded."""

    def counted():
        return [
            line for line in api.get("/metrics").text.splitlines() if "outcome" in line and not line.startswith("#")
        ]

    token = decide(api)
    report(api, token, vote=1)
    before = counted()
    assert before
    report(api, token, vote=1)
    assert counted() == before


def test_a_key_that_was_rotated_away_signs_no_more_but_is_taken(api, home):
    """Without a restart; an id that was answered before stays good."""
    old = decide(api)
    rotate_id_key(home.root)
    new = decide(api)
    assert [report(api, token, vote=1) for token in (old, new)] == [True, True]
    (home.root / "keys" / "ids" / "000001.key").unlink()
    assert report(api, old, vote=-1)[0] == 404
    assert report(api, new, vote=-1) is True


@pytest.mark.parametrize("user", ["", "x" * 201, 7, "\ud800"])
def test_a_user_that_is_no_name_is_refused(shared, user):
    """Empty, too long, a number, half a letter."""
    assert shared.api.post("/route", json={"prompt": "x", "user": "y"}).status_code == 200
    raw = '{"prompt": "x", "user": %s}' % (f'"{user}"' if isinstance(user, str) else user)
    sent = raw.encode("utf-8", "surrogatepass")
    answer = shared.api.post("/route", content=sent, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


def test_the_service_works_over_postgresql_and_names_no_server(config, tmp_path, postgres, postgres_url, serve_at):
    """Decide, report, explain, be ready; and when the server is gone, 503 without its address or password."""
    home = Home(tmp_path / "home", postgres_url)
    key = make_key(home, "acme", "test")
    with serve_at(home, config).client(key) as api:
        token = decide(api, user="alice")
        assert [report(api, token, vote=1, user="alice") for _ in range(2)] == [True, False]
        assert api.get(f"/decisions/{token}").json()["outcomes"][0]["vote"] == 1
        assert api.get("/readyz").status_code == 200
        postgres.stop()
        try:
            answers = [api.post("/route", json={"prompt": "x"}), api.get("/readyz")]
        finally:
            postgres.start()
        for answer in answers:
            assert answer.status_code == 503
            assert not [word for word in (str(postgres.folder), postgres.password, "postgres:") if word in answer.text]
        assert decide(api)
    with home.open_record() as record:
        assert sum(isinstance(entry, Decision) for _, entry in rows(record)) == 2
    assert not (home.root / "record.db").exists()
