"""Requests a minute: the rule, the table that all workers share, Redis, and what a caller hears."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandits.config import parse_config
from bandits.errors import ConfigError
from bandits.settings.limits import WINDOW_S, admit
from service.limits import Limiter, RedisStore, SharedTable, Store

T = 1.7e9
LOOP = asyncio.new_event_loop()  # a connection to Redis belongs to the loop that made it


@given(st.integers(1, 200), st.lists(st.floats(0.0, 90.0), max_size=300))
def test_no_minute_brings_more_than_two_minutes_worth_and_none_at_an_even_pace_is_refused(per_minute, gaps):
    """A minute's worth at once and a minute's worth as time goes by; whoever waits as told may come."""
    due, now, came = 0.0, T, []
    for gap in gaps:
        now += gap / per_minute
        due, wait = admit(due, now, per_minute)
        if wait == 0.0:
            came.append(now)
        else:
            assert admit(due, now + wait, per_minute)[1] == 0.0
    for i, start in enumerate(came):
        assert sum(start <= time < start + WINDOW_S for time in came[i:]) <= 2 * per_minute
    due, now = 0.0, T
    for _ in range(3 * per_minute):
        due, wait = admit(due, now, per_minute)
        assert wait == 0.0
        now += WINDOW_S / per_minute


def test_a_clock_that_was_set_back_keeps_nobody_out_for_longer_than_a_minute():
    """However far."""
    due, _ = admit(T + 1e6, T, 60)
    assert admit(due, T + WINDOW_S, 60)[1] == 0.0


class StoreConformance:
    """What every store must do."""

    def test_a_minutes_worth_may_come_and_not_one_more(self, store):
        assert [take(store, "a", 5, T) for _ in range(5)] == [0.0] * 5
        assert take(store, "a", 5, T) == pytest.approx(12.0, abs=1e-3)
        assert take(store, "a", 5, T + 12.0) == 0.0
        assert take(store, "a", 5, T + 12.0) > 0.0

    def test_accounts_do_not_know_each_other(self, store):
        assert take(store, "one", 1, T) == 0.0
        assert take(store, "one", 1, T) > 0.0
        assert take(store, "two", 1, T) == 0.0


def take(store: Store, account: str, per_minute: int, now: float) -> float:
    return LOOP.run_until_complete(store.take(account.ljust(16).encode(), per_minute, now))


class TestSharedTable(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path) -> Store:
        return SharedTable(tmp_path / "limits.bin")

    def test_processes_share_it(self, tmp_path):
        """Four at once let through exactly what one would."""
        context = multiprocessing.get_context("spawn")
        with context.Pool(4) as pool:
            passed = pool.map(hammer, [tmp_path / "limits.bin"] * 4)

        assert sum(passed) == 500

    def test_a_row_that_is_full_makes_room(self, store):
        """Nine accounts that fall into one row: each can be counted, and the eight that came last are."""
        accounts = [struct.pack("<QQ", i + 1, 7) for i in range(9)]
        waits = [LOOP.run_until_complete(store.take(one, 1, T + i)) for i, one in enumerate(accounts)]

        assert waits == [0.0] * 9
        assert all(LOOP.run_until_complete(store.take(one, 1, T + 9.0)) > 0.0 for one in accounts[1:])

    def test_what_has_passed_is_as_good_as_none(self, store):
        """The table cleans itself: an account that waited long enough loses its slot to another, and nothing else."""
        for i in range(100):
            assert LOOP.run_until_complete(store.take(struct.pack("<QQ", i + 1, 7), 1, T + 61.0 * i)) == 0.0


def hammer(path: Path) -> int:
    store = SharedTable(path)
    return sum(take(store, "all", 500, T) == 0.0 for _ in range(400))


def _server() -> str | None:
    """A Redis or a Valkey of this machine."""
    return os.environ.get("REDIS_SERVER") or shutil.which("redis-server") or shutil.which("valkey-server")


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    program = _server()
    if program is None:
        pytest.skip("no redis-server or valkey-server here; name one with REDIS_SERVER")
    pytest.importorskip("redis")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, cwd=tmp_path_factory.mktemp("redis"), stdout=subprocess.PIPE)
    for line in process.stdout:
        if b"Ready to accept connections" in line:
            break
    yield f"redis://127.0.0.1:{port}/0", process
    process.kill()
    process.wait()


class Counting:
    """A store that tells whether it was asked."""

    asked = 0

    async def take(self, account: bytes, per_minute: int, now: float) -> float:
        self.asked += 1
        return 0.0


class TestRedis(StoreConformance):
    @pytest.fixture
    def store(self, redis_server) -> Store:
        import redis

        redis.from_url(redis_server[0]).flushall()
        return RedisStore(redis_server[0], Counting())

    def test_it_keeps_no_name(self, redis_server, store):
        """Of whom a number is cannot be read there."""
        import redis

        LOOP.run_until_complete(Limiter(store, lambda: T).check("the user", "acme", "anna@example.org", 5))
        (key,) = redis.from_url(redis_server[0]).keys()
        assert b"acme" not in key
        assert b"anna" not in key


def test_without_redis_this_host_counts_alone():
    """A server that is gone lets nobody through uncounted, and stops nobody."""
    pytest.importorskip("redis")
    counting = Counting()
    store = RedisStore("redis://:secret@127.0.0.1:1/0", counting)

    assert take(store, "a", 1, T) == 0.0
    assert counting.asked == 1


def limited(**rates: int) -> Callable:
    arms = [{"name": name, "model": name, "usd_per_request": 1e-4} for name in ("small", "large")]
    domain = {"arms": arms, "budget_usd_per_request": 1e-3}
    tenants = {"acme": {"rates": rates}, "rival": {}}
    return parse_config({"tenants": tenants, "domains": {"model_routing": domain}}, "test")


def test_too_many_requests_of_a_tenant_are_told_when_to_come_again(serve_at, home, acme, rival):
    """429 with Retry-After, before anything is recorded; the other tenant is not touched."""
    now = [T]
    running = serve_at(home, limited(requests_per_minute=6), clock=lambda: now[0])
    with running.client(acme) as api, running.client(rival) as other:
        answers = [api.post("/route", json={"prompt": "x"}) for _ in range(7)]
        assert [one.status_code for one in answers] == [200] * 6 + [429]
        assert answers[-1].json()["error"]["type"] == "RateLimitedError"
        assert answers[-1].headers["Retry-After"] == "10"
        assert other.post("/route", json={"prompt": "x"}).status_code == 200
        assert running.app.state.parts.record.head() == 7
        now[0] += 10.0
        assert api.post("/route", json={"prompt": "x"}).status_code == 200


def test_too_many_requests_of_one_user_leave_the_others_alone(serve_at, home, acme):
    """Counted by whom the app names."""
    running = serve_at(home, limited(user_requests_per_minute=2), clock=lambda: T)
    with running.client(acme) as api:
        told = [api.post("/route", json={"prompt": "x", "user": user}).status_code for user in ("a", "a", "a", "b")]
        assert told == [200, 200, 429, 200]
        assert api.post("/route", json={"prompt": "x"}).status_code == 200


def test_a_limit_must_let_something_through():
    """Nobody is shut out by a zero."""
    with pytest.raises(ConfigError, match="requests_per_minute"):
        limited(requests_per_minute=0)


def test_counting_costs_little_memory_and_the_file_can_go(tmp_path):
    """It is a cache: deleted, or of another size, it is made anew."""
    path = tmp_path / "limits.bin"
    assert take(SharedTable(path), "a", 1, time.time()) == 0.0
    assert path.stat().st_size == 2**20
    path.unlink()
    assert take(SharedTable(path), "a", 1, time.time()) == 0.0
