"""The vectors of a run, and search by words and meaning: inside one namespace, and only there."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bandits.errors import InvalidNameError
from bandits.types import valid_name
from graphs.errors import EmbedError
from graphs.fusion import fused
from graphs.keywords import Keywords, terms
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
    """A segment that answers a query; `score` says how well in comparison with the others (fusion.py), 0 to 1.1."""

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

    @cached_property
    def _keywords(self) -> Keywords:
        return Keywords([one.text for one in self.segments])

    def search(self, query: str, k: int = 5) -> tuple[Hit, ...]:
        """The k best segments, best first; fewer, or none, where nothing in them meets the query."""
        if not self.segments:
            return ()
        vector = query_vector(self.encoder, self.embedder, query, self.vectors.shape[1])
        documents = {name: i for i, name in enumerate(dict.fromkeys(one.document for one in self.segments))}
        document = np.array([documents[one.document] for one in self.segments])
        words, runs = (self._keywords.matching(query, field) for field in ("words", "runs"))
        scores, found = fused(
            words, runs, len(terms(query, "runs")), (self.vectors @ vector).astype(np.float64), document
        )
        return tuple(Hit(self.segments[i], float(scores[i]), self.run_id) for i in best(scores, found, k))


def query_vector(encoder: Encoder, embedder: str, query: str, dimension: int) -> NDArray[np.float32]:
    """(dimension,) vector of a query. Raises EmbedError if the encoder makes others."""
    vector = encoder.encode([query])
    if vector.shape != (1, dimension):
        raise EmbedError(
            f"a query vector must have shape (1, {dimension}), but got {vector.shape} from "
            f"{embedder}; search an index with the encoder that made it."
        )
    return vector[0]


def best(scores: NDArray[np.float64], found: NDArray[Any], k: int) -> list[int]:
    """Places of the k best of those that were found; the earlier one first where two are equal."""
    order = np.argsort(-scores, kind="stable")
    return [int(i) for i in order[found[order]][: max(k, 0)]]


def valid_namespace(namespace: str) -> str:
    """`tenant:workspace:name`, each a valid name. Raises InvalidNameError."""
    parts = namespace.split(":")
    if len(parts) != 3:
        raise InvalidNameError(
            f"a namespace must be tenant:workspace:name, but got {namespace[:200]!r}; give all three."
        )
    for part, what in zip(parts, ("tenant", "workspace", "name"), strict=True):
        valid_name(part, f"{what} of a namespace")
    return namespace


class Shelf(Protocol):
    """Where the index of a run goes, to be searched afterwards."""

    def put(self, index: Index) -> None:
        """Keep it."""


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
