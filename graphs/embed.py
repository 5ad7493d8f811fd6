"""Step 3: give each segment a vector.

An Embedder is fitted on the texts of a run and gives an Encoder, which turns texts, and later queries, into unit
vectors. The default, `hashed-svd`, needs no model: it finds words that go together in these very documents. It knows
no synonyms beyond them; an embedder with a language model behind it can take its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.utils.extmath import randomized_svd

from graphs.errors import EmbedError
from graphs.index import Encoder, Index, Vectors, unit
from graphs.segment import segments_of
from graphs.state import State
from graphs.steady import steady
from graphs.words import content_words


class Embedder(Protocol):
    """Something that can be fitted on texts."""

    @property
    def name(self) -> str:
        """Label shown wherever its vectors are used."""

    def fit(self, texts: Sequence[str]) -> Encoder:
        """Learn from the texts of one run."""


@dataclass(frozen=True)
class HashedSvd:
    """Words hashed to 2^14 features, weighted by TF-IDF, reduced by a singular value decomposition of the corpus.

    Deterministic: hashing has no state, the decomposition a fixed seed. dimension = min(dimension, n texts).
    """

    dimension: int = 256
    name: str = "hashed-svd"

    def fit(self, texts: Sequence[str]) -> Encoder:
        """Fit on n >= 1 texts; raises EmbedError on none."""
        if not texts:
            raise EmbedError("an embedder must be fitted on at least 1 text, but got none; ingest a document first.")
        tfidf = TfidfTransformer(sublinear_tf=True)
        weights = tfidf.fit_transform(_hashing().transform(texts))
        _, _, components = randomized_svd(weights, min(self.dimension, len(texts)), n_iter=2, random_state=0)
        return HashedSvdEncoder(tfidf.idf_, components)


@dataclass(frozen=True, eq=False)
class HashedSvdEncoder:
    """What was fitted: nothing but arrays, so that a run can be stored and go on elsewhere."""

    idf: NDArray[np.float64]  # (features,)
    components: NDArray[np.float64]  # (dimension, features)

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        return int(self.components.shape[0])

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See Encoder."""
        tfidf = TfidfTransformer(sublinear_tf=True)
        tfidf.idf_ = self.idf
        return unit(np.asarray(tfidf.transform(_hashing().transform(texts)) @ self.components.T))


def _hashing() -> Any:  # noqa: ANN401 - scikit-learn has no types
    return HashingVectorizer(
        analyzer=content_words, n_features=2**14, alternate_sign=False, norm=None, dtype=np.float64
    )


def embed_with(embedder: Embedder) -> Callable[[State], State]:
    """The embed step for an embedder of choice."""

    def embed(state: State) -> State:
        """index: the vectors of all segments, in the namespace of the request."""
        segments = segments_of(state)
        texts = [one.text for one in segments]
        with steady():
            encoder = embedder.fit(texts)
            vectors = encoder.encode(texts)
        return {"index": Index(state["request"].namespace, state["run_id"], embedder.name, encoder, segments, vectors)}

    return embed
