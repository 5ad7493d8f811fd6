"""What can be wrong with a request, and how any error becomes an answer: {"error": {"type", "message"}}, never more."""

from __future__ import annotations

import logging
import math
import re
import reprlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bandits.errors import (
    BudgetExhaustedError,
    ContextError,
    ForeignDecisionError,
    InvalidNameError,
    PilotageError,
    ShapeError,
    UnknownArmError,
    UnknownDecisionError,
)
from gateway.adapter import GatewayError
from service.keys import redact

log = logging.getLogger("pilotage.service")

_SHOWN = 5  # faults of one request that the answer spells out
_LONGEST = 2_000  # characters of a message
_SERVER = re.compile(r"(the record must be a PostgreSQL database[^,]*, but) .*", re.DOTALL)
_LATER: Mapping[str, str] = MappingProxyType({"Retry-After": "5"})  # s
_NONE: Mapping[str, str] = MappingProxyType({})
_BEARER: Mapping[str, str] = MappingProxyType({"WWW-Authenticate": "Bearer"})
_UNKNOWN_DECISION = (
    "a decision must be one that this key's tenant and this user were answered with, but this one is not; "
    "send the decision_id of POST /route as it was answered, and the same user."
)


class ServiceError(PilotageError):
    """A request that is refused, with the status that says so."""

    status: ClassVar[int] = 422
    headers: Mapping[str, str] = _NONE


class KeyRefusedError(ServiceError):
    """No key, or not one of ours."""

    status = 401
    headers = _BEARER


class TenantRefusedError(ServiceError):
    """The request names another tenant than its key's."""

    status = 403


class ScopeRefusedError(ServiceError):
    """The key is not good for what is asked."""

    status = 403


class SlowBodyError(ServiceError):
    """A body that did not come whole in time."""

    status = 408


class RateLimitedError(ServiceError):
    """More requests in a minute than may come."""

    status = 429

    def __init__(self, whose: str, per_minute: int, wait_s: float) -> None:
        super().__init__(
            f"requests of {whose} must be at most {per_minute:,} a minute, but are more; ask again in {wait_s:.3g} s."
        )
        self.headers = {"Retry-After": str(max(1, math.ceil(wait_s)))}


class UnknownScopeError(ServiceError):
    """A workspace or domain that the key's tenant does not have."""

    status = 404


class UnknownModelError(ServiceError):
    """Neither an arm nor a way to have one chosen."""

    status = 404


class UnknownKeyError(ServiceError):
    """No key of the tenant begins so."""

    status = 404


class BodyTooLargeError(ServiceError):
    """More bytes than a body may have."""

    status = 413


class InvalidRequestError(ServiceError):
    """A body or query that does not say what it must."""


class PilotFailedError(ServiceError):
    """A step of the pilot failed on documents that could be read."""

    status = 500


class BusyError(ServiceError):
    """As many pilot runs wait as may."""

    status = 503
    headers = _LATER


class Refusals:
    """Turns errors into answers, in one place, and counts each.

    root: the home; its path is not shown to callers.   count: told the status of each answer.
    """

    def __init__(self, root: Path, count: Callable[[int], None]) -> None:
        self._root, self._count = root, count

    def install(self, app: FastAPI) -> None:
        """Answer every error of `app` from here."""
        for kind in (PilotageError, OSError, RequestValidationError, HTTPException, Exception):
            app.add_exception_handler(kind, self._handle)

    def answer(self, error: Exception) -> Response:
        """The answer to `error`; says nothing about one that is not ours, which the server's log tells in full."""
        status, name, _, headers = _plainly(error)
        if status >= 500:
            log.error("%s: %s", name, redact(str(error)))
        self._count(status)
        return JSONResponse(self.told(error), status, headers=dict(headers))

    def told(self, error: Exception) -> dict[str, Any]:
        """The body that says what is wrong: also inside of a stream, whose status has been sent."""
        _, name, message, _ = _plainly(error)
        message = presentable(message, self._root)
        shown = message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…"
        return {"error": {"type": name, "message": shown}}

    async def _handle(self, _: Request, error: Exception) -> Response:
        return self.answer(error)


