"""A provider on the loopback interface that breaks in every known way, over real HTTP, in three wire formats.

For tests and benchmarks of whoever calls models: `fault` says how the next calls go wrong, and may be asked anew for
each call. It answers POST /v1/chat/completions (OpenAI), /v1/messages (Anthropic) and
/v1beta/models/MODEL:generateContent and :streamGenerateContent (Gemini).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

Fault = Literal[
    "refused",  # nobody listens: see FaultServer.refuse
    "rate_limited",  # 429 with Retry-After
    "no_credit",  # 402
    "server",  # 500
    "hang_headers",  # takes the request, and says nothing
    "hang_first_token",  # headers, and then nothing
    "stall",  # some tokens, and then nothing
    "cut",  # some tokens, half a chunk, and the connection ends
    "bad_json",  # some tokens, and a line that is no JSON
    "empty",  # a success without a word
    "large",  # more than 10 MB
    "drip",  # byte by byte, too slow to end
    "wrong_type",  # a page of HTML, with status 200
]
FAULTS: tuple[Fault, ...] = Fault.__args__  # type: ignore[attr-defined]
TEXT = ("The ", "sky ", "is ", "blue.")
USAGE = (12, 4)  # tokens in, tokens out
_STATUS = {"rate_limited": "429 Too Many Requests", "no_credit": "402 Payment Required", "server": "500 Internal Error"}
_LARGE = 11_000_000  # characters
_DRIP_S = 0.02  # from byte to byte


@dataclass(frozen=True, slots=True)
class Call:
    """A request that came.   time: of the event loop's clock, s."""

    time: float
    model: str
    is_streaming: bool
    fault: Fault | None
    body: dict[str, Any] = field(repr=False)


