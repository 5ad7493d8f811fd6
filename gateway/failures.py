"""What a provider's refusal means: its status, headers and body, put into one of the kinds of failure.

Providers tell the same thing in different places. A status counts unless the body says something more exact: running
out of credit comes as 400, 402, 403 or 429, too long a prompt as 400 or 413, refused content as 400 or 403.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from gateway.adapter import Failure, GatewayError

_QUOTED = 160  # characters of a provider's message that an error repeats
_SECRETS = re.compile(r"\b(sk|pk|rk|gsk|xai|key)[-_][-\w*]{8,}|\bAIza[-\w]{20,}")

_NO_CREDIT = re.compile(
    r"insufficient[ _](quota|credits?|balance|funds)|credit balance is too low|(out of|not enough) credits?"
    r"|billing_(error|hard_limit_reached|not_active)|spend_limit_reached|payment required",
    re.IGNORECASE,
)
_FILTERED = re.compile(
    r"content_?filter|content_policy|responsible_?ai|content (management |filtering |usage )?policy|usage polic"
    r"|safety system|was flagged|moderation|prohibited_content",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|request_too_large|(maximum|available|model'?s?) context"
    r"|context (length|window|size|limit)|prompt is too long|input token count|too many (input )?tokens",
    re.IGNORECASE,
)
_STATUS = {  # of errors that name a type but come without a status of their own, in a stream
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "overloaded_error": 529,
    "timeout_error": 504,
}


@dataclass(frozen=True, slots=True)
class Told:
    """What an error's body says.   names: types and codes.   status: the body's own, else None."""

    message: str = ""
    names: tuple[str, ...] = ()
    status: int | None = None
    retry_after_s: float | None = None


def told(body: object) -> Told | None:
    """What the parsed body of a reply says of an error; None where it tells of none.

    OpenAI {"error": {message, type, code}}, Anthropic {"type": "error", "error": {type, message}}, Gemini
    {"error": {code, message, status, details}}, also in a list; {"error": "text"}, {"detail": …} of other servers.
    """
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, Mapping):
        return None
    error = body.get("error") or body.get("detail") or (body if body.get("object") == "error" else None)
    if not error:
        return None
    if not isinstance(error, Mapping):
        return Told(error if isinstance(error, str) else json.dumps(error))
    details = error.get("details")
    extra = [*details] if isinstance(details, list) else [details]
    found = [error.get("type"), error.get("code"), error.get("status"), *(_code(one) for one in extra)]
    names = tuple(name for name in found if isinstance(name, str) and name)
    given = [code for code in (error.get("code"), error.get("status")) if type(code) is int and 400 <= code < 600]
    status = given[0] if given else next((_STATUS[name] for name in names if name in _STATUS), None)
    delays = [
        _seconds(str(one["retryDelay"]).removesuffix("s"))
        for one in extra
        if isinstance(one, Mapping) and "retryDelay" in one
    ]
    return Told(str(error.get("message") or ""), names, status, next(iter(delays), None))


def refused(
    provider: str,
    status: int,
    said: Told | None,
    headers: Mapping[str, str],
    now: float,
    hide: Callable[[str], str] = str,
) -> GatewayError:
    """The failure that a reply tells of.

    status: HTTP's, 200 where only the body tells.   now: UTC, s since the epoch, for a Retry-After that is a date.
    hide: blots the key out of what the error quotes; whatever looks like a key is blotted out anyway.
    """
    said = said or Told()
    status = said.status or 500 if status < 300 else status
    kind = kind_of(status, " ".join((*said.names, said.message)))
    after = retry_after(headers, now)
    quote = "" if kind == "denied" else _quote(said.message, hide)  # providers repeat a key that they refuse
    what = " ".join((str(status), *(name for name in said.names if re.fullmatch(r"\w{1,60}", name))))
    return GatewayError(
        f"{provider} must answer, but refused with {what}{quote}; {_REMEDY.get(kind, 'ask another model')}.",
        kind=kind,
        retry_after_s=said.retry_after_s if after is None else after,
    )


_REMEDY: Mapping[Failure, str] = {
    "rate_limited": "ask again later, or raise the provider's limit",
    "no_credit": "top up the account",
    "denied": "check the key in the variable that key_env names, and what it may do",
    "server": "ask again, or another model",
    "bad_request": "change the request, or the model's name or the base_url in the catalogue",
    "too_long": "shorten the prompt, or ask a model with a longer context",
    "filtered": "change the prompt, or ask another provider",
}


def kind_of(status: int, words: str) -> Failure:
    """The kind of a refusal, by its status (>= 300) and by the names and the message of its body."""
    if status >= 500 or status in (408, 425):
        return "server"
    if status == 402 or _NO_CREDIT.search(words):
        return "no_credit"
    if status == 429:
        return "rate_limited"
    if _TOO_LONG.search(words) or status == 413:
        return "too_long"
    if status in (400, 403, 422) and _FILTERED.search(words):
        return "filtered"
    return "denied" if status in (401, 403) else "bad_request"


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that a Retry-After asks for, given as such or as an HTTP date; None where there is no sensible one."""
    value = headers.get("retry-after", "").strip()
    seconds = _seconds(value)
    if seconds is not None or not value:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _seconds(value: str) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0.0 else None


def _code(one: object) -> Any:  # noqa: ANN401 - whatever stands there
    return one.get("error_code") if isinstance(one, Mapping) else None


def _quote(message: str, hide: Callable[[str], str]) -> str:
    text = _SECRETS.sub("[key]", hide(" ".join(message.split())))
    return f" ({text[:_QUOTED]!r})" if text else ""