def presentable(text: str, root: Path) -> str:
    """`text` without keys, and without the place of the home at `root` or of the record's server."""
    return redact(_SERVER.sub(r"\1 is not just now; the log says why.", text.replace(str(root), "$PILOTAGE_HOME")))


def _plainly(error: Exception) -> tuple[int, str, str, Mapping[str, str]]:
    """Status, type, message and headers of an error."""
    if isinstance(error, PilotageError):
        return _ours(error)
    if isinstance(error, OSError):
        why = error.strerror or type(error).__name__
        return 503, "StorageError", f"the home must be there to read and write, but: {why}; see the log.", _LATER
    if isinstance(error, RequestValidationError):
        return 422, InvalidRequestError.__name__, _faults(error.errors()), {}
    if isinstance(error, HTTPException) and error.status_code == 400:  # FastAPI's word for a parser that gave up
        return 422, InvalidRequestError.__name__, "body: must be JSON, nested no deeper than any of ours is.", {}
    if isinstance(error, HTTPException):
        message = f"the request must be one of /openapi.json, but: {error.detail}."
        return error.status_code, InvalidRequestError.__name__, message, error.headers or {}
    return 500, "InternalError", "the request must be answered, but a fault of the service kept it; see its log.", {}


def _ours(error: PilotageError) -> tuple[int, str, str, Mapping[str, str]]:
    if isinstance(error, ServiceError):
        return error.status, type(error).__name__, str(error), error.headers
    if isinstance(error, UnknownDecisionError | ForeignDecisionError):  # one text: whether it exists must not show
        return 404, UnknownDecisionError.__name__, _UNKNOWN_DECISION, {}
    if isinstance(error, InvalidNameError | ContextError | ShapeError | UnknownArmError):
        return 422, type(error).__name__, str(error), {}
    if isinstance(error, GatewayError):
        return _of_models(error)
    if isinstance(error, BudgetExhaustedError):
        later = {"Retry-After": str(max(1, math.ceil(error.resets - time.time())))}
        return 402, type(error).__name__, str(error), later
    # The record, a key file or the configuration: not the caller's fault.
    return 503, type(error).__name__, str(error), _LATER


def _of_models(error: GatewayError) -> tuple[int, str, str, Mapping[str, str]]:
    """No model answered: 422 for what none would, 504 out of time, 503 for what is worth asking later, else 502."""
    if error.kind in ("bad_request", "too_long", "filtered", "unknown_prompt"):
        return 422, type(error).__name__, str(error), {}
    if error.kind in ("connect_timeout", "first_token_timeout", "stalled", "total_timeout"):
        return 504, type(error).__name__, str(error), {}
    if error.kind in ("rate_limited", "resting"):
        later = max(1, math.ceil(error.retry_after_s or 1.0))
        return 503, type(error).__name__, str(error), {"Retry-After": str(later)}
    return 502, type(error).__name__, str(error), {}


def _faults(errors: Any) -> str:  # noqa: ANN401 - what FastAPI gives
    """One sentence for each of the first faults: where, what must hold, what arrived."""
    told = []
    for fault in errors[:_SHOWN]:
        place = ".".join(reprlib.repr(part).strip("'") for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            told.append(f"{place}: no such field")
        elif fault["type"] == "missing":
            told.append(f"{place}: must be given")
        elif fault["type"] == "json_invalid":
            told.append(f"body: must be JSON, but at character {fault['loc'][-1]}: {fault['ctx']['error']}")
        elif isinstance(fault["input"], bytes):
            told.append(f"{place}: must be JSON with Content-Type: application/json")
        else:
            rule = str(fault.get("ctx", {}).get("error", fault["msg"]))
            told.append(f"{place}: {rule}, but got {reprlib.repr(fault['input'])}")
    more = f"; and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
    return f"{'; '.join(told)}{more}. See /openapi.json."
