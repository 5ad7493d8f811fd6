"""JSON as it must come: no name twice in an object, no number that JSON does not have, no deeper than any body is."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from service.errors import InvalidRequestError

DEEPEST = 32  # lists and objects inside one another
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)


def check_json(body: bytes) -> None:
    """Raise InvalidRequestError for what parsers disagree on or choke on; text that is no JSON is left to the route.

    Two parsers that keep another of two equal names, or read NaN, would see two requests in one body.
    """
    if body.count(b"[") + body.count(b"{") > DEEPEST:
        _check_depth(body)
    try:
        json.loads(body, object_pairs_hook=_named_once, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return


def _check_depth(body: bytes) -> None:
    depth = 0
    for byte in _STRINGS.sub(b"", body):
        depth += (byte in b"[{") - (byte in b"]}")
        if depth > DEEPEST:
            raise InvalidRequestError(f"body: must be nested at most {DEEPEST} deep, but is deeper.")


def _named_once(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequestError(f"body: each name must stand once in an object, but {twice[:60]!r} stands twice.")


def _no_number(said: str) -> NoReturn:
    raise InvalidRequestError(f"body: numbers must be finite, but got {said}; leave out what is not known.")
