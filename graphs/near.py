"""Documents that are all but the same: a transcript exported twice, an article and its copy.

MinHash over runs of five words: the share of equal minima estimates the Jaccard similarity of two documents with a
standard error of at most .5/√128 = .044. Broder 1997, "On the resemblance and containment of documents".
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graphs.words import tokens

_RUN = 5  # words; pairs of characters where there are no blanks
_HASHES = 128
_NEAR = 0.8
_MOST_RUNS = 20_000  # the runs with the smallest hashes stand for a longer document

Signature = NDArray[np.uint64]  # (128,)


def near_duplicates(texts: Sequence[str], least: float = _NEAR) -> list[tuple[int, int, float]]:
    """(earlier, later, similarity) of each text that all but repeats an earlier one; the most similar one is named."""
    if len(texts) < 2:
        return []
    signatures = np.stack([signature(text) for text in texts])
    found = []
    for later in range(1, len(texts)):
        similar = (signatures[:later] == signatures[later]).mean(axis=1)
        earlier = int(similar.argmax())
        if similar[earlier] >= least:
            found.append((earlier, later, float(similar[earlier])))
    return found


def signature(text: str) -> Signature:
    """The least of 128 hashes over all runs of words in a text."""
    words = [token for token in tokens(text) if token]
    runs = {" ".join(words[i : i + _RUN]) for i in range(max(1, len(words) - _RUN + 1))}
    hashes = np.array(
        [int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest()) for run in runs], dtype=np.uint64
    )
    hashes = np.sort(hashes)[:_MOST_RUNS]
    least = np.full(_HASHES, np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(hashes), 1_000):  # 1 MB at a time
        mixed = hashes[start : start + 1_000, None] * _FACTORS + _TERMS  # modulo 2^64, so that orders differ
        least = np.minimum(least, (mixed >> np.uint64(16)).min(axis=0))
    return least


_RNG = np.random.default_rng(0)  # signatures of two runs must compare
_FACTORS = _RNG.integers(1, 1 << 63, _HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_TERMS = _RNG.integers(0, 1 << 63, _HASHES, dtype=np.uint64)
