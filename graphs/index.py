"""The vectors of a run, and search by meaning: inside one namespace, and only there."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graphs.errors import EmbedError
from graphs.passage import Segment

Vectors = NDArray[np.float32]


class Encoder(Protocol):
    """A fitted embedder."""

    @property
    def dimension(self) -> int:
        """Length of each vector."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32; each row has length 1, or is 0 where the text says nothing that is known."""


def unit(vectors: NDArray[Any]) -> Vectors:
    """Rows scaled to length 1; rows that are all but 0 become 0."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(norms > 1e-9, vectors / np.maximum(norms, 1e-9), 0.0).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Hit:
    """A segment that answers a query; `score` is the cosine, in (0, 1]."""

    segment: Segment
    score: float
    run_id: str


@dataclass(frozen=True, eq=False)
class Index:
    """The vectors of one run, with the segments they stand for and the encoder that made them."""

    namespace: str
    run_id: str
    embedder: str
    encoder: Encoder
    segments: tuple[Segment, ...]
    vectors: Vectors  # (n, dimension)

    def __post_init__(self) -> None:
        wanted = (len(self.segments), self.encoder.dimension)
        if self.vectors.shape != wanted:
            raise EmbedError(
                f"vectors must have shape (segments, dimension) = {wanted}, but got {self.vectors.shape} from "
                f"{self.embedder}; encode the segments with the encoder of this index."
            )

    def search(self, query: str, k: int = 5) -> tuple[Hit, ...]:
        """The k nearest segments by cosine, best first; fewer, or none, where nothing in them meets the query."""
        vector = self.encoder.encode([query])
        if vector.shape != (1, self.vectors.shape[1]):
            raise EmbedError(
                f"a query vector must have shape (1, {self.vectors.shape[1]}), but got {vector.shape} from "
                f"{self.embedder}; search an index with the encoder that made it."
            )
        scores = self.vectors @ vector[0]
        order = np.argsort(-scores, kind="stable")[: max(k, 0)]
        return tuple(Hit(self.segments[i], float(scores[i]), self.run_id) for i in order if scores[i] > 1e-6)


class VectorStore:
    """Indices in memory, by namespace: the newest `keep` runs of each. Nothing is found outside one's namespace."""

    def __init__(self, keep: int = 8) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._indices: dict[str, OrderedDict[str, Index]] = {}

    def put(self, index: Index) -> None:
        """Hold the index of a run; the oldest of its namespace makes room."""
        with self._lock:
            runs = self._indices.setdefault(index.namespace, OrderedDict())
            runs[index.run_id] = index
            while len(runs) > self._keep:
                runs.popitem(last=False)

    def search(self, namespace: str, query: str, k: int = 5, run_id: str | None = None) -> tuple[Hit, ...]:
        """Search one run of a namespace, by default its newest; () where the namespace does not hold it."""
        with self._lock:
            runs = self._indices.get(namespace, OrderedDict())
            index = runs.get(run_id if run_id is not None else next(reversed(runs), ""))
        return index.search(query, k) if index is not None else ()
