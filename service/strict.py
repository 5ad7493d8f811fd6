"""JSON as it must come: no name twice in an object, no number that JSON does not have, no deeper than any body is."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from service.errors import InvalidRequestError

DEEPEST = 32  # lists and objects inside one another
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)


def read_json(body: bytes) -> Any:  # noqa: ANN401 - whatever stands there
    """What the body says; None for text that is no JSON, which is left to the route.

    Raises InvalidRequestError for what parsers disagree on or choke on.

    Two parsers that keep another of two equal names, or read NaN, would see two requests in one body.
    """
    if body.count(b"[") + body.count(b"{") > DEEPEST:
        _check_depth(body)
    try:
        return _DECODER.decode(body.decode(json.detect_encoding(body), "surrogatepass"))
    except (ValueError, RecursionError):
        return None


def _check_depth(body: bytes) -> None:
    depth = 0
    for byte in _STRINGS.sub(b"", body):
        depth += (byte in b"[{") - (byte in b"]}")
        if depth > DEEPEST:
            raise InvalidRequestError(f"body: must be nested at most {DEEPEST} deep, but is deeper.")


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequestError(f"body: each name must stand once in an object, but {twice[:60]!r} stands twice.")
    return found


def _no_number(said: str) -> NoReturn:
    raise InvalidRequestError(f"body: numbers must be finite, but got {said}; leave out what is not known.")


_DECODER = json.JSONDecoder(object_pairs_hook=_named_once, parse_constant=_no_number)
