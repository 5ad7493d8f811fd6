"""Schemas by name: which numbers make a context, in which order.

text-1                     see text1.py
text-2                     the groups below, one file each
text-2-without-GROUP…      the same without some of them
vector-D                   D numbers that the caller brings
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bandits.errors import ConfigError, ContextError
from bandits.features import asker, clock, code, conversation, language, questions, surface, text1, words
from bandits.features.request import Reading, Request
from bandits.types import Context


@dataclass(frozen=True, slots=True)
class Group:
    """Some columns of a context and the pure function that fills them."""

    names: tuple[str, ...]
    features: Callable[[Reading], Sequence[float]]


GROUPS: Mapping[str, Group] = {
    "surface": Group(surface.NAMES, surface.features),
    "language": Group(language.NAMES, language.features),
    "code": Group(code.NAMES, code.features),
    "questions": Group(questions.NAMES, questions.features),
    "words": Group(words.NAMES, words.features),
    "conversation": Group(conversation.NAMES, conversation.features),
    "time": Group(clock.NAMES, clock.features),
    "asker": Group(asker.NAMES, asker.features),
}
NAMES: Mapping[str, tuple[str, ...]] = {
    "text-1": text1.NAMES,
    "text-2": tuple(name for group in GROUPS.values() for name in group.names),
}
_VECTOR = re.compile(r"vector-([1-9][0-9]{0,3})")
_WITHOUT = "text-2-without-"


@lru_cache(maxsize=256)
def width(schema: str) -> int:
    """Length of the contexts of `schema`; raises ConfigError for an unknown one.

    "vector-D" is for callers with D features of their own, which Pilotage takes as they are.
    """
    own = _VECTOR.fullmatch(schema)
    return int(own[1]) if own else len(names(schema))


def names(schema: str) -> tuple[str, ...]:
    """Names of the columns of `schema`; those of "vector-D" are numbers. Raises ConfigError for an unknown schema."""
    if own := _VECTOR.fullmatch(schema):
        return tuple(map(str, range(int(own[1]))))
    if schema == "text-1":
        return text1.NAMES
    return tuple(name for group in _groups(schema) for name in group.names)


def context(request: Request, schema: str) -> Context:
    """The context of `request`, (width(schema),) float32: the same bits in every process, for ever.

    Raises ContextError for "vector-D", whose numbers only the caller has.
    """
    if schema == "text-1":
        return text1.text_context(request.text)
    if _VECTOR.fullmatch(schema):
        raise ContextError(f"a domain with features {schema!r} takes a context, but got a prompt; send its numbers.")
    reading = Reading(request)
    numbers = [number for group in _groups(schema) for number in group.features(reading)]
    return np.array(numbers, dtype=np.float32)


def without(*groups: str) -> str:
    """Name of the schema "text-2" without some of its GROUPS."""
    return _WITHOUT + "-".join(name for name in GROUPS if name in groups) if groups else "text-2"


def check_context(context: Context, expected: int | None = None) -> Context:
    """Return `context` as a finite float32 vector of the expected length, or raise ContextError."""
    context = np.asarray(context, dtype=np.float32)
    if context.ndim != 1 or (expected is not None and context.shape != (expected,)):
        raise ContextError(f"context must have shape ({'d' if expected is None else expected},), got {context.shape}.")
    if not np.isfinite(context).all():
        bad = np.flatnonzero(~np.isfinite(context))[:5]
        raise ContextError(
            f"context must be finite, but feature(s) {bad.tolist()} are {context[bad].tolist()}; "
            "leave the decision out or give the feature a value."
        )
    return context


def _groups(schema: str) -> list[Group]:
    """The groups of a version of text-2, in order."""
    if schema == "text-2":
        return list(GROUPS.values())
    said = schema.removeprefix(_WITHOUT).split("-")
    left_out = [name for name in GROUPS if name in said]
    if schema != without(*left_out) or len(left_out) in (0, len(GROUPS)):
        raise ConfigError(
            f"features must be one of {', '.join(NAMES)}, {_WITHOUT}GROUP… (of {', '.join(GROUPS)}, in this order) or "
            f"vector-D (D numbers), but got {schema!r}."
        )
    return [group for name, group in GROUPS.items() if name not in left_out]
