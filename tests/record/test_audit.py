"""Facts about the audit chain: what was sealed cannot be changed, dropped or reordered without being noticed."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from bandits.errors import AuditError
from bandits.record.audit import START, Audit, Head, verify
from bandits.testing.ports import at_once


@pytest.fixture
def url(tmp_path) -> str:
    return f"sqlite:///{tmp_path}/record.db"


@pytest.fixture
def audit(url) -> Audit:
    made = Audit(url)
    for i, (action, tenant) in enumerate(
        [("key", ""), ("promotion", "acme"), ("kept", "rival"), ("promotion", "acme")]
    ):
        made.append(action, tenant=tenant, who="night", why=f"reason {i}", evidence={"gain": 0.1 * i}, time=float(i))
    return made


def sql(url: str, *statements: str) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount != 0


def test_a_chain_reads_back_as_it_was_sealed(audit):
    """In order, with who, when, why and evidence; a tenant sees its own rows and those of everybody."""
    rows = audit.rows()

    assert [row.sequence for row in rows] == [1, 2, 3, 4]
    assert rows[1].content == {"who": "night", "why": "reason 1", "evidence": {"gain": 0.1}}
    assert [row.sequence for row in audit.rows("acme")] == [1, 2, 4]
    assert verify(rows, {"000001": Head(2, rows[1].link), "000002": audit.head()}) == []
    assert "reason 1" in rows[1].render()


SWAPPED = [(2, "link"), (2, "content"), (3, "link"), (3, "content")]


def test_an_empty_chain_is_sound(url):
    """And so is what a snapshot signed of it."""
    audit = Audit(url)

    assert audit.head() == Head(0, START)
    assert verify(audit.rows(), {"000001": audit.head()}) == []


@pytest.mark.parametrize(
    ("tampering", "faults"),
    [
        (["UPDATE audit SET time = 9 WHERE sequence = 2"], ["row 2: its link"]),
        (["UPDATE audit SET tenant = 'x' WHERE sequence = 2"], ["row 2: its link"]),
        (["UPDATE audit SET action = 'kept' WHERE sequence = 2"], ["row 2: its link"]),
        (["UPDATE audit SET commitment = '00' WHERE sequence = 2"], ["row 2: its link", "row 2: its content"]),
        (["UPDATE audit SET link = '00' WHERE sequence = 2"], ["row 2: its link", "row 3: its link", "signed row 2"]),
        (["UPDATE audit_content SET content = '{}' WHERE sequence = 2"], ["row 2: its content"]),
        (["DELETE FROM audit WHERE sequence = 2"], ["row 2: missing", "signed row 2"]),
        (["DELETE FROM audit WHERE sequence = 1"], ["row 1: missing"]),
        (["DELETE FROM audit WHERE sequence > 1"], ["signed row 2"]),
        (
            [f"UPDATE audit SET sequence = {new} WHERE sequence = {old}" for old, new in ((2, 9), (3, 2), (9, 3))],
            [f"row {n}: its {what}" for n, what in SWAPPED] + ["row 4: its link", "signed row 2"],
        ),
    ],
)  # fmt: skip
def test_tampering_is_named(url, audit, tampering, faults):
    """Changed, dropped at the front, in the middle and behind what a snapshot signed, or swapped."""
    signed = {"000001": Head(2, audit.rows()[1].link)}
    sql(url, *tampering)

    found = verify(audit.rows(), signed)

    assert len(found) == len(faults)
    for fault, told in zip(faults, found, strict=True):
        assert fault in told


def test_forgetting_content_leaves_the_chain_whole(audit):
    """What is gone is gone; the row and its seal stay."""
    audit.forget([2])
    rows = audit.rows()

    assert rows[1].content is None
    assert "erased" in rows[1].render()
    assert verify(rows, {"000001": audit.head()}) == []


def test_equal_contents_have_different_commitments(url):
    """A salt each: nobody can guess a content that was erased by trying."""
    audit = Audit(url)
    for _ in range(2):
        audit.append("key", tenant="", who="a", why="b", evidence={}, time=0.0)
    one, two = audit.rows()

    assert one.commitment != two.commitment


def test_many_append_at_once_and_the_chain_does_not_fork(url):
    """16 writers with a connection each: 16 rows, one after the other."""
    Audit(url)

    def work(name: str) -> None:
        Audit(url).append("key", tenant="", who=name, why="race", evidence={}, time=0.0)

    at_once(work, [str(i) for i in range(16)])
    rows = Audit(url).rows()
    assert sorted(row.content["who"] for row in rows) == sorted(str(i) for i in range(16))
    assert verify(rows, {}) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": "party"}, "must be one of"),
        ({"evidence": {"x": float("nan")}}, "finite JSON"),
        ({"evidence": {"x": {1}}}, "JSON"),
    ],
)  # fmt: skip
def test_what_cannot_be_sealed_is_refused(audit, change, message):
    """And nothing is written."""
    given = {"action": "key", "tenant": "", "who": "a", "why": "b", "evidence": {}, "time": 0.0} | change
    with pytest.raises(AuditError, match=message):
        audit.append(given.pop("action"), **given)
    assert audit.head().sequence == 4
