"""What these documents say that the earlier ones of the namespace did not: phrases that are new, by their weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from graphs.topics import class_weights, distinct_phrases
from graphs.words import phrases

Earlier = Callable[[str, Sequence[str]], Sequence[str]]  # (namespace, ids of documents not meant) -> passages

_LEAST_SAID = 2  # times; a word said once is seldom news


def new_phrases(said: Sequence[Counter[str]], earlier: Sequence[str], many: int = 8) -> list[tuple[str, float]]:
    """Phrases of these segments that no earlier passage holds, the weightiest first (c-TF-IDF of now against then)."""
    now: Counter[str] = Counter()
    for one in said:
        now.update(one)
    then = Counter(term for text in earlier for term in phrases(text))
    if not then or not now:
        return []
    weights = class_weights([now, then], np.array([0, 1]))[0]
    fresh = {term: weight for term, weight in weights.items() if not then[term] and now[term] >= _LEAST_SAID}
    return distinct_phrases(fresh, many)
