"""Small edits of a prompt that leave its meaning: what a choice should not flip on."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping

import numpy as np

_TYPO_EVERY = 100  # characters: a careful writer's rate; at least one in each prompt
_PAIR = re.compile(r"[^\W\d_](?=[^\W\d_])")  # a letter before a letter


def case(text: str, rng: np.random.Generator) -> str:
    """All small, all large, or every word capitalised."""
    return [text.lower(), text.upper(), text.title()][rng.integers(3)]


def whitespace(text: str, rng: np.random.Generator) -> str:
    """Wrapped lines joined, blanks doubled, or lines indented and set apart."""
    return [" ".join(text.split()), text.replace(" ", "  "), "\n" + text.replace("\n", "\n\n    ") + " \n"][
        rng.integers(3)
    ]


def typos(text: str, rng: np.random.Generator) -> str:
    """At one place of a hundred, at least at one: two letters swapped, one lost, one doubled, or another instead."""
    places = [found.start() for found in _PAIR.finditer(text)]
    letters = list(text)
    for i in rng.choice(places, min(max(1, len(text) // _TYPO_EVERY), len(places)), replace=False) if places else ():
        here, after = text[i], text[i + 1]
        kind = rng.integers(4)
        if kind == 0 and letters[i] == here and letters[i + 1] == after:
            letters[i], letters[i + 1] = after, here
        else:
            letters[i] = ["", "", here * 2, chr(ord("a") + int(rng.integers(26)))][kind]
    return "".join(letters)


Edit = Callable[[str, np.random.Generator], str]
EDITS: Mapping[str, Edit] = {
    "case": case,
    "whitespace": whitespace,
    "typos": typos,
}


def edited(text: str, kind: str) -> str:
    """`text` after one of EDITS: the same for the same text and kind, whatever was edited before."""
    return EDITS[kind](text, np.random.default_rng(zlib.crc32(text.encode("utf-8", "surrogatepass"))))
