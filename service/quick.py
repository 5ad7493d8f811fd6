"""POST /route without the framework's detours, which cost more than a decision, for a body that is plainly right.

Whatever is odd takes the ordinary way (deciding.py), which finds what is wrong with it and says so.
"""

from __future__ import annotations

import json

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from bandits.errors import PilotageError
from service.bodies import RouteBody
from service.call import Parts
from service.deciding import decide

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class QuickRoute:
    """Behind the gate, before the app (ASGI): answers what it can, and leaves the rest to the app."""

    def __init__(self, app: ASGIApp, parts: Parts) -> None:
        self._app, self._parts = app, parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        body = _plain(scope)
        if body is None:
            await self._app(scope, receive, send)
            return
        try:
            answer = await decide(self._parts, scope["state"]["tenant"], body)
        except (PilotageError, HTTPException, OSError) as error:
            await self._parts.refusals.answer(error)(scope, receive, send)
            return
        raw = _ENCODER.encode(answer).encode()
        head = [(b"content-length", str(len(raw)).encode()), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": raw})


def _plain(scope: Scope) -> RouteBody | None:
    """The body of a POST /route that asks nothing else, if it is right."""
    if scope["type"] != "http" or (scope["path"], scope["method"], scope["query_string"]) != ("/route", "POST", b""):
        return None
    if dict(scope["headers"]).get(b"content-type") != b"application/json":
        return None
    try:
        return RouteBody.model_validate(scope["state"]["json"])
    except ValidationError:
        return None
