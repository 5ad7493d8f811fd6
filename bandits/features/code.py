"""Whether a prompt holds a program, and how much of one."""

from __future__ import annotations

import re
from math import log1p

from bandits.features.request import Reading

NAMES = ("has_code", "has_identifier", "log_calls", "log_operators", "log_brackets")
_CODE = re.compile(
    r"```|\b(?:def|class|function|func|fn) \w+ ?[(:{<]|\breturn\b[^.]{0,80}[;)\]]|\bimport \w+|"
    r"\bselect\b.{1,80}\bfrom\b|\b(?:public|private|static|void|const|let|var) \w+|#include|</\w+>"
)
_IDENTIFIER = re.compile(r"[^\W_]_[^\W_]")
_CALL = re.compile(r"\w\(|;(?: |$)|[-=]>|::")
_OPERATOR = re.compile(r"[=<>+*/^%|&]")
_BRACKET = re.compile(r"[\[{]")


def features(reading: Reading) -> list[float]:
    """One number a name."""
    text = reading.text
    return [
        float(has_code(text)),
        float(_IDENTIFIER.search(text) is not None),
        log1p(len(_CALL.findall(text))),
        log1p(len(_OPERATOR.findall(text))),
        log1p(len(_BRACKET.findall(text))),
    ]


def has_code(folded: str) -> bool:
    """Whether a folded text shows marks of a program."""
    return _CODE.search(folded) is not None
