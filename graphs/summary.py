"""A summary: the most central sentences of the documents themselves, or, where a model is configured, its own.

Who asks the model is behind the port `Summarise` (author.py); what it is asked, and heard for, asking.py says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from bandits.types import Vector
from graphs.sentences import sentences
from graphs.state import Author, PilotRequest
from graphs.words import content_words, is_content

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MANY = 5  # sentences at most
_LEAST_WORDS = 4  # content words; "Yes, exactly." sums nothing up
_MOST_CHARS = 240
_REDUNDANT = 0.5  # cosine above which a sentence says again what is chosen already

Sentences = Sequence[tuple[str, tuple[int, ...]]]


class Written(NamedTuple):
    """Sentences of a model, each with the places of the passages that support it, and which model that was."""

    sentences: Sentences
    author: Author


Summarise = Callable[[PilotRequest, Sequence[str]], Written]
"""A request and the passages of its documents to a summary. May raise, or say nothing: then the extract stands."""


def central_sentences(texts: Sequence[str], many: int = MANY) -> list[tuple[int, str, float]]:
    """(index of its text, sentence, centrality in 0..1) of at most `many` sentences, in the order of the texts."""
    found: list[tuple[int, str, list[str]]] = []
    for index, text in enumerate(texts):
        for sentence in sentences(text):
            words = content_words(sentence)
            if len(words) >= _LEAST_WORDS and sum(map(is_content, words)) >= _LEAST_WORDS:
                found.append((index, sentence, words))
    if not found:
        return []
    rows, scores = centrality([words for _, _, words in found])
    chosen: list[int] = []
    for i in np.argsort(-scores, kind="stable").tolist():
        if len(chosen) == many:
            break
        if len(found[i][1]) <= _MOST_CHARS and all((rows[i] @ rows[j].T).sum() < _REDUNDANT for j in chosen):
            chosen.append(i)
    return [(found[i][0], found[i][1], float(scores[i])) for i in sorted(chosen)]


def centrality(said: Sequence[Sequence[str]]) -> tuple[csr_matrix[Any], Vector]:
    """TF-IDF of texts, (n, words), and its cosine with their middle, (n,), in 0..1.

    said: the words of each; one of them at least must have some.
    """
    rows = TfidfVectorizer(analyzer=list, sublinear_tf=True).fit_transform(said)
    centre = np.asarray(rows.mean(axis=0)).ravel()
    return rows, rows @ (centre / np.linalg.norm(centre))
