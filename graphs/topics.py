"""Topics and key phrases. Clusters of vectors, as many as the silhouette likes; labels by class-based TF-IDF.

c-TF-IDF treats each cluster as one long text: weight(t, c) = tf(t, c) · log(1 + A / f(t)), where tf is the share of the
cluster's terms, f the count over all clusters and A the mean number of terms in a cluster.
Grootendorst 2022, "BERTopic: Neural topic modeling with a class-based TF-IDF procedure", section 3.3.
Maximal marginal relevance keeps the choice varied: Carbonell & Goldstein 1998, "The use of MMR".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import silhouette_score
from sklearn.utils.extmath import randomized_svd

from graphs.index import Vectors, unit
from graphs.words import content_words

Labels = NDArray[np.int64]  # (n,) cluster of each segment, numbered by first appearance

MOST_TOPICS = 10
_DIRECTIONS = 32
_LEAST_SILHOUETTE = 0.02  # below this the segments show no groups, and one topic is the honest answer
_NEAR_BEST = 0.85
_SAMPLE = 1_500  # silhouette is quadratic in the segments


def directions(texts: Sequence[str], vectors: Vectors | None, documents: Sequence[str]) -> Vectors:
    """What is clustered: embeddings, or TF-IDF where there are none, in their 32 main directions, then smoothed."""
    rows = vectors
    if rows is None:
        words = [content_words(text) for text in texts]
        if not any(words):
            return np.ones((len(texts), 1), dtype=np.float32)
        rows = TfidfVectorizer(analyzer=list, sublinear_tf=True).fit_transform(words)
    rank = min(_DIRECTIONS, *rows.shape)
    left, strengths, _ = randomized_svd(rows, rank, n_iter=2, random_state=0)
    return smoothed(unit(left * strengths), documents)


def smoothed(vectors: Vectors, documents: Sequence[str], weight: float = 0.5) -> Vectors:
    """Each vector with `weight` of its neighbours' in the same document: a short reply belongs to what it answers."""
    result = vectors.astype(np.float64)
    same = np.array([a == b for a, b in pairwise(documents)], dtype=bool)[:, None]
    result[1:] += np.where(same, weight * vectors[:-1], 0.0)
    result[:-1] += np.where(same, weight * vectors[1:], 0.0)
    return unit(result)


def cluster(vectors: Vectors) -> Labels:
    """Groups of rows: the fewest whose silhouette comes within 15 % of the best, for it creeps up with their number.

    One group for fewer than 5 rows, or where no split shows a silhouette worth the name.
    """
    n = len(vectors)
    distinct = len(np.unique(vectors.round(4), axis=0))
    trials: list[tuple[float, Labels]] = []
    for k in range(2, min(MOST_TOPICS, distinct - 1, (n + 1) // 3) + 1):
        labels = KMeans(k, n_init=5, random_state=0).fit_predict(vectors)
        score = silhouette_score(vectors, labels, sample_size=min(n, _SAMPLE), random_state=0)
        trials.append((float(score), labels))
    best = max((score for score, _ in trials), default=0.0)
    if best < _LEAST_SILHOUETTE:
        return np.zeros(n, dtype=np.int64)
    chosen = next(labels for score, labels in trials if score >= _NEAR_BEST * best)
    first = {label: order for order, label in enumerate(dict.fromkeys(chosen.tolist()))}
    return np.array([first[label] for label in chosen.tolist()], dtype=np.int64)


def class_weights(said: Sequence[Counter[str]], labels: Labels) -> list[dict[str, float]]:
    """c-TF-IDF of every content word, and of every phrase of 2 or 3 that is said more than once, by cluster.

    said: (n,) how often each segment says each phrase.
    """
    counts = [Counter[str]() for _ in range(int(labels.max(initial=0)) + 1)]
    overall = Counter[str]()
    for terms, label in zip(said, labels.tolist(), strict=True):
        counts[label].update(terms)
        overall.update(terms)
    mean = overall.total() / len(counts)
    weights: list[dict[str, float]] = []
    for count in counts:
        total = count.total()
        kept = {term: n for term, n in count.items() if " " not in term or overall[term] > 1}
        weights.append({term: n / total * math.log1p(mean / overall[term]) for term, n in kept.items()})
    return weights


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
