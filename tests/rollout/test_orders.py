"""Facts about orders and leases, in a file and on a server: signed, ever rising, and acted on by one of two."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from nacl.signing import VerifyKey
from sqlalchemy.exc import DBAPIError

from bandits.errors import RolloutError
from bandits.record import postgres as record_postgres
from bandits.record.audit import Audit
from bandits.rollout.controller import Controller
from bandits.rollout.machine import Order, first
from bandits.rollout.orders import LEASE_S, Lease, OrderBook, decode, encode
from bandits.settings.rollout import RolloutConfig
from bandits.snapshots.keys import SigningKey
from tests.rollout.world import SCOPE, World

STRANGER = SigningKey(bytes(32))
ORDER = first(SCOPE, "000001", RolloutConfig(), 5.0, who="ann", why="so")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that no busy machine exceeds: here it matters who acts, not how soon."""
    monkeypatch.setattr(record_postgres, "STALLED_S", 120.0)
    monkeypatch.setitem(OrderBook.__init__.__kwdefaults__, "busy_s", 60.0)


@pytest.fixture(params=["file", "postgres_url"], ids=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """A scope whose orders are in a database of each kind."""
    return World(tmp_path, None if request.param == "file" else request.getfixturevalue(request.param))


@pytest.fixture
def book(world: World) -> OrderBook:
    made = world.book()
    made.make()
    return made


def execute(world: World, statement: str, **values: object) -> None:
    """What somebody with the database, but not the key, can do."""
    with world.book()._database.writing.begin() as connection:
        connection.execute(sa.text(statement), values)


def at_once(*deeds: Callable[[], object]) -> list[object]:
    """What each of these does, all begun at one moment, each in a thread; what one raises is raised."""
    start, found = threading.Barrier(len(deeds)), list[object]([None] * len(deeds))

    def do(i: int) -> None:
        start.wait()
        try:
            found[i] = deeds[i]()
        except Exception as error:
            found[i] = error

    threads = [threading.Thread(target=do, args=(i,)) for i in range(len(deeds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in found:
        if isinstance(one, Exception):
            raise one
    return found


def canary(number: int = 1) -> Order:
    return replace(ORDER, number=number, phase="canary", candidate="000002", seed="s")


def lease(now: float = 100.0, **changes: object) -> Lease:
    return replace(Lease(SCOPE, 1, now, now + LEASE_S, 0.0), **changes)


def test_orders_get_the_next_number_and_come_back_as_they_were_given(world, book):
    """Whatever number they bring."""
    for number in (1, 2, 3):
        placed = book.place(replace(ORDER, number=77), world.key, book.read(SCOPE))
        assert placed == replace(ORDER, number=number) == book.read(SCOPE).order
    assert [order.number for order in book.history(SCOPE)] == [1, 2, 3]


@pytest.mark.parametrize(
    "deed",
    [
        "UPDATE rollout_orders SET content = replace(content, '000002', '000009') WHERE number = 2",
        "UPDATE rollout_orders SET signature = :nothing WHERE number = 2",
        "UPDATE rollout_orders SET number = 3 WHERE number = 2",
        "DELETE FROM rollout_orders WHERE number = 2",
        "INSERT INTO rollout_orders SELECT scope, 3, content, signature FROM rollout_orders WHERE number = 1",
        "INSERT INTO rollout_orders VALUES (:scope, 3, :content, :signature)",
    ],
    ids=["changed", "unsigned", "renumbered", "deleted", "replayed", "stranger"],
)
def test_what_is_forged_lower_or_gone_is_refused_and_the_last_good_order_stays(world, book, deed):
    """In a reader that saw it; one that starts now takes the highest good one that is left."""
    book.place(ORDER, world.key, book.read(SCOPE))
    last = book.place(replace(ORDER, stable="000002"), world.key, book.read(SCOPE))

    forged = encode(canary(3))
    values = {"nothing": bytes(64), "scope": str(SCOPE), "content": forged.decode(), "signature": STRANGER.sign(forged)}
    execute(world, deed, **{name: value for name, value in values.items() if f":{name}" in deed})

    seen = book.read(SCOPE)
    assert seen.order == last
    assert seen.fault is not None
    assert world.book().read(SCOPE).order.number in (1, 2)


def test_after_a_forged_number_a_true_order_is_placed_above_it(world, book):
    """A forger can waste numbers, and nothing else."""
    book.place(ORDER, world.key, book.read(SCOPE))
    forged = encode(canary(9))
    values = {"scope": str(SCOPE), "content": forged.decode(), "signature": STRANGER.sign(forged)}
    execute(world, "INSERT INTO rollout_orders VALUES (:scope, 9, :content, :signature)", **values)

    placed = book.place(ORDER, world.key, book.read(SCOPE))
    assert placed.number == 10
    assert world.book().read(SCOPE).order == placed


def test_of_two_who_saw_one_state_only_one_acts(world, book):
    """Order against order, order against lease, lease against lease: every write takes the token."""
    other = world.book()
    book.place(canary(), world.key, book.read(SCOPE))
    seen, also = book.read(SCOPE), other.read(SCOPE)

    assert book.renew(lease(), world.key, seen)
    assert not other.renew(lease(), world.key, also)
    assert other.place(ORDER, world.key, also) is None
    again, too = book.read(SCOPE), other.read(SCOPE)
    assert other.place(ORDER, world.key, too) is not None
    assert not book.renew(lease(101.0), world.key, again), "a late controller cannot revive what was ended"
    assert book.read(SCOPE).lease is None


@pytest.mark.parametrize("before", [0, 1], ids=["the first order", "a later one"])
def test_of_many_who_act_at_once_one_does(world, book, before):
    """A race of threads, each with a connection of its own; the others are told, and nothing fails."""
    for _ in range(before):
        book.place(canary(), world.key, book.read(SCOPE))
    books = [world.book() for _ in range(6)]
    seen = [each.read(SCOPE) for each in books]

    acted = at_once(*(partial(each.place, ORDER, world.key, one) for each, one in zip(books, seen, strict=True)))

    assert sum(each is not None for each in acted) == 1
    assert len(book.history(SCOPE)) == before + 1


def test_tables_are_made_once_by_whoever_is_first(world):
    """Every process makes them where there are none."""
    books = [world.book() for _ in range(4)]
    at_once(*(each.make for each in books))

    assert books[0].place(ORDER, world.key, books[1].read(SCOPE)) == books[2].read(SCOPE).order


def test_nights_that_begin_a_rollout_at_once_begin_one(world):
    """Hosts that share a record but no home: there is one order for the candidate, sealed once."""
    stable, candidate = world.put(), world.put()

    at_once(*(partial(world.begin, candidate, stable) for _ in range(4)))

    assert [(order.phase, order.candidate) for order in world.orders()] == [("canary", candidate)]


@pytest.mark.parametrize("bad", [0.8, 0.0], ids=["sound", "breached"])
def test_controllers_that_look_at_once_never_both_act(world, bad):
    """Three of them come to each verdict together; one acts on it, and it is sealed once."""
    stable, candidate = world.put(), world.put()
    world.begin(candidate, stable)
    world.start()
    looking = [Controller(world.home, world.config, SCOPE, world.record, lambda: world.now) for _ in range(3)]
    rounds = 0
    while (before := world.orders())[-1].active:
        world.serve(range(200 * rounds, 200 * rounds + 200), bad=bad)
        world.now += 1.0
        at_once(*(one.look for one in looking))
        assert len(world.orders()) - len(before) <= 1
        world.server.refresh()
        rounds += 1

    phases = ["canary", "rolled back"] if bad == 0.0 else ["canary", "canary", "canary", "complete"]
    assert [order.phase for order in world.orders()] == phases
    with Audit(world.home.audit_url) as audit:
        assert [row.content["evidence"]["order"] for row in audit.rows("acme")] == [n + 1 for n in range(len(phases))]


def test_a_controller_that_was_stopped_in_the_middle_of_its_write_cannot_finish_it(tmp_path, postgres_url, monkeypatch):
    """The server takes its lock away, so that others act; what it wanted to write is refused when it wakes."""
    world = World(tmp_path, postgres_url)
    other = world.book()
    other.make()
    other.place(canary(), world.key, other.read(SCOPE))
    seen = other.read(SCOPE)
    monkeypatch.setattr(record_postgres, "STALLED_S", 1.0)
    stopped = world.book()

    with stopped._database.writing.connect() as connection:
        assert stopped._claim(connection, SCOPE, seen, lease(), world.key)
        ended = other.place(ORDER, world.key, other.read(SCOPE))  # waits for the lock, which ends
        with pytest.raises(DBAPIError):
            connection.commit()

    assert other.read(SCOPE).order == ended
    assert other.read(SCOPE).lease is None


@pytest.mark.parametrize(
    ("now", "held"),
    [
        (100.0, True),
        (103.9, True),
        (104.0, False),
        (3_700.0, False),
        (98.0, True),
        (97.0, False),
        (-3_500.0, False),
    ],
)
def test_a_lease_holds_for_seconds_and_not_from_the_future(now, held):
    """Whichever way a clock has jumped."""
    assert lease().holds(now) is held


def test_a_lease_for_longer_than_any_lease_is_none():
    """Though it be signed."""
    assert not lease(expires=200.0).holds(100.0)


@pytest.mark.parametrize("forged", ["unsigned", "stranger", "of another order"])
def test_a_lease_is_believed_if_signed_and_for_the_order_that_holds(world, book, forged):
    """Else the canary has none."""
    book.place(canary(), world.key, book.read(SCOPE))
    assert book.renew(lease(), world.key, book.read(SCOPE))
    assert book.read(SCOPE).lease == lease()

    if forged == "of another order":
        assert book.renew(lease(order=9), world.key, book.read(SCOPE))
    else:
        content = encode(lease(served=1e6))
        sign = bytes(64) if forged == "unsigned" else STRANGER.sign(content)
        execute(
            world,
            "UPDATE rollout_leases SET content = :content, signature = :sign",
            content=content.decode(),
            sign=sign,
        )
    assert book.read(SCOPE).lease is None


def test_a_signature_of_a_lease_is_none_of_an_order():
    """What is signed says what it is."""
    with pytest.raises(RolloutError, match="another kind"):
        decode(encode(lease()), Order)


def test_encoded_orders_and_leases_never_change():
    """Golden: what was signed by an older Pilotage must be read by a newer one."""
    order = replace(canary(4), time=1.5, start=7)
    said = json.loads(encode(order))
    terms = said.pop("terms")
    assert said == {
        "kind": "order", "scope": "acme/main/own", "number": 4, "phase": "canary", "stable": "000001",
        "candidate": "000002", "stage": 0, "seed": "s", "start": 7, "time": 1.5, "who": "ann", "why": "so",
    }  # fmt: skip
    assert terms["stages"] == [0.05, 0.2, 0.5, 1.0]
    assert decode(encode(order), Order) == order
    golden = b'{"expires":104.0,"issued":100.0,"kind":"lease","order":1,"scope":"acme/main/own","served":0.0}'
    assert encode(lease()) == golden
    assert decode(golden, Lease) == lease()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"kind":"order"}', b"\xff", b'{"kind":"lease","scope":"x"}'])
def test_what_is_no_order_says_so(content):
    """Never a traceback of JSON."""
    with pytest.raises(RolloutError, match="must be an order or lease"):
        decode(content, Order)


def test_a_record_without_orders_has_none(world):
    """And no table is made by reading."""
    seen = world.book().read(SCOPE)
    assert (seen.order, seen.token, seen.highest) == (None, 0, 0)
    assert "rollout_orders" not in sa.inspect(world.book()._database.reading).get_table_names()


def test_another_key_that_is_trusted_may_sign(world, book):
    """As for snapshots: after the signing key was changed, what the old one signed stays good."""
    book.place(ORDER, STRANGER, book.read(SCOPE))
    both = OrderBook(world.home.record_url, {"x": VerifyKey(STRANGER.public), **book.trusted})
    assert both.read(SCOPE).order == replace(ORDER, number=1)
    assert world.book().read(SCOPE).order is None
