"""Text to words, in any script, without a model: one tokeniser for vectors, topics, phrases and sentiment.

Scripts written without spaces (Chinese, Japanese, Thai) become overlapping pairs of characters. The stop words are
short lists of the commonest function words of five languages; other languages lose nothing but tidiness.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from graphs.stopwords import STOP

_UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_MARKS = "\u0300-\u036f\u064b-\u065f\u0900-\u0dff"  # letters of these scripts carry marks that \w leaves out
_LETTER = rf"(?:(?![{_UNSPACED}])[^\W_]|[{_MARKS}])"
_TOKEN = re.compile(rf"[{_UNSPACED}]+|{_LETTER}+(?:['-]{_LETTER}+)*|[^\w\s'-]")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")
_ELISION = re.compile(r"^(?:[cdjlmnst]|qu)'")
_LONGEST = 40
_BREAK = ""  # stands between tokens where a phrase must not run on

_STOP = frozenset().union(*STOP.values())


def tokens(text: str) -> list[str]:
    """Words in order, lower case, stop words included; "" stands wherever punctuation separates."""
    found: list[str] = []
    for token in _TOKEN.findall(unicodedata.normalize("NFKC", text).replace("’", "'").casefold()):
        if _IS_UNSPACED.match(token):
            found += [token[i : i + 2] for i in range(len(token) - 1)] or [token]
        elif token[0].isalnum() or len(token) > 1:
            found.append(_ELISION.sub("", token).removesuffix("'s"))
        else:
            found.append(_BREAK)
    return found


@lru_cache(1 << 16)
def is_content(token: str) -> bool:
    """Whether a word says something: no stop word, no contraction of one, no lone letter, no number, date or hash."""
    if token in _STOP or len(token) > _LONGEST or not any(character.isalpha() for character in token):
        return False
    if "'" in token and (token.endswith("n't") or token.partition("'")[0] in _STOP):
        return False
    return len(token) > 1 or bool(_IS_UNSPACED.match(token))


def content_words(text: str) -> list[str]:
    """Content words and numbers in order; where there are none, all words, so that a short text has a vector too."""
    every = [token for token in tokens(text) if token]
    return [token for token in every if is_content(token) or token[0].isdigit()] or every


def phrases(text: str, longest: int = 3) -> list[str]:
    """Runs of 1 to `longest` content words with neither stop word nor punctuation between them, in order."""
    found: list[str] = []
    run: list[str] = []
    for token in [*tokens(text), _BREAK]:
        if is_content(token):
            run.append(token)
            reach = 1 if _IS_UNSPACED.match(token) else longest
            found += [" ".join(run[-n:]) for n in range(1, min(reach, len(run)) + 1)]
        else:
            run = []
    return found


def is_unspaced(character: str) -> bool:
    """Whether a character belongs to a script that is written without spaces."""
    return bool(_IS_UNSPACED.match(character))
