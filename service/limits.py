"""Requests a minute, counted by all workers together: in one file of the home, or in Redis for several hosts.

    home/limits.bin     1 MiB of slots, (fingerprint of the account, its number of settings.limits.admit); a cache

Eight slots make a row, and an account's fingerprint says which. A number that has passed is as good as none, so that
the table cleans itself; where all eight are in use, the one that would be free first makes room.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bandits.durable import make_folder
from bandits.settings.limits import WINDOW_S, ServiceConfig, admit
from service.errors import RateLimitedError

log = logging.getLogger("pilotage.service")

_SLOT = struct.Struct("<Qd")
_ROW, _ROWS = 8, 8_192
_SIZE = _ROW * _ROWS * _SLOT.size
_LUA = """
local now, apart, window = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local due = math.min(math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now), now + window)
local wait = due + apart - window - now
if wait > 1e-6 then return string.format('%.6f', wait) end
redis.call('SET', KEYS[1], string.format('%.6f', due + apart), 'PX', math.ceil(window * 1000))
return '0'
"""  # admit, said once more where the number lies: no two hosts may read it before either has written
_PATIENCE_S = 0.25  # of a request for Redis


class Store(Protocol):
    """Where the numbers are kept."""

    async def take(self, account: bytes, per_minute: int, now: float) -> float:
        """Count one request of an account (16 bytes); seconds to wait, 0 when it may come."""


class SharedTable:
    """One file, mapped by every worker of this host. A row is locked while it is read and written."""

    def __init__(self, path: Path) -> None:
        make_folder(path.parent)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if os.fstat(self._file).st_size != _SIZE:
            os.ftruncate(self._file, _SIZE)
        self._map = mmap.mmap(self._file, _SIZE)
        self._lock = threading.Lock()  # a lock of a file is the process's, not the thread's

    async def take(self, account: bytes, per_minute: int, now: float) -> float:
        """See Store."""
        mark, where = struct.unpack("<QQ", account)
        start, size = (where % _ROWS) * _ROW * _SLOT.size, _ROW * _SLOT.size
        with self._lock:
            fcntl.lockf(self._file, fcntl.LOCK_EX, size, start)
            try:
                row = list(_SLOT.iter_unpack(self._map[start : start + size]))
                mine = next((i for i, (of, _) in enumerate(row) if of == mark), None)
                slot = min(range(_ROW), key=lambda i: row[i][1]) if mine is None else mine
                due, wait = admit(0.0 if mine is None else row[mine][1], now, per_minute)
                _SLOT.pack_into(self._map, start + slot * _SLOT.size, mark, due)
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, size, start)
        return wait


class RedisStore:
    """A Redis (or Valkey) server. While it does not answer, `until_then` counts: for this host alone."""

    def __init__(self, url: str, until_then: Store) -> None:
        import redis.asyncio  # noqa: PLC0415 - an extra
        from redis.exceptions import RedisError  # noqa: PLC0415

        self._faults, self._until_then = (RedisError, OSError, TimeoutError), until_then
        client = redis.asyncio.from_url(url, socket_timeout=_PATIENCE_S, socket_connect_timeout=_PATIENCE_S)
        self._take = client.register_script(_LUA)
        self._down = False

    async def take(self, account: bytes, per_minute: int, now: float) -> float:
        """See Store."""
        try:
            said = await self._take(
                [b"pilotage:rate:" + account.hex().encode()], [now, WINDOW_S / per_minute, WINDOW_S]
            )
        except self._faults as error:
            if not self._down:  # its URL may have a password: only the kind of the fault is told
                log.warning("Redis must answer to count requests for all hosts, but: %s.", type(error).__name__)
            self._down = True
            return await self._until_then.take(account, per_minute, now)
        self._down = False
        return float(said)


def open_store(path: Path, settings: ServiceConfig) -> Store:
    """The store that the settings name. $PILOTAGE_REDIS goes first: a URL with a password belongs there."""
    table = SharedTable(path)
    named = settings.redis.get_secret_value() if settings.redis else None
    url = os.environ.get("PILOTAGE_REDIS") or named
    return RedisStore(url, table) if url else table


class Limiter:
    """Says no to whoever asks too often."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock

    async def check(self, whose: str, tenant: str, user: str, per_minute: int | None) -> None:
        """Count a request of a tenant ("" for user) or a user of it. Raises RateLimitedError when it has to wait."""
        if per_minute is None:
            return
        account = hashlib.blake2b(f"{len(tenant)} {tenant} {user}".encode(), digest_size=16).digest()
        wait = await self._store.take(account, per_minute, self._clock())
        if wait > 0.0:
            raise RateLimitedError(whose, per_minute, wait)
