"""Where talk changes its topic: TextTiling over the words of messages.

At each gap between two messages, how alike are the words of the few before and the few after? A gap's depth is how far
that likeness falls there from the hills on either side. Hearst 1997, "TextTiling: Segmenting text into multi-paragraph
subtopic passages", section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import diags_array
from sklearn.feature_extraction.text import HashingVectorizer

from graphs.words import content_words

_WINDOW = 6  # messages on either side


def depths(texts: Sequence[str]) -> NDArray[np.float64]:
    """(n - 1,) in 0..2: how deep the valley is between each message and the next."""
    n = len(texts)
    if n < 2:
        return np.zeros(0)
    hashing = HashingVectorizer(analyzer=content_words, n_features=2**18, alternate_sign=False, norm=None)
    words = hashing.transform(texts).tocsr()
    reach = min(_WINDOW, n)
    before = diags_array(np.ones((reach, 1)), offsets=-np.arange(reach), shape=(n, n)).tocsr() @ words
    after = diags_array(np.ones((reach, 1)), offsets=np.arange(reach), shape=(n, n)).tocsr() @ words
    left, right = before[:-1], after[1:]
    products = np.asarray(left.multiply(right).sum(axis=1)).ravel()
    lengths = [np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel()) for rows in (left, right)]
    likeness = products / np.maximum(lengths[0] * lengths[1], 1e-9)
    return _hill(likeness) + _hill(likeness[::-1])[::-1] - 2 * likeness


def _hill(likeness: NDArray[np.float64]) -> NDArray[np.float64]:
    """Height of the hill to the left of each gap: where, going left, the likeness first stops to rise."""
    hill = likeness.copy()
    for i in range(1, len(hill)):
        if hill[i - 1] >= likeness[i] and likeness[i - 1] >= likeness[i]:
            hill[i] = hill[i - 1]
    return hill
