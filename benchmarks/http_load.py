"""A load generator that costs little: raw sockets kept alive, requests sent when they are due, not when one ended.

Open loop: each request has an intended time, and its latency counts from then. So a server that stalls is charged with
all who would have come meanwhile, which a closed loop would politely not have sent ("coordinated omission").
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

_TICK_S = 0.001


@dataclass(slots=True)
class Sample:
    """One request.   due: s after the start.   took: s from then until its answer was whole.   status: 0: cut."""

    due: float
    took: float
    status: int


def request(path: str, key: str, body: object, host: str = "127.0.0.1") -> bytes:
    """A POST as it goes over the wire."""
    raw = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(raw)}\r\n\r\n"
    )
    return head.encode() + raw


@dataclass(slots=True)
class _Load:
    """What the connections share."""

    start: float
    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)  # due, and nobody was free
    idle: deque[_Connection] = field(default_factory=deque)
    samples: list[Sample] = field(default_factory=list)

    def send(self, due: float, raw: bytes) -> None:
        if self.idle:
            self.idle.popleft().ask(due, raw)
        else:
            self.waiting.append((due, raw))


class _Connection(asyncio.Protocol):
    """One keep-alive connection: one request at a time."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._due = 0.0
        self._got = b""
        self._asked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._load.idle.append(self)

    def ask(self, due: float, raw: bytes) -> None:
        self._due, self._asked = due, True
        self._transport.write(raw)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head = self._got.find(b"\r\n\r\n")
        if head < 0:
            return
        lower = self._got[:head].lower()
        place = lower.find(b"content-length:")
        if place >= 0:
            length = int(lower[place + 15 :].split(b"\r\n", 1)[0])
            whole = len(self._got) >= head + 4 + length
        else:  # chunked
            whole = self._got.endswith(b"0\r\n\r\n")
        if whole:
            self._done(int(self._got[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._asked:
            self._done(0, reuse=False)
        elif self in self._load.idle:
            self._load.idle.remove(self)

    def _done(self, status: int, reuse: bool = True) -> None:
        load = self._load
        load.samples.append(Sample(self._due, time.perf_counter() - load.start - self._due, status))
        self._got, self._asked = b"", False
        if reuse and load.waiting:
            self.ask(*load.waiting.popleft())
        elif reuse:
            load.idle.append(self)

    def close(self) -> None:
        self._transport.close()


async def _connected(port: int, connections: int) -> tuple[_Load, list[_Connection]]:
    loop, load = asyncio.get_running_loop(), _Load(time.perf_counter())
    made = [await loop.create_connection(lambda: _Connection(load), "127.0.0.1", port) for _ in range(connections)]
    return load, [protocol for _, protocol in made]


async def open_loop(
    port: int, requests: Sequence[bytes], rps: float, seconds: float, connections: int = 64, patience_s: float = 30.0
) -> list[Sample]:
    """Send `rps` a second for `seconds`, evenly spaced, `requests` in turn; whatever is not answered counts as cut."""
    load, made = await _connected(port, connections)
    load.start = time.perf_counter()
    sent, total = 0, int(rps * seconds)
    while sent < total:
        now = time.perf_counter() - load.start
        while sent < total and sent / rps <= now:
            load.send(sent / rps, requests[sent % len(requests)])
            sent += 1
        await asyncio.sleep(max(_TICK_S, min(sent / rps, total / rps) - (time.perf_counter() - load.start)))
    end = time.perf_counter() + patience_s
    while len(load.samples) < total and time.perf_counter() < end:
        await asyncio.sleep(0.01)
    missing = [Sample(seconds, patience_s, 0)] * (total - len(load.samples))
    for one in made:
        one.close()
    return sorted([*load.samples, *missing], key=lambda sample: sample.due)


async def closed_loop(port: int, requests: Sequence[bytes], seconds: float, connections: int = 64) -> float:
    """Answers with status 200 a second, when every connection asks again as soon as it was answered."""
    load, made = await _connected(port, connections)
    turn = 0
    load.start = time.perf_counter()
    while time.perf_counter() - load.start < seconds:
        while len(load.waiting) < connections or load.idle:
            load.send(time.perf_counter() - load.start, requests[turn % len(requests)])
            turn += 1
        await asyncio.sleep(_TICK_S)
    good = sum(sample.status == 200 for sample in load.samples)
    took = time.perf_counter() - load.start
    for one in made:
        one.close()
    return good / took
