"""An extractive summary: sentences of the documents themselves, the most central ones that do not repeat each other."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from graphs.words import content_words, is_content

_SENTENCE = re.compile(r"(?<=[.!?…])[\"'”)\]]*\s+|(?<=[。！？])|\n{2,}")
_LEAST_WORDS = 4  # content words; "Yes, exactly." sums nothing up
_MOST_CHARS = 240
_REDUNDANT = 0.5  # cosine above which a sentence says again what is chosen already


def central_sentences(texts: Sequence[str], many: int = 5) -> list[tuple[int, str, float]]:
    """(index of its text, sentence, centrality in 0..1) of at most `many` sentences, in the order of the texts."""
    found: list[tuple[int, str, list[str]]] = []
    for index, text in enumerate(texts):
        for sentence in _SENTENCE.split(text):
            words = content_words(sentence)
            if len(words) >= _LEAST_WORDS and sum(map(is_content, words)) >= _LEAST_WORDS:
                found.append((index, " ".join(sentence.split()), words))
    if not found:
        return []
    rows = TfidfVectorizer(analyzer=list, sublinear_tf=True).fit_transform([words for _, _, words in found])
    centre = np.asarray(rows.mean(axis=0)).ravel()
    scores = rows @ (centre / np.linalg.norm(centre))
    chosen: list[int] = []
    for i in np.argsort(-scores, kind="stable").tolist():
        if len(chosen) == many:
            break
        if len(found[i][1]) <= _MOST_CHARS and all((rows[i] @ rows[j].T).sum() < _REDUNDANT for j in chosen):
            chosen.append(i)
    return [(found[i][0], found[i][1], float(scores[i])) for i in sorted(chosen)]
