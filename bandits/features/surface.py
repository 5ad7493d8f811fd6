"""How a prompt looks: length, digits, symbols, sentences. One mistyped letter hardly moves any of these."""

from __future__ import annotations

import re
from math import log1p

from bandits.features.request import Reading

NAMES = (
    "log_characters",
    "log_words",
    "mean_word_length",
    "share_distinct_words",
    "share_digits",
    "share_symbols",
    "share_not_ascii",
    "log_numbers",
    "log_sentences",
    "log_commas",
    "log_quotes",
    "log_choices",
    "has_formula",
)
_DIGIT, _SYMBOL, _NOT_ASCII = re.compile(r"\d"), re.compile(r"[^\w\s]|_"), re.compile(r"[^\x00-\x7f]")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SENTENCE = re.compile(r"[.!?](?: |$)|[。！？]")
_COMMA, _QUOTE = re.compile(r"[,、،]"), re.compile(r"[\"'“”„«»‘’]")
_CHOICE = re.compile(r"(?:^|[ (])(?:[a-j]|\d{1,2})[).] ")  # "(a) ", "b. ", "3) ": a list to choose from
_FORMULA = re.compile(r"[$\\]")


def features(reading: Reading) -> list[float]:
    """One number a name."""
    text, words = reading.text, reading.words
    characters, count = max(len(text), 1), max(len(words), 1)
    return [
        log1p(len(text)),
        log1p(len(words)),
        log1p(sum(map(len, words)) / count),
        len(set(words)) / count,
        _count(_DIGIT, text) / characters,
        _count(_SYMBOL, text) / characters,
        _count(_NOT_ASCII, text) / characters,
        log1p(_count(_NUMBER, text)),
        log1p(_count(_SENTENCE, text)),
        log1p(_count(_COMMA, text)),
        log1p(_count(_QUOTE, text)),
        log1p(_count(_CHOICE, text)),
        float(_FORMULA.search(text) is not None),
    ]


def _count(pattern: re.Pattern[str], text: str) -> int:
    return sum(1 for _ in pattern.finditer(text))
