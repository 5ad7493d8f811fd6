"""Which languages a text is in: by its script and its function words, and by a trained model where these are unsure.

Function words are sure of what they know and know five languages; py3langid (Lui & Baldwin 2012, "langid.py") knows
97, and takes "lol nice" for Slovak. So the words are asked first, and the model only about texts that are long enough.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

from graphs.stopwords import STOP
from graphs.words import is_unspaced, tokens

_SURE = 0.25  # of the words are function words of one language, and twice as many as of the next
_LEAST_LETTERS = 40  # for the model
_LEAST_PROBABILITY = 0.9
_LEAST_WORDS = 0.08  # of the words, where the model may not be asked
_SHARE = 0.15  # of the pieces of a text, for a language to be one of its languages
_PIECES = 24
_SAMPLE = 50_000  # characters that are looked at


def languages(text: str) -> tuple[str, ...]:
    """Codes (ISO 639-1) of the languages that a good part of a text is in, the main one first; () if none is known."""
    lines = [line for line in text[:_SAMPLE].split("\n") if line.strip()]
    scripts: tuple[list[str], list[str]] = ([], [])
    for line in lines:  # bilingual captions alternate line by line
        scripts[any(map(is_unspaced, line))].append(line)
    found = Counter[str]()
    for same in scripts:
        many = max(1, min(_PIECES, round(sum(map(len, same)) / 600)))
        for i in range(many):
            piece = " ".join(same[i * len(same) // many : (i + 1) * len(same) // many])
            if any(map(str.isalpha, piece)):
                found[language(piece)] += len(piece)
    total = found.total()
    known = [code for code, count in found.most_common() if code != "unknown" and count >= _SHARE * total]
    return tuple(known)


def language(text: str) -> str:
    """The language of a text in one language; "unknown" where neither words nor model can say."""
    words = [token for token in tokens(text[:_SAMPLE]) if token]
    hits = Counter({code: sum(word in stop for word in words) for code, stop in STOP.items() if code != "zh"})
    (first, most), (_, second) = hits.most_common(2)
    if words and most >= _SURE * len(words) and most >= 2 * second:
        return first
    letters = sum(map(str.isalpha, text))
    if any(map(is_unspaced, text)) or letters >= _LEAST_LETTERS:
        code, probability = _model().classify(text[:_SAMPLE])
        if probability >= _LEAST_PROBABILITY:
            return str(code)
    return first if words and most >= _LEAST_WORDS * len(words) and most > second else "unknown"


@cache
def _model() -> Any:  # noqa: ANN401 - it has no types
    from py3langid.langid import (  # type: ignore[import-untyped]  # noqa: PLC0415
        MODEL_FILE,
        LanguageIdentifier,
    )  # half a second to load, and seldom needed

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
