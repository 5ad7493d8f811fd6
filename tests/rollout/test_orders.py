"""Facts about orders and leases: signed, ever rising, and acted on by one of two."""

from __future__ import annotations

import json
import sqlite3
import threading
from dataclasses import replace

import pytest
from nacl.signing import VerifyKey

from bandits.errors import RolloutError
from bandits.rollout.machine import Order, first
from bandits.rollout.orders import LEASE_S, Lease, OrderBook, decode, encode
from bandits.settings.rollout import RolloutConfig
from bandits.snapshots.keys import SigningKey
from tests.rollout.world import SCOPE, World

STRANGER = SigningKey(bytes(32))
ORDER = first(SCOPE, "000001", RolloutConfig(), 5.0, who="ann", why="so")


@pytest.fixture
def book(world: World) -> OrderBook:
    made = world.book()
    made.make()
    return made


def execute(world: World, statement: str, *values: object) -> None:
    """What somebody with the file, but not the key, can do."""
    with sqlite3.connect(world.home.record_file) as connection:
        connection.execute(statement, values)


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
        ("UPDATE rollout_orders SET content = replace(content, '000002', '000009') WHERE number = 2",),
        ("UPDATE rollout_orders SET signature = zeroblob(64) WHERE number = 2",),
        ("UPDATE rollout_orders SET number = 3 WHERE number = 2",),
        ("DELETE FROM rollout_orders WHERE number = 2",),
        ("INSERT INTO rollout_orders SELECT scope, 3, content, signature FROM rollout_orders WHERE number = 1",),
        (
            "INSERT INTO rollout_orders VALUES (?, 3, ?, ?)",
            str(SCOPE),
            encode(canary(3)).decode(),
            STRANGER.sign(encode(canary(3))),
        ),
    ],
    ids=["changed", "unsigned", "renumbered", "deleted", "replayed", "stranger"],
)
def test_what_is_forged_lower_or_gone_is_refused_and_the_last_good_order_stays(world, book, deed):
    """In a reader that saw it; one that starts now takes the highest good one that is left."""
    book.place(ORDER, world.key, book.read(SCOPE))
    last = book.place(replace(ORDER, stable="000002"), world.key, book.read(SCOPE))

    execute(world, *deed)

    seen = book.read(SCOPE)
    assert seen.order == last
    assert seen.fault is not None
    assert world.book().read(SCOPE).order.number in (1, 2)


def test_after_a_forged_number_a_true_order_is_placed_above_it(world, book):
    """A forger can waste numbers, and nothing else."""
    book.place(ORDER, world.key, book.read(SCOPE))
    forged = encode(canary(9))
    execute(world, "INSERT INTO rollout_orders VALUES (?, 9, ?, ?)", str(SCOPE), forged.decode(), STRANGER.sign(forged))

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


def test_of_many_controllers_at_once_one_acts(world, book):
    """A race of threads, each with a connection of its own."""
    book.place(canary(), world.key, book.read(SCOPE))
    books = [world.book() for _ in range(6)]
    seen = [each.read(SCOPE) for each in books]
    acted: list[Order | None] = []
    start = threading.Barrier(6)

    def act(i: int) -> None:
        start.wait()
        acted.append(books[i].place(ORDER, world.key, seen[i]))

    threads = [threading.Thread(target=act, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(each is not None for each in acted) == 1
    assert len(book.history(SCOPE)) == 2


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
        execute(world, "UPDATE rollout_leases SET content = ?, signature = ?", content.decode(), sign)
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
    with sqlite3.connect(world.home.record_file) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    assert "rollout_orders" not in names


def test_another_key_that_is_trusted_may_sign(world, book):
    """As for snapshots: after the signing key was changed, what the old one signed stays good."""
    book.place(ORDER, STRANGER, book.read(SCOPE))
    both = OrderBook(world.home.record_url, {"x": VerifyKey(STRANGER.public), **book.trusted})
    assert both.read(SCOPE).order == replace(ORDER, number=1)
    assert world.book().read(SCOPE).order is None
