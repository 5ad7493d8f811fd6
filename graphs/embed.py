"""Step 3: give each segment a vector.

An Embedder is fitted on the texts of a run and gives an Encoder, which turns texts, and later queries, into unit
vectors. The default, `hashed-svd`, needs no model: it finds words that go together in these very documents. It knows
no synonyms beyond them; embedders with a language model behind them (embed_model.py) can take its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.utils.extmath import randomized_svd

from graphs.errors import EmbedError
from graphs.index import Encoder, Index, Vectors, unit
from graphs.keywords import runs
from graphs.segment import segments_of
from graphs.state import State
from graphs.steady import steady
from graphs.words import content_words

_LEAST_KNOWN = 0.1  # of the length of a text, before it is scaled to 1: less is a chance resemblance
Arrays = Mapping[str, NDArray[Any]]


class Embedder(Protocol):
    """Something that can be fitted on texts, or needs no fitting."""

    @property
    def name(self) -> str:
        """Label shown wherever its vectors are used; vectors of two names are never compared."""

    @property
    def fitted(self) -> bool:
        """Whether `fit` learns from the texts, so that two fits give vectors that cannot be compared."""

    def fit(self, texts: Sequence[str]) -> Encoder:
        """Learn from the texts of one run."""

    def arrays(self, encoder: Encoder) -> Arrays:
        """What `load` needs to give this encoder back; empty where nothing is fitted."""

    def load(self, arrays: Arrays) -> Encoder:
        """The encoder that these arrays came from."""


@dataclass(frozen=True)
class HashedSvd:
    """Words and runs of letters hashed to 2^14 features, weighted by TF-IDF, reduced by an SVD of the corpus.

    Deterministic: hashing has no state, the decomposition a fixed seed. dimension = min(dimension, n texts).
    """

    dimension: int = 256
    name: str = "hashed-svd"
    fitted: bool = True

    def fit(self, texts: Sequence[str]) -> Encoder:
        """Fit on n >= 1 texts; raises EmbedError on none."""
        if not texts:
            raise EmbedError("an embedder must be fitted on at least 1 text, but got none; ingest a document first.")
        tfidf = TfidfTransformer(sublinear_tf=True)
        weights = tfidf.fit_transform(_hashing().transform(texts))
        _, _, components = randomized_svd(weights, min(self.dimension, len(texts)), n_iter=2, random_state=0)
        return HashedSvdEncoder(tfidf.idf_, components.astype(np.float32))

    def arrays(self, encoder: Encoder) -> Arrays:
        """idf and components."""
        if not isinstance(encoder, HashedSvdEncoder):
            raise EmbedError(f"{self.name} must keep a HashedSvdEncoder, but got {type(encoder).__name__}; mind them.")
        return {"idf": encoder.idf, "components": encoder.components}

    def load(self, arrays: Arrays) -> Encoder:
        """See Embedder."""
        return HashedSvdEncoder(arrays["idf"], arrays["components"])


@dataclass(frozen=True, eq=False)
class HashedSvdEncoder:
    """What was fitted: nothing but arrays, so that it can be stored and go on elsewhere."""

    idf: NDArray[np.float64]  # (features,)
    components: NDArray[np.float32]  # (dimension, features)

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        return int(self.components.shape[0])

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See Encoder."""
        tfidf = TfidfTransformer(sublinear_tf=True)
        tfidf.idf_ = self.idf
        rows = np.asarray(tfidf.transform(_hashing().transform(texts)) @ self.components.T)
        known = np.linalg.norm(rows, axis=1, keepdims=True) >= _LEAST_KNOWN
        return unit(np.where(known, rows, 0.0))


def _terms(text: str) -> list[str]:
    return content_words(text) + runs(text)


def _hashing() -> Any:  # noqa: ANN401 - scikit-learn has no types
    return HashingVectorizer(analyzer=_terms, n_features=2**14, alternate_sign=False, norm=None, dtype=np.float64)


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
