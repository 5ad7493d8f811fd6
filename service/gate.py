"""Before any route: whose request is it, and is its body small enough? No byte of a stranger's body is parsed."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bandits.errors import PilotageError
from service.errors import BodyTooLargeError, KeyRefusedError, Refusals
from service.keys import KeyRing

OPEN = frozenset({"/healthz", "/readyz", "/openapi.json"})  # what a probe may ask without a key
LARGEST_BODY = 10_000_000  # bytes
_DRAINED = 4 * LARGEST_BODY  # bytes of a refused body that are read all the same, so that its sender hears the answer


class Gate:
    """ASGI middleware: lets a request through with `state["tenant"]` set (None: no key on an open path)."""

    def __init__(self, app: ASGIApp, keys: KeyRing, refusals: Refusals) -> None:
        self._app, self._keys, self._refusals = app, keys, refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            tenant = self._tenant(scope)
            body = await _body(receive)
        except PilotageError as error:
            await self._refusals.answer(error)(scope, receive, send)
            return
        if body is None:  # the caller hung up
            return
        scope.setdefault("state", {})["tenant"] = tenant
        await self._app(scope, _Again(body, receive), send)

    def _tenant(self, scope: Scope) -> str | None:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if not given and scope["path"] in OPEN:
            return None
        if len(given) != 1:
            raise KeyRefusedError(
                f"a request must have one header 'Authorization: Bearer plt_…', but has {len(given)}; "
                "make a key with `pilotage key`."
            )
        scheme, _, key = given[0].partition(b" ")
        tenant = self._keys.tenant_of(key.strip()) if scheme.lower() == b"bearer" else None
        if tenant is None:
            raise KeyRefusedError(
                "the header must be 'Authorization: Bearer ' and a key of this service, but is not; it may have been "
                "revoked. Make one with `pilotage key`."
            )
        return tenant


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
    """The whole body; None if the caller hung up. Raises BodyTooLargeError, whether its length was announced or not."""
    parts: list[bytes] = []
    size, more = 0, True
    while more and size <= _DRAINED:
        message = await receive()
        if message["type"] != "http.request":
            return None
        size += len(message.get("body", b""))
        if size <= LARGEST_BODY:
            parts.append(message.get("body", b""))
        else:
            parts.clear()
        more = message.get("more_body", False)
    if size > LARGEST_BODY:
        raise BodyTooLargeError(f"a body must have at most {LARGEST_BODY:,} bytes, but has more; send it in parts.")
    return b"".join(parts)
