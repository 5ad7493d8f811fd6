"""Search by words: BM25 over whole words, and over the runs of four letters inside them.

Runs of letters find "translating" for "translation" and "Haus" in "Hausboot" in any language, without a stemmer:
McNamee & Mayfield 2004, "Character n-gram tokenization for European language text retrieval". In scripts without
spaces both are pairs of characters. BM25 with k1 = 1.2, b = .75: Robertson & Zaragoza 2009, "The probabilistic
relevance framework", eq. 3.15; idf as Lucene has it, which is never negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import HashingVectorizer

from graphs.words import tokens

K1, B = 1.2, 0.75
_RUN = 4  # letters
_TERMS = 2**30  # numbers that a term is hashed to; two of a million terms meet by chance once in a thousand

Scores = NDArray[np.float64]  # (n,)


def words(text: str) -> list[str]:
    """All words, stop words included: idf knows what they are worth."""
    return [token for token in tokens(text) if token]


def runs(text: str) -> list[str]:
    """Runs of four letters inside words, whose ends count as letters; shorter words whole."""
    found: list[str] = []
    for word in words(text):
        padded = f" {word} "
        found += [padded[i : i + _RUN] for i in range(len(padded) - _RUN + 1)] or [padded]
    return found


FIELDS = {"words": words, "runs": runs}


class Postings(NamedTuple):
    """Which terms stand how often in which text: three columns of equal length, and the length of each text."""

    term: NDArray[np.int64]
    text: NDArray[np.int64]  # in 0..n-1
    times: NDArray[np.int64]
    lengths: NDArray[np.int64]  # (n,) terms, repeated ones too


def postings(texts: Sequence[str], field: str) -> Postings:
    """The terms of a field ("words" or "runs") in n texts."""
    counts = csr_array(_hashing(field).transform(texts)).tocoo()
    lengths = np.bincount(counts.row, weights=counts.data, minlength=len(texts)).astype(np.int64)
    return Postings(counts.col.astype(np.int64), counts.row.astype(np.int64), counts.data.astype(np.int64), lengths)


def terms(query: str, field: str) -> NDArray[np.int64]:
    """The distinct terms of a query."""
    return np.unique(csr_array(_hashing(field).transform([query])).indices).astype(np.int64)


def bm25(found: Postings) -> Scores:
    """(n,) score of each text for a query, given the postings of the query's terms."""
    n = len(found.lengths)
    if not n or not len(found.term):
        return np.zeros(n)
    _, term, frequency = np.unique(found.term, return_inverse=True, return_counts=True)
    idf = np.log1p((n - frequency + 0.5) / (frequency + 0.5))[term]
    length = found.lengths[found.text] / max(float(found.lengths.mean()), 1.0)
    weight = found.times * (K1 + 1) / (found.times + K1 * (1 - B + B * length))
    return np.bincount(found.text, weights=idf * weight, minlength=n).astype(np.float64)


def grouped(found: Postings, group: NDArray[np.int64]) -> Postings:
    """The postings of larger texts, each made of those in one group. group: (n,) in 0..m-1, each m present."""
    pairs, at = np.unique(np.stack([found.term, group[found.text]]), axis=1, return_inverse=True)
    count = np.bincount(at.ravel(), weights=found.times, minlength=pairs.shape[1]).astype(np.int64)
    return Postings(pairs[0], pairs[1], count, np.bincount(group, weights=found.lengths).astype(np.int64))


class Keywords:
    """The postings of some texts in memory, by term."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._fields: dict[str, Postings] = {}
        for field in FIELDS:
            every = postings(texts, field)
            order = np.argsort(every.term, kind="stable")
            self._fields[field] = Postings(every.term[order], every.text[order], every.times[order], every.lengths)

    def matching(self, query: str, field: str) -> Postings:
        """The postings of the terms of a query."""
        every, wanted = self._fields[field], terms(query, field)
        first, last = (np.searchsorted(every.term, wanted, side) for side in ("left", "right"))
        rows = np.array([row for a, b in zip(first, last, strict=True) for row in range(a, b)], dtype=np.int64)
        return Postings(every.term[rows], every.text[rows], every.times[rows], every.lengths)


def _hashing(field: str) -> Any:  # noqa: ANN401 - scikit-learn has no types
    return HashingVectorizer(
        analyzer=FIELDS[field], n_features=_TERMS, alternate_sign=False, norm=None, dtype=np.float64
    )
