"""One provider's server over HTTP: a request goes out with its key, JSON or events come back, failures get their kind.

There is no deadline here but that of the connection: whoever asks sets them, and cancels. A reply is cut off at
`max_bytes`, so that no server can fill the memory. Redirects are not followed: the key would go along.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, NoReturn

import httpx

from gateway.adapter import Failure, GatewayError
from gateway.failures import Told, refused, told
from gateway.sse import Event, Parser

_ERROR_BYTES = 65_536  # of the body of an error: no more is read
_IDLE = 64  # connections kept open for the next request


class Key(httpx.Auth):
    """Puts a key into the header of each request when it is sent. No repr, log or error shows it."""

    def __init__(self, header: str, key: str, scheme: str = "") -> None:
        self._header, self._key, self._scheme = header, key, scheme

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See httpx.Auth."""
        if self._key:
            request.headers[self._header] = f"{self._scheme} {self._key}".strip()
        yield request

    def blot(self, text: str) -> str:
        """`text` without the key."""
        return text.replace(self._key, "[key]") if self._key else text


class Server:
    """A provider's server.

    name: of the provider, for errors.   base_url: without a slash at its end.   headers: sent with every request.
    trust_env: whether a proxy that the environment names is used.   connect_s: seconds to wait for a connection; None:
    as long as the system does.   max_bytes: of a reply.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        key: Key,
        headers: Mapping[str, str],
        *,
        trust_env: bool = True,
        connect_s: float | None = None,
        max_bytes: int = 10_000_000,
    ) -> None:
        self.name, self._base_url, self._key, self._max_bytes = name, base_url, key, max_bytes
        self._client = httpx.AsyncClient(
            # Compressed events come late, and what is small on the wire may be huge in memory.
            headers={"accept-encoding": "identity", "content-type": "application/json", **headers},
            auth=key,
            verify=_trusted(trust_env),
            trust_env=trust_env,
            timeout=httpx.Timeout(None, connect=connect_s),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=_IDLE),
        )

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.aclose()

    async def json(self, path: str, body: Mapping[str, Any]) -> Any:  # noqa: ANN401 - whatever it says
        """The JSON that answers `body`, posted to `path`. Raises GatewayError."""
        async with self._post(path, body, "application/json") as response:
            self._expect("json", response)
            parts = [part async for part in self._bytes(response)]
        parsed = self.parse(b"".join(parts))
        error = told(parsed)
        if error is not None:
            raise self._refused(error, response.headers)
        return parsed

    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[Event]:
        """The events that answer `body`, posted to `path`. Raises GatewayError, `cut` where the connection breaks."""
        async with self._post(path, body, "text/event-stream") as response:
            if "event-stream" not in response.headers.get("content-type", ""):
                await self._refuse(response)
            parser = Parser()
            async for part in self._bytes(response):
                for event in parser.feed(part):
                    yield event

    def parse(self, text: str | bytes) -> Any:  # noqa: ANN401 - whatever it says
        """`text` as JSON; raises GatewayError."""
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise self.failure("malformed", "must answer in JSON, but did not", "ask again, or another model") from None

    def failure(self, kind: Failure, what: str, remedy: str) -> GatewayError:
        """A failure that says who, what and what to do."""
        return GatewayError(f"{self.name} {what}; {remedy}.", kind=kind)

    def refusal(self, body: object) -> GatewayError | None:
        """The failure that an event tells of, if it does."""
        error = told(body)
        return None if error is None else self._refused(error, {})

    def _refused(self, error: Told | None, headers: Mapping[str, str], status: int = 200) -> GatewayError:
        return refused(self.name, status, error, headers, time.time(), self._key.blot)

    @asynccontextmanager
    async def _post(self, path: str, body: Mapping[str, Any], accept: str) -> AsyncIterator[httpx.Response]:
        try:
            content = json.dumps(body, allow_nan=False, separators=(",", ":")).encode()  # ASCII: even half surrogates
        except (ValueError, TypeError, RecursionError):
            what = "must be asked in JSON, but the request holds a number or an object that JSON has not"
            raise self.failure("bad_request", what, "leave it out") from None
        try:
            request = self._client.build_request(
                "POST", f"{self._base_url}{path}", content=content, headers={"accept": accept}
            )
            response = await self._client.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._lost(error)
        try:
            if response.status_code != 200:
                raise self._refused(await self._error(response), response.headers, response.status_code)
            yield response
        finally:
            await response.aclose()

    async def _bytes(self, response: httpx.Response) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for part in response.aiter_bytes():
                size += len(part)
                if size > self._max_bytes:
                    what = f"must answer in at most {self._max_bytes:,} bytes, but sent more"
                    raise self.failure("too_large", what, "ask for less, or raise max_reply_bytes")
                yield part
        except httpx.HTTPError as error:
            self._lost(error)

    async def _error(self, response: httpx.Response) -> Told | None:
        """What the body of a reply says of an error, as far as it is one and comes."""
        body = b""
        try:
            async for part in response.aiter_bytes():
                body += part
                if len(body) > _ERROR_BYTES:
                    break
            return told(json.loads(body))
        except (httpx.HTTPError, ValueError, RecursionError):
            return None

    def _expect(self, kind: str, response: httpx.Response) -> None:
        found = response.headers.get("content-type", "none")
        if kind not in found:
            what = f"must answer in {kind}, but its content type is {found[:60]!r}"
            raise self.failure("wrong_type", what, "check base_url in the catalogue")

    async def _refuse(self, response: httpx.Response) -> NoReturn:
        """Some servers answer a request for a stream with an error and status 200."""
        error = await self._error(response) if "json" in response.headers.get("content-type", "") else None
        if error is not None:
            raise self._refused(error, response.headers)
        self._expect("event-stream", response)
        raise AssertionError

    def _lost(self, error: Exception) -> NoReturn:
        kind, what = next((known for type_, known in _LOST.items() if isinstance(error, type_)), _CUT)
        raise self.failure(kind, what, "ask again, or another model") from None


@cache
def _trusted(trust_env: bool) -> ssl.SSLContext:
    """Whom to believe who they are: read once, it takes longer than a request."""
    return httpx.create_ssl_context(trust_env=trust_env)


_CUT: tuple[Failure, str] = ("cut", "must answer to the end, but the connection broke before that")
_LOST: Mapping[type[Exception], tuple[Failure, str]] = {
    httpx.ConnectTimeout: ("connect_timeout", "must be reachable, but no connection came about in time"),
    httpx.ConnectError: ("refused", "must be reachable, but refused the connection or has no address"),
    httpx.ProxyError: ("refused", "must be reachable, but the proxy on the way refused"),
    httpx.UnsupportedProtocol: ("refused", "must be reachable, but its base_url is none for HTTP"),
    httpx.InvalidURL: ("refused", "must be reachable, but its base_url is none"),
    httpx.LocalProtocolError: ("bad_request", "must be asked in HTTP, but the request is none"),
    httpx.DecodingError: ("malformed", "must answer in the encoding that it names, but did not"),
}