@dataclass(slots=True)
class FaultServer:
    """See `fault_server`.

    fault: how calls go wrong, None: they do not; or who decides that for each.   retry_after: what a 429 says, s.
    texts: what it answers, in pieces.
    """

    port: int = 0
    fault: Fault | Callable[[], Fault | None] | None = None
    retry_after: str = "1"
    texts: tuple[str, ...] = TEXT
    calls: list[Call] = field(default_factory=list)
    open: int = 0  # connections
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"http://127.0.0.1:{self.port}"

    async def listen(self) -> None:
        """Take connections, on the port that it had before if there was one."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Let go of the port and of every connection, so that new ones are refused; `listen` takes it again."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._answer(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        path = head.split(" ", 2)[1]
        lengths = [line.partition(":")[2] for line in head.split("\r\n") if line.lower().startswith("content-length:")]
        body = json.loads(await reader.readexactly(int(lengths[0])))
        wire = _wire(path, body)
        fault = self.fault() if callable(self.fault) else self.fault
        self.calls.append(Call(asyncio.get_running_loop().time(), wire.model, wire.is_streaming, fault, body))
        if fault == "refused":  # it came through before the port was let go of
            writer.transport.abort()
        elif fault in _STATUS:
            wish = f"Retry-After: {self.retry_after}\r\n" if fault == "rate_limited" else ""
            error = json.dumps({"error": {"type": fault, "message": f"this is a {fault}", "code": fault}})
            writer.write(_head(_STATUS[fault], "application/json", wish, len(error)) + error.encode())
        elif fault == "wrong_type":
            writer.write(_head("200 OK", "text/html", "", 12) + b"<html>\n\n</>\n")
        elif fault == "hang_headers":
            await reader.read()  # until the client goes
        elif wire.is_streaming:
            await _stream(wire, fault, self.texts, reader, writer)
        else:
            await _whole(wire, fault, "".join(self.texts), reader, writer)
        with suppress(ConnectionError):
            await writer.drain()


@asynccontextmanager
async def fault_server(fault: Fault | None = None) -> AsyncIterator[FaultServer]:
    """A provider that listens on a port of its own while the context lasts."""
    server = FaultServer(fault=fault)
    await server.listen()
    try:
        yield server
    finally:
        await server.refuse()


async def _stream(
    wire: _Wire,
    fault: Fault | None,
    texts: tuple[str, ...],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    writer.write(_head("200 OK", "text/event-stream", "Transfer-Encoding: chunked\r\n", None))
    await writer.drain()
    if fault == "hang_first_token":
        await reader.read()
        return
    texts = () if fault == "empty" else ("x" * 100_000,) * (_LARGE // 100_000) if fault == "large" else texts
    events = [event.encode() for event in wire.events(texts)]
    if fault in ("stall", "cut", "bad_json"):
        events = events[: len(events) // 2]
    if fault == "drip":
        for byte in b"".join(events):
            writer.write(b"1\r\n%c\r\n" % byte)
            await writer.drain()
            await asyncio.sleep(_DRIP_S)
        return
    for event in events:
        writer.write(_chunk(event))
        await writer.drain()
    if fault == "stall":
        await reader.read()
    elif fault == "cut":
        writer.write(_chunk(b'data: {"half')[:-4])
    else:
        writer.write((_chunk(b'data: {"choices": [}\n\n') if fault == "bad_json" else b"") + b"0\r\n\r\n")


async def _whole(
    wire: _Wire, fault: Fault | None, text: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    text = "" if fault == "empty" else "x" * _LARGE if fault == "large" else text
    body = wire.reply(text).encode()
    if fault == "bad_json":
        body = body[:-1] + b"]"
    writer.write(_head("200 OK", "application/json", "", len(body)))
    if fault in ("hang_first_token", "stall", "cut"):
        writer.write(body[: 0 if fault == "hang_first_token" else len(body) // 2])
        await writer.drain()
        if fault != "cut":
            await reader.read()
        return
    if fault == "drip":
        for byte in body:
            writer.write(b"%c" % byte)
            await writer.drain()
            await asyncio.sleep(_DRIP_S)
        return
    writer.write(body)


def _head(status: str, kind: str, more: str, length: int | None) -> bytes:
    size = "" if length is None else f"Content-Length: {length}\r\n"
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n{more}{size}\r\n".encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(frozen=True, slots=True)
class _Wire:
    """One of the three formats.   reply: the whole answer.   events: the same as server-sent events."""

    model: str
    is_streaming: bool
    reply: Callable[[str], str]
    events: Callable[[tuple[str, ...]], Iterator[str]]


def _wire(path: str, body: dict[str, Any]) -> _Wire:
    if ":" in path:
        model, _, verb = path.rpartition("/")[2].partition(":")
        return _Wire(model, verb.startswith("stream"), _gemini, _gemini_events)
    form = (_anthropic, _anthropic_events) if path.endswith("/messages") else (_openai, _openai_events)
    return _Wire(str(body.get("model")), bool(body.get("stream")), *form)


def _openai(text: str) -> str:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": USAGE[0], "completion_tokens": USAGE[1], "total_tokens": sum(USAGE)}
    return json.dumps({"id": "1", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage})


def _openai_events(texts: tuple[str, ...]) -> Iterator[str]:
    def event(delta: dict[str, str], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _data({"id": "1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]})

    yield event({"role": "assistant", "content": ""})
    yield from (event({"content": text}) for text in texts)
    yield event({}, "stop")
    yield _data(
        {"id": "1", "object": "chat.completion.chunk", "choices": [], "usage": json.loads(_openai(""))["usage"]}
    )
    yield "data: [DONE]\n\n"


def _anthropic(text: str) -> str:
    content = [{"type": "text", "text": text}] if text else []
    usage = {"input_tokens": USAGE[0], "output_tokens": USAGE[1]}
    kind = {"id": "1", "type": "message", "role": "assistant", "model": "m"}
    return json.dumps({**kind, "content": content, "stop_reason": "end_turn", "usage": usage})


def _anthropic_events(texts: tuple[str, ...]) -> Iterator[str]:
    def event(kind: str, **fields: Any) -> str:  # noqa: ANN401 - whatever the format has there
        return f"event: {kind}\n" + _data({"type": kind, **fields})

    yield event("message_start", message={**json.loads(_anthropic("")), "stop_reason": None})
    if texts:
        yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        yield from (event("content_block_delta", index=0, delta={"type": "text_delta", "text": text}) for text in texts)
        yield event("content_block_stop", index=0)
    yield event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": USAGE[1]})
    yield event("message_stop")


def _gemini(text: str, finish: str | None = "STOP") -> str:
    usage = {"promptTokenCount": USAGE[0], "candidatesTokenCount": USAGE[1], "totalTokenCount": sum(USAGE)}
    candidate = {"content": {"role": "model", "parts": [{"text": text}] if text else []}, "index": 0}
    return json.dumps(
        {"candidates": [candidate | ({"finishReason": finish} if finish else {})], "usageMetadata": usage}
    )


def _gemini_events(texts: tuple[str, ...]) -> Iterator[str]:
    yield from (_data(json.loads(_gemini(text, None))) for text in texts)
    yield _data(json.loads(_gemini("")))


def _data(value: object) -> str:
    return f"data: {json.dumps(value)}\n\n"
