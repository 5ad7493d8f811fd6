"""Text -> context: stateless, named, versioned, the same vector in every process.

Computed once, when deciding, and logged; training reads only what was logged, so no prompt has to be stored.
Anything *fitted* (centre, scale) belongs to the policy. Change a feature only under a new schema name.
"""

from __future__ import annotations

import re
import zlib
from math import log1p

import numpy as np

from bandits.errors import ConfigError, ContextError
from bandits.types import Context

_TOKEN = re.compile(r"\w+|[^\w\s]")
_CODE = re.compile(r"```|\bdef |\breturn\b|[;{}]\s*$", re.MULTILINE)
_WORDS = 64  # width of the hashed words: wider learns slower from the few thousand decisions of a night

_SURFACE = (
    "log_characters",
    "log_words",
    "log_lines",
    "share_digits",
    "share_symbols",
    "share_capitals",
    "share_not_ascii",
    "share_distinct_words",
    "mean_word_length",
    "has_question",
    "has_formula",
    "has_code",
)
NAMES: dict[str, tuple[str, ...]] = {"text-1": (*_SURFACE, *(f"word_{i}" for i in range(_WORDS)))}


def width(schema: str) -> int:
    """Length of the contexts of `schema`; raises ConfigError for an unknown one.

    "vector-D" is for callers with D features of their own, which Pilotage takes as they are.
    """
    if schema in NAMES:
        return len(NAMES[schema])
    own = re.fullmatch(r"vector-([1-9][0-9]{0,3})", schema)
    if own is None:
        raise ConfigError(f"features must be one of {', '.join(NAMES)} or vector-D (D numbers), but got {schema!r}.")
    return int(own[1])


def text_context(text: str) -> Context:
    """The "text-1" context of a prompt, (76,) float32: twelve facts of its surface, then signed hashed words.

    Words are lower-cased, numbers fold to one token, each distinct token counts once (Weinberger et al. 2009,
    "Feature Hashing for Large Scale Multitask Learning"), and the hashed part has norm 1, so that a long prompt
    does not shout.
    """
    out = np.empty(len(NAMES["text-1"]), dtype=np.float32)
    out[: len(_SURFACE)] = _surface(text)
    out[len(_SURFACE) :] = _hashed_words(text)
    return out


def check_context(context: Context, expected: int | None = None) -> Context:
    """Return `context` as a finite float32 vector of the expected length, or raise ContextError."""
    context = np.asarray(context, dtype=np.float32)
    if context.ndim != 1 or (expected is not None and context.shape != (expected,)):
        raise ContextError(f"context must have shape ({'d' if expected is None else expected},), got {context.shape}.")
    bad = np.flatnonzero(~np.isfinite(context))
    if bad.size:
        raise ContextError(
            f"context must be finite, but feature(s) {bad[:5].tolist()} are {context[bad[:5]].tolist()}; "
            "leave the decision out or give the feature a value."
        )
    return context


def _surface(text: str) -> list[float]:
    words = text.split()
    characters, count = max(len(text), 1), max(len(words), 1)
    return [
        log1p(len(text)),
        log1p(len(words)),
        log1p(text.count("\n")),
        sum(map(str.isdigit, text)) / characters,
        sum(not c.isalnum() and not c.isspace() for c in text) / characters,
        sum(map(str.isupper, text)) / characters,
        sum(not c.isascii() for c in text) / characters,
        len({word.lower() for word in words}) / count,
        sum(map(len, words)) / count / 10.0,
        float("?" in text or "？" in text),
        float("$" in text or "\\" in text),
        float(_CODE.search(text) is not None),
    ]


def _hashed_words(text: str) -> Context:
    out = np.zeros(_WORDS, dtype=np.float32)
    for token in {"0" if token.isdigit() else token for token in _TOKEN.findall(text.lower())}:
        code = zlib.crc32(token.encode("utf-8", "surrogatepass"))
        out[(code >> 1) % _WORDS] += 1.0 if code & 1 else -1.0
    norm = float(np.sqrt(out @ out))
    return out / norm if norm > 0.0 else out
