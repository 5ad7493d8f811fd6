"""One ranking out of several: by words, by runs of letters, by meaning, and by the document around a passage.

Each score is stretched to 0..1 over the passages that are searched, and they are added with fixed weights: Bruch, Gai
& Ingber 2022, "An analysis of fusion functions for hybrid retrieval", find this better than reciprocal ranks, which
forget by how much a passage is better. The weights were chosen once, looking at meetings (QMSum), articles (XQuAD) and
the 25 questions over transcripts that `benchmarks.pilot` was first run on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graphs.keywords import Postings, Scores, bm25, grouped

_WORDS, _RUNS, _MEANING, _DOCUMENT = 0.4, 0.4, 0.2, 0.1
_SOME = 0.3  # of the runs of a query, or a cosine: less is chance


def fused(
    words: Postings, runs: Postings, asked: int, cosine: Scores | None, document: NDArray[np.int64]
) -> tuple[Scores, NDArray[np.bool_]]:
    """(scores, found) of n passages; `found` says which of them answer the query at all.

    words, runs:  postings of the query's terms in the passages.
    asked:        distinct runs in the query, known ones or not.
    cosine:       (n,) of the query with each passage; None without vectors.
    document:     (n,) in 0..m-1, the document of each passage, each present.
    """
    by_words, by_runs = bm25(words), bm25(runs)
    around = bm25(grouped(words, document))[document]
    score = _WORDS * stretched(by_words) + _RUNS * stretched(by_runs) + _DOCUMENT * stretched(around)
    found = (by_words > 0) | (_met(runs, asked) >= _SOME)
    if cosine is not None:
        score = score + _MEANING * stretched(cosine)
        found = found | (cosine >= _SOME)
    return score, found


def stretched(scores: Scores) -> Scores:
    """To 0..1 from the least to the greatest; all 0 where they are equal."""
    if not len(scores):
        return scores
    least, most = scores.min(), scores.max()
    return (scores - least) / (most - least) if most > least else np.zeros(len(scores))


def _met(runs: Postings, asked: int) -> Scores:
    """(n,) share of the query's runs that stand in each passage."""
    return np.bincount(runs.text, minlength=len(runs.lengths)) / max(asked, 1)
