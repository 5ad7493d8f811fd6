"""A provider on a loopback port that answers with what a test hands it, byte for byte, over real HTTP/1.1."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bandits.config import parse_config
from gateway.adapter import Adapter, Ask, Piece
from gateway.providers import open_adapters

KEY = "canary-0123456789-key"


@dataclass
class Reply:
    """status, headers and the body in chunks.   ends: False: the connection closes before the body has ended."""

    status: int = 200
    type: str | None = "application/json"
    chunks: Sequence[bytes] = ()
    headers: Sequence[str] = ()
    ends: bool = True
    hangs: bool = False  # before the body ends, until the client goes


def as_json(body: object, status: int = 200, headers: Sequence[str] = ()) -> Reply:
    return Reply(status, chunks=[json.dumps(body).encode()], headers=headers)


def as_events(*chunks: str | bytes, ends: bool = True, hangs: bool = False) -> Reply:
    encoded = [chunk.encode() if isinstance(chunk, str) else chunk for chunk in chunks]
    return Reply(type="text/event-stream; charset=utf-8", chunks=encoded, ends=ends, hangs=hangs)


def data(*bodies: object, done: bool = False) -> list[str]:
    """Each body as an event of its own."""
    return [f"data: {json.dumps(body)}\n\n" for body in bodies] + (["data: [DONE]\n\n"] if done else [])


@dataclass
class Provider:
    url: str = ""
    replies: list[Reply] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    connections: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)  # a client closed its connection
    open: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict, repr=False)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open[asyncio.current_task()] = writer
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.left.set()
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        self.paths.append(first.split()[1])
        self.headers.append(headers)
        self.bodies.append(json.loads(await reader.readexactly(int(headers["content-length"]))))
        reply = self.replies.pop(0)
        kind = [f"content-type: {reply.type}"] if reply.type else []
        head = [f"HTTP/1.1 {reply.status} Reason", "transfer-encoding: chunked", *kind, *reply.headers]
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n")
        for chunk in reply.chunks:
            writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            await writer.drain()
        if reply.hangs:
            await reader.read(1)  # nothing more is sent on this connection but its end
            return False
        if reply.ends:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        return reply.ends


@asynccontextmanager
async def provider(*replies: Reply) -> AsyncIterator[Provider]:
    """A provider that gives these replies, one a request."""
    served = Provider(replies=list(replies))
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield served
    finally:
        server.close()
        for writer in served.open.values():
            writer.close()
        await asyncio.gather(*served.open)


def adapter(kind: str, url: str, *, sampling: bool = True, key: str = KEY, **settings: Any) -> Adapter:
    """The product's own adapter of a provider of this kind, from a configuration."""
    arms = [
        {"name": "a", "model": "m", "provider": "live", "usd_per_request": 1e-3, "sampling": sampling},
        {"name": "b", "model": "n", "usd_per_request": 1e-3},
    ]
    live = {"kind": kind, "base_url": f"{url}/v1", "key_env": "LIVE_KEY", "trust_env": False} | settings
    config = parse_config(
        {
            "tenants": {"t": {}},
            "domains": {"d": {"arms": arms, "budget_usd_per_request": 1.0}},
            "providers": {"live": live},
        },
        "test",
    )
    return open_adapters(config, only=["live"], environ={"LIVE_KEY": key})["live"]


async def streamed(model: Adapter, ask: Ask, name: str = "m") -> list[Piece]:
    """All pieces of a streamed answer."""
    return [piece async for piece in model.stream(name, ask)]


def talk(kind: str, reply: Reply, ask: Ask, *, stream: bool = True, **settings: Any) -> tuple[list[Piece], Provider]:
    """What comes of asking a provider that gives this one reply, and what the provider saw."""

    async def run() -> tuple[list[Piece], Provider]:
        async with provider(reply) as served:
            model = adapter(kind, served.url, **settings)
            try:
                pieces = await streamed(model, ask) if stream else list(await model.complete("m", ask))
            finally:
                await model.close()
            return pieces, served

    return asyncio.run(run())


def joined(pieces: Sequence[Piece]) -> tuple[str, dict[int, dict[str, str]]]:
    """The text of an answer, and its tool calls by index."""
    calls: dict[int, dict[str, str]] = {}
    for call in (call for piece in pieces for call in piece.tool_calls):
        known = calls.setdefault(call["index"], {"id": "", "name": "", "arguments": ""})
        known["id"] += call.get("id") or ""
        for key in ("name", "arguments"):
            known[key] += call["function"].get(key) or ""
    return "".join(piece.text for piece in pieces), calls


ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]},
    },
}
PIXEL = "data:image/png;base64,iVBORw0KGgo="
TALK = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "1+2?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call:1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
            {"id": "call:2", "type": "function", "function": {"name": "add", "arguments": ""}},
        ],
    },
    {"role": "tool", "tool_call_id": "call:1", "content": '{"sum": 3}'},
    {"role": "tool", "tool_call_id": "call:2", "content": "unclear"},
    {"role": "user", "content": "Go on."},
)
ASK = Ask(
    TALK,
    tools=(ADD,),
    tool_choice="required",
    max_tokens=64,
    temperature=1.5,
    top_p=0.9,
    stop=("END",),
    seed=7,
    response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    extra={"user": "u1", "model": "never this one", "seed": 8},
)
