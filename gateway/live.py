"""A provider that is really asked: a wire format over a server. The formats: openai.py, anthropic.py, gemini.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from typing import Any

from bandits.settings.catalogue import ProviderConfig
from gateway import anthropic, gemini, openai
from gateway.adapter import Ask, Failure, GatewayError, Piece
from gateway.anthropic import Anthropic
from gateway.gemini import Gemini
from gateway.http import Key, Server
from gateway.openai import OpenAI
from gateway.sse import Event
from gateway.wire import Reader, Wire

_STRANGE = (KeyError, TypeError, ValueError, AttributeError, IndexError)  # what reading raises where a form is not kept
_LINGER_S = 0.1  # after the last event: a connection whose end was read can serve the next request


class Live:
    """Adapter over a wire format and a server.

    without_sampling: names of models that refuse temperature and top_p, which are left out for them.
    """

    def __init__(self, wire: Wire, server: Server, without_sampling: Collection[str] = ()) -> None:
        self._wire, self._server, self._plain = wire, server, frozenset(without_sampling)

    async def complete(self, model: str, ask: Ask) -> tuple[Piece, ...]:
        """See Adapter."""
        path, body = self._request(model, ask, stream=False)
        answer = await self._server.json(path, body)
        with self._understood():
            piece = self._wire.whole(answer)
        if not (piece.text or piece.tool_calls):
            raise self._empty(piece)
        return (piece,)

    async def stream(self, model: str, ask: Ask) -> AsyncGenerator[Piece]:
        """See Adapter."""
        path, body = self._request(model, ask, stream=True)
        reader, said, finish = self._wire.reader(), False, None
        async with aclosing(self._server.events(path, body)) as events:
            try:
                async for event in events:
                    for piece in self._pieces(reader, event):
                        said = said or bool(piece.text or piece.tool_calls)
                        finish = piece.finish or finish
                        yield piece
                    if reader.done:
                        break
            except GatewayError as error:
                if error.kind != "cut" or not reader.finished:
                    raise
            if not reader.finished:
                what = "must answer to the end, but the stream ended before that"
                raise self._server.failure("cut", what, "ask again, or another model")
            if not said:
                raise self._empty(Piece(finish=finish))  # its usage came in a piece
            await _drain(events)

    async def close(self) -> None:
        """See Adapter."""
        await self._server.close()

    def _pieces(self, reader: Reader, event: Event) -> Iterator[Piece]:
        if event.data == "[DONE]":
            reader.finished = reader.done = True
            return
        body = self._server.parse(event.data)
        refusal = self._server.refusal(body)
        if refusal is not None:
            raise refusal
        with self._understood():
            yield from reader.read(body)

    def _request(self, model: str, ask: Ask, *, stream: bool) -> tuple[str, dict[str, Any]]:
        if model in self._plain:
            ask = replace(ask, temperature=None, top_p=None)
        try:
            return self._wire.request(model, ask, stream=stream)
        except _STRANGE as error:
            what = (
                f"must be asked in the form of OpenAI's messages and tools, but these are not ({type(error).__name__})"
            )
            raise self._server.failure("bad_request", what, "correct them") from None

    def _empty(self, last: Piece) -> GatewayError:
        what = f"must answer with text or a tool call, but gave neither (finish {last.finish})"
        kind: Failure = "filtered" if last.finish == "content_filter" else "empty"
        error = self._server.failure(kind, what, "ask again with room for more tokens, or ask another model")
        error.usage = last.usage
        return error

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """What is not the format is the provider's fault, and said as such."""
        try:
            yield
        except _STRANGE as error:
            what = f"must answer in its format, but did not ({type(error).__name__})"
            raise self._server.failure("malformed", what, "ask again, or another model") from None


async def _drain(events: AsyncIterator[Event]) -> None:
    with suppress(TimeoutError, GatewayError):
        async with asyncio.timeout(_LINGER_S):
            async for _ in events:
                pass


def open_live(name: str, settings: ProviderConfig, key: str, plain: Collection[str], connect_s: float | None) -> Live:
    """The adapter of a provider.   plain: names of its models that refuse temperature and top_p."""
    wire, base_url, auth, headers = _format(settings, key)
    server = Server(
        name,
        settings.base_url or base_url,
        auth,
        headers,
        trust_env=settings.trust_env,
        connect_s=connect_s,
        max_bytes=settings.max_reply_bytes,
    )
    return Live(wire, server, plain)


def _format(settings: ProviderConfig, key: str) -> tuple[Wire, str, Key, Mapping[str, str]]:
    """A kind's wire format, official address, key's header and headers beside it."""
    if settings.kind == "anthropic":
        return Anthropic(settings.max_tokens), anthropic.BASE_URL, Key("x-api-key", key), anthropic.HEADERS
    if settings.kind == "gemini":
        return Gemini(), gemini.BASE_URL, Key("x-goog-api-key", key), {}
    return OpenAI(settings.max_tokens_name), openai.BASE_URL, Key("authorization", key, "Bearer"), {}
