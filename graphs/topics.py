"""Topics and key phrases. Clusters of vectors, as many as the silhouette likes; labels by class-based TF-IDF.

c-TF-IDF treats each cluster as one long text: weight(t, c) = tf(t, c) · log(1 + A / f(t)), where tf is the share of the
cluster's terms, f the count over all clusters and A the mean number of terms in a cluster.
Grootendorst 2022, "BERTopic: Neural topic modeling with a class-based TF-IDF procedure", section 3.3.
Maximal marginal relevance keeps the choice varied: Carbonell & Goldstein 1998, "The use of MMR".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import silhouette_score

from graphs.embed import Vectors, unit
from graphs.words import content_words, phrases

Labels = NDArray[np.int64]  # (n,) cluster of each segment, numbered by first appearance

MOST_TOPICS = 10
_DIRECTIONS = 32
_LEAST_SILHOUETTE = 0.02  # below this the segments show no groups, and one topic is the honest answer
_SAMPLE = 1_500  # silhouette is quadratic in the segments


def directions(texts: Sequence[str], vectors: Vectors | None, documents: Sequence[str]) -> Vectors:
    """What is clustered: embeddings, or TF-IDF where there are none, in their 32 main directions, then smoothed."""
    rows = vectors
    if rows is None:
        rows = TfidfVectorizer(analyzer=content_words, sublinear_tf=True).fit_transform(texts)
    rank = min(_DIRECTIONS, rows.shape[0] - 1, rows.shape[1] - 1)
    reduced = TruncatedSVD(rank, random_state=0).fit_transform(rows) if rank >= 2 else np.ones((rows.shape[0], 1))
    return smoothed(unit(reduced), documents)


def smoothed(vectors: Vectors, documents: Sequence[str], weight: float = 0.5) -> Vectors:
    """Each vector with `weight` of its neighbours' in the same document: a short reply belongs to what it answers."""
    result = vectors.astype(np.float64)
    same = np.array([a == b for a, b in pairwise(documents)], dtype=bool)[:, None]
    result[1:] += np.where(same, weight * vectors[:-1], 0.0)
    result[:-1] += np.where(same, weight * vectors[1:], 0.0)
    return unit(result)


def cluster(vectors: Vectors) -> Labels:
    """Groups of rows; one group for fewer than 4 rows, or where no split shows a silhouette worth the name."""
    n = len(vectors)
    best, labels = _LEAST_SILHOUETTE, np.zeros(n, dtype=np.int64)
    distinct = len(np.unique(vectors, axis=0))
    for k in range(2, min(MOST_TOPICS, distinct - 1, (n + 1) // 3) + 1):
        trial = KMeans(k, n_init=5, random_state=0).fit_predict(vectors)
        if len(set(trial.tolist())) < 2:
            continue
        score = silhouette_score(vectors, trial, sample_size=min(n, _SAMPLE), random_state=0)
        if score > best + 1e-9:
            best, labels = score, trial
    first = {label: order for order, label in enumerate(dict.fromkeys(labels.tolist()))}
    return np.array([first[label] for label in labels.tolist()], dtype=np.int64)


def class_weights(texts: Sequence[str], labels: Labels) -> list[dict[str, float]]:
    """c-TF-IDF of every content word, and of every phrase of 2 or 3 that is said more than once, by cluster."""
    counts = [Counter[str]() for _ in range(int(labels.max(initial=0)) + 1)]
    for text, label in zip(texts, labels.tolist(), strict=True):
        counts[label].update(phrases(text))
    overall = sum(counts, Counter[str]())
    mean = overall.total() / len(counts)
    return [
        {
            term: n / count.total() * float(np.log1p(mean / overall[term]))
            for term, n in count.items()
            if " " not in term or overall[term] > 1
        }
        for count in counts
    ]


def distinct_phrases(weights: dict[str, float], many: int, diversity: float = 0.6) -> list[tuple[str, float]]:
    """The `many` weightiest phrases that do not repeat each other's words (MMR), with their weights.

    A longer phrase is preferred to a shorter one inside it when it is said nearly as often: its weight counts once
    for each word.
    """
    value = {term: weight * len(term.split()) ** 0.7 for term, weight in weights.items()}
    pool = sorted(value, key=lambda term: (-value[term], term))[: 20 * many]
    top = value[pool[0]] if pool else 1.0
    chosen: list[str] = []
    while pool and len(chosen) < many:
        best = max(pool, key=lambda term: (1 - diversity) * value[term] / top - diversity * _repeats(term, chosen))
        pool.remove(best)
        if _repeats(best, chosen) < 1.0:
            chosen.append(best)
    return [(term, weights[term]) for term in chosen]


def _repeats(term: str, chosen: Sequence[str]) -> float:
    """Largest share of the shorter phrase's words that the other one holds too; a plural in -s is the same word."""
    words = _bare(term)
    others = [_bare(other) for other in chosen]
    return max((len(words & other) / min(len(words), len(other)) for other in others), default=0.0)


def _bare(term: str) -> set[str]:
    return {word.removesuffix("s") if len(word) > 3 else word for word in term.split()}
