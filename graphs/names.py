"""Named things: people, products, places, channels, by how they are written. Weak, and labelled so.

A name is a run of capitalised words that is capitalised inside a sentence as well, an abbreviation, or a word of mixed
letters and digits. Text without capitals has no names to find; in German, where all nouns are capitalised, only runs of
two words and abbreviations count.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from graphs.sentences import sentences
from graphs.words import is_content

METHOD = "capitals (weak: knows names by how they are written)"

_WORD = r"[^\W\d_](?:[\w’'-]*\w)?"
_PIECE = re.compile(rf"{_WORD}(?:\.\d+)*")
_GLUE = re.compile(r"\s+(?:(?:de|of|von|van|du|la|el|bin)\s+)?")
_SHOUTING = 0.7  # of the letters of a sentence are capitals: nothing can be told from them
_LONGEST = 4  # words


def names(text: str, tongue: str = "en") -> Counter[str]:
    """How often each name is said in a text."""
    found: Counter[str] = Counter()
    opening: Counter[str] = Counter()  # lone words that open sentences: names only if they are names elsewhere too
    for sentence in sentences(text):
        letters = [character for character in sentence if character.isalpha()]
        if not letters or sum(map(str.isupper, letters)) > _SHOUTING * len(letters):
            continue
        for at, run in _runs(sentence):
            name = " ".join(run)
            if len(run) == 1 and not _is_abbreviation(run[0]):
                if tongue == "de":
                    continue
                if at == 0:
                    opening[name] += 1
                    continue
            found[name] += 1
    for name, count in opening.items():
        if name in found:
            found[name] += count
    return found


def _runs(sentence: str) -> list[tuple[int, list[str]]]:
    """(place, words) of each run of capitalised words."""
    runs: list[tuple[int, list[str]]] = []
    end = -1
    for match in _PIECE.finditer(sentence):
        word = match.group().removesuffix("'s").removesuffix("’s")
        if not (word[0].isupper() or _is_abbreviation(word)) or (not match.start() and not is_content(word.casefold())):
            continue  # "The" opens a sentence; "New" inside one may be of York
        joined = end >= 0 and _GLUE.fullmatch(sentence, end, match.start()) and len(runs[-1][1]) < _LONGEST
        if joined and sentence[end : match.start()].strip():
            runs[-1][1].append(sentence[end : match.start()].strip())
        if joined:
            runs[-1][1].append(word)
        else:
            runs.append((match.start(), [word]))
        end = match.start() + len(word) if word == match.group() else -1
    return [(at, run) for at, run in runs if len(run) > 1 or is_content(run[0].casefold())]


def _is_abbreviation(word: str) -> bool:
    """NASA, GPT-4, WebGPU: capitals past the first letter, or capitals with digits."""
    return len(word) > 1 and (any(map(str.isupper, word[1:])) or (word[0].isupper() and any(map(str.isdigit, word))))


def together(counts: Sequence[Counter[str]], without: frozenset[str]) -> list[tuple[str, int]]:
    """Names by how often they are said in all texts, but those of `without`; what is said once only if it is long."""
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return [
        (name, many)
        for name, many in sorted(total.items(), key=lambda pair: (-pair[1], pair[0]))
        if name.casefold() not in without and (many > 1 or " " in name)
    ]
