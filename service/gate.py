"""Before any route: whose request is it, may its key do that, does it come too often, is its body fit to be read?

No byte of a stranger's body is parsed. Every answer leaves with the headers that keep browsers out of mischief.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bandits.config import Config
from bandits.errors import PilotageError
from service.errors import BodyTooLargeError, KeyRefusedError, Refusals, ScopeRefusedError, SlowBodyError
from service.keys import ApiKey, KeyRing
from service.limits import Limiter
from service.strict import read_json

log = logging.getLogger("pilotage.access")

OPEN = frozenset({"/healthz", "/readyz", "/openapi.json"})  # what a probe may ask without a key
NEEDED: Mapping[tuple[str, str], str] = {  # what a key must be good for, by method and first part of the path
    ("POST", "route"): "route",
    ("POST", "v1"): "route",
    ("GET", "v1"): "route",
    ("POST", "feedback"): "feedback",
    ("GET", "decisions"): "read",
    ("GET", "snapshots"): "read",
    ("GET", "budgets"): "read",
    ("GET", "domains"): "read",
    ("GET", "pilot"): "route",
    ("POST", "pilot"): "route",
    ("DELETE", "pilot"): "route",
    ("GET", "metrics"): "operate",
    ("GET", "keys"): "admin",
    ("POST", "keys"): "admin",
    ("DELETE", "keys"): "admin",
}
LARGEST_BODY = 10_000_000  # bytes
QUIET = ("/route", "/feedback", "/v1/", "/healthz", "/readyz", "/metrics")  # in the record, or a probe's: no line
PATIENCE_S = 30.0  # for a body to come whole
_DRAINED = 4 * LARGEST_BODY  # bytes of a refused body that are read all the same, so that its sender hears the answer
_SAFE = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


def needed(method: str, path: str) -> str | None:
    """What a key must be good for to ask this; None for what nobody may ask, or needs no key for."""
    return NEEDED.get((method, path.split("/", 2)[1]))


class Gate:
    """Before the app (ASGI): lets a request in with `tenant` (None: an open path, no key) and `json` in its `state`."""

    def __init__(self, app: ASGIApp, keys: KeyRing, refusals: Refusals, limiter: Limiter, config: Config) -> None:
        self._app, self._keys, self._refusals, self._limiter = app, keys, refusals, limiter
        self._rates = {name: tenant.rates.requests_per_minute for name, tenant in config.tenants.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        started = False

        async def safely(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *_SAFE]
                _note(scope, message["status"])
            await send(message)

        try:
            await self._pass(scope, receive, safely)
        except Exception as error:  # whoever runs the service is told of it, and the caller that there is one
            if not started:
                await self._refusals.answer(error)(scope, receive, safely)
            raise

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """To the app, or an answer why not."""
        try:
            tenant = await self._admitted(scope)
            body = await _body(receive)
            said = read_json(body) if body else None
        except (PilotageError, HTTPException) as error:
            await self._refusals.answer(error)(scope, receive, send)
            return
        if body is None:  # the caller hung up
            return
        scope.setdefault("state", {}).update(tenant=tenant, json=said)
        await self._app(scope, _Again(body, receive), send)

    async def _admitted(self, scope: Scope) -> str | None:
        """The tenant of the key, which may ask this now."""
        key = self._key(scope)
        if key is None:
            return None
        wanted = needed(scope["method"], scope["path"])
        if wanted is None and scope["path"] not in OPEN:  # also a route of which NEEDED says nothing, by oversight
            raise _not_there(scope["path"])
        if wanted is not None and wanted not in key.scopes:
            raise ScopeRefusedError(
                f"a key must be good for '{wanted}' to ask this, but {key.prefix}… is good for "
                f"{', '.join(key.scopes)}; make another with `pilotage key`."
            )
        await self._limiter.check("the tenant", key.tenant, "", self._rates.get(key.tenant))
        return key.tenant

    def _key(self, scope: Scope) -> ApiKey | None:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if not given and scope["path"] in OPEN:
            return None
        if len(given) != 1:
            raise KeyRefusedError(
                f"a request must have one header 'Authorization: Bearer plt_…', but has {len(given)}; "
                "make a key with `pilotage key`."
            )
        scheme, _, key = given[0].partition(b" ")
        found = self._keys.find(key.strip()) if scheme.lower() == b"bearer" else None
        if found is None:
            raise KeyRefusedError(
                "the header must be 'Authorization: Bearer ' and a key of this service, but is not; it may have ended "
                "or been revoked. Make one with `pilotage key`."
            )
        return found


def _note(scope: Scope, status: int) -> None:
    """A line in the log for what stands nowhere else. A query may hold names: it is left out."""
    if status != 200 or not scope["path"].startswith(QUIET):
        log.info('%s "%s %s" %d', (scope.get("client") or ("?",))[0], scope["method"], scope["path"], status)


def _not_there(path: str) -> HTTPException:
    """404, or 405 where only the method is wrong."""
    methods = ", ".join(method for method, part in NEEDED if part == path.split("/", 2)[1])
    return HTTPException(405, headers={"Allow": methods}) if methods else HTTPException(404)


class _Again:
    """A `receive` that gives the body once more, and then what comes after it."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None if the caller hung up.

    Raises BodyTooLargeError, whether its length was announced or not, and SlowBodyError.
    """
    message = await receive()
    if message["type"] != "http.request":
        return None
    if not message.get("more_body", False) and len(message.get("body", b"")) <= LARGEST_BODY:
        return bytes(message.get("body", b""))
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await _rest(message, receive)
    except TimeoutError:
        raise SlowBodyError(f"a body must come whole within {PATIENCE_S:.0f} s, but did not; send it again.") from None


async def _rest(message: Message, receive: Receive) -> bytes | None:
    parts: list[bytes] = []
    size, more = 0, True
    while more and size <= _DRAINED:
        if message["type"] != "http.request":
            return None
        size += len(message.get("body", b""))
        if size <= LARGEST_BODY:
            parts.append(message.get("body", b""))
        else:
            parts.clear()
        more = message.get("more_body", False)
        if more and size <= _DRAINED:
            message = await receive()
    if size > LARGEST_BODY:
        raise BodyTooLargeError(f"a body must have at most {LARGEST_BODY:,} bytes, but has more; send it in parts.")
    return b"".join(parts)
