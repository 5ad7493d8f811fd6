"""The schema "text-1": twelve facts of a prompt's surface, then 64 signed hashed words. Frozen, bit for bit."""

from __future__ import annotations

import re
import zlib
from math import log1p

import numpy as np

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
NAMES = (*_SURFACE, *(f"word_{i}" for i in range(_WORDS)))


def text_context(text: str) -> Context:
    """The "text-1" context of a prompt, (76,) float32: twelve facts of its surface, then signed hashed words.

    Words are lower-cased, numbers fold to one token, each distinct token counts once (Weinberger et al. 2009,
    "Feature Hashing for Large Scale Multitask Learning"), and the hashed part has norm 1, so that a long prompt
    does not shout.
    """
    out = np.empty(len(NAMES), dtype=np.float32)
    out[: len(_SURFACE)] = _surface(text)
    out[len(_SURFACE) :] = _hashed_words(text)
    return out


_KINDS = (str.isdigit, str.isalnum, str.isspace, str.isupper)
_ASCII = tuple(bytes(code for code in range(128) if of(chr(code))) for of in _KINDS)


def _counts(text: str) -> tuple[int, ...]:
    """How many characters are digits, letters or digits, spaces, capitals."""
    if text.isascii():  # a hundred times as fast, and the same
        raw = text.encode()
        return tuple(len(raw) - len(raw.translate(None, kind)) for kind in _ASCII)
    return tuple(sum(map(of, text)) for of in _KINDS)


def _surface(text: str) -> list[float]:
    words = text.split()
    characters, count = max(len(text), 1), max(len(words), 1)
    digits, letters, spaces, capitals = _counts(text)
    return [
        log1p(len(text)),
        log1p(len(words)),
        log1p(text.count("\n")),
        digits / characters,
        (len(text) - letters - spaces) / characters,  # no character is both
        capitals / characters,
        0.0 if text.isascii() else (len(text) - sum(map(str.isascii, text))) / characters,
        len({word.lower() for word in words}) / count,
        sum(map(len, words)) / count / 10.0,
        float("?" in text or "？" in text),
        float("$" in text or "\\" in text),
        float(_CODE.search(text) is not None),
    ]


def _hashed_words(text: str) -> Context:
    counts = [0.0] * _WORDS
    for token in {"0" if token.isdigit() else token for token in set(_TOKEN.findall(text.lower()))}:
        code = zlib.crc32(token.encode("utf-8", "surrogatepass"))
        counts[(code >> 1) % _WORDS] += 1.0 if code & 1 else -1.0
    out = np.array(counts, dtype=np.float32)
    norm = float(np.sqrt(out @ out))
    return out / norm if norm > 0.0 else out
