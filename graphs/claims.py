"""Claims and questions: sentences that state something which could be checked, and sentences that ask. Weak, and so
labelled: a claim is known by its marks (a figure, a comparison, a cause, a report), not by its truth.
"""

from __future__ import annotations

import re

from graphs.words import tokens

METHOD = "marks (weak: a figure, a comparison, a cause or a report, and no hedge)"

_FIGURE = re.compile(r"\d+(?:[.,]\d+)?\s*(?:%|percent|per cent|[a-zA-Zµ€$£°]{1,10})|[$€£]\s?\d|[百千万亿]|\d{2,}")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COMPARES = _words(
    "more less fewer better worse faster slower larger smaller higher lower most least than twice half double never "
    "always every increased decreased plus moins mieux pire mehr weniger besser schlechter más menos mejor peor"
)
_CAUSES = _words("because therefore causes caused means requires depends parce donc weil deshalb porque")
_REPORTS = _words(
    "found shows showed showed proved measured reported announced according discovered confirmed estimates study "
    "montre gemessen gezeigt muestra"
)
_HEDGES = _words("maybe perhaps guess probably might wonder seems hopefully peut-être vielleicht quizás")
_ASKS = _words(
    "what why how who where when which whose does did can could is are has anyone anybody should would will pourquoi "
    "comment quel quelle warum wie was wer wo wann por qué cómo quién"
)
_ASKED = _words("is are was were do does did can could should would will i you we they it the to a about")
_LEAST_WORDS, _MOST_CHARS = 5, 300


def claim_marks(sentence: str) -> int:
    """How many marks of a claim a sentence bears; 0 if it asks, hedges, or is too short or too long to be one."""
    words = [word for word in tokens(sentence) if word]
    if is_question(sentence) or not len(words) >= _LEAST_WORDS or len(sentence) > _MOST_CHARS or _HEDGES & set(words):
        return 0
    said = set(words)
    figure = 2 if _FIGURE.search(sentence) else 0
    return figure + bool(_COMPARES & said) + bool(_CAUSES & said) + 2 * bool(_REPORTS & said)


def is_question(sentence: str) -> bool:
    """Whether a sentence asks: by its mark, or, where it has no mark at its end, by its first word."""
    bare = sentence.rstrip("\"'”’)] ")
    if bare.endswith(("?", "？")):
        return True
    words = [word for word in tokens(bare) if word]
    return len(words) >= _LEAST_WORDS and bare[-1:].isalnum() and words[0] in _ASKS and words[1] in _ASKED
