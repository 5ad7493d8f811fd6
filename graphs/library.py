"""What a namespace has read, in one DuckDB file of the home: passages, their words and their vectors, searched exactly.

Each document stands once: putting it again changes nothing, forgetting it leaves nothing. A namespace belongs to one
embedder. One that is fitted on the corpus is fitted anew when the corpus has doubled, and all vectors with it; between,
what comes is encoded as the rest was. library_tables.py says how it lies in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from graphs import library_tables as tables
from graphs.embed import Embedder, HashedSvd
from graphs.errors import EmbedError
from graphs.fusion import fused
from graphs.index import Encoder, Hit, Index, best, query_vector, valid_namespace
from graphs.keywords import FIELDS, terms
from graphs.steady import steady

_GROWN = 2.0


class Library:
    """The passages of all namespaces. Nothing is found outside the one that is searched."""

    def __init__(self, path: Path, embedder: Embedder | None = None) -> None:
        self.path = path
        self.embedder: Embedder = embedder if embedder is not None else HashedSvd()
        self._encoders: dict[str, tuple[str, Encoder]] = {}  # by namespace: digest of its arrays, encoder

    def put(self, index: Index) -> None:
        """Add the documents of a run that are not here yet. Raises EmbedError if they were embedded otherwise."""
        namespace = valid_namespace(index.namespace)
        if index.embedder != self.embedder.name:
            raise EmbedError(
                f"a library of {self.embedder.name!r} must be given its vectors, but got those of {index.embedder!r}; "
                "run the pilot with the embedder of the library."
            )
        with tables.opened(self.path) as db, tables.transaction(db):
            found = self._encoder(db, namespace)
            if found is not None and not self.embedder.fitted and found[0].dimension != index.encoder.dimension:
                raise EmbedError(
                    f"vectors of namespace {namespace} must have dimension {found[0].dimension}, but "
                    f"{index.embedder} gave {index.encoder.dimension}; forget the namespace first, or name another."
                )
            held = tables.documents(db, namespace)
            new = [i for i, one in enumerate(index.segments) if one.document not in held]
            if not new:
                return
            segments = [index.segments[i] for i in new]
            total = tables.count(db, namespace) + len(new)
            if found is None or not self.embedder.fitted:
                tables.insert(db, namespace, index.run_id, segments, index.vectors[new])
                self._keep(db, namespace, index.encoder, total)
                return
            with steady():
                vectors = found[0].encode([one.text for one in segments])
            tables.insert(db, namespace, index.run_id, segments, vectors)
            if total >= _GROWN * found[1]:
                self._fit(db, namespace)

    def search(self, namespace: str, query: str, k: int = 5) -> tuple[Hit, ...]:
        """The k best passages of a namespace, best first. Raises EmbedError if it was embedded otherwise."""
        valid_namespace(namespace)
        if not self.path.exists():
            return ()
        with tables.opened(self.path, read_only=True) as db:
            found = self._encoder(db, namespace)
            if found is None:
                return ()
            encoder = found[0]
            held = tables.held(db, namespace, encoder.dimension)
            words, runs = (tables.matching(db, namespace, held, field, terms(query, field)) for field in FIELDS)
            vector = query_vector(encoder, self.embedder.name, query, encoder.dimension)
            cosine = (held.vectors @ vector).astype(np.float64)
            scores, met = fused(words, runs, len(terms(query, "runs")), cosine, held.document)
            places = best(scores, met, k)
            rows = tables.passages(db, namespace, held.keys[places].tolist())
        return tuple(Hit(segment, float(scores[i]), run_id) for i, (segment, run_id) in zip(places, rows, strict=True))

    def documents(self, namespace: str) -> dict[str, str]:
        """Names of the documents of a namespace, by id."""
        valid_namespace(namespace)
        if not self.path.exists():
            return {}
        with tables.opened(self.path, read_only=True) as db:
            return tables.documents(db, namespace)

    def texts(self, namespace: str, without: Sequence[str] = ()) -> list[str]:
        """The passages of a namespace in order, but those of some documents (ids)."""
        valid_namespace(namespace)
        if not self.path.exists():
            return []
        with tables.opened(self.path, read_only=True) as db:
            return [text for document, text in tables.texts(db, namespace) if document not in set(without)]

    def forget(self, namespace: str, document: str | None = None) -> int:
        """Erase a document, by its id or its name, or all of a namespace; how many passages went."""
        valid_namespace(namespace)
        if not self.path.exists():
            return 0
        with tables.opened(self.path) as db:
            with tables.transaction(db):
                gone = tables.forget(db, namespace, document)
                if gone and self.embedder.fitted and tables.count(db, namespace):
                    self._fit(db, namespace)  # what was fitted on the erased text knows its words
            db.execute("CHECKPOINT")  # and they leave the log as well
        return gone

    def _encoder(self, db: duckdb.DuckDBPyConnection, namespace: str) -> tuple[Encoder, int] | None:
        """The encoder of a namespace, and how many passages it was fitted on."""
        row = tables.encoder(db, namespace)
        if row is None:
            return None
        name, passages, digest = row
        if name != self.embedder.name:
            raise EmbedError(
                f"namespace {namespace} must be used with its embedder {name!r}, but got {self.embedder.name!r}; "
                "choose that one, another namespace, or forget this one first."
            )
        known = self._encoders.get(namespace)
        if known is None or known[0] != digest:
            known = (digest, self.embedder.load(load_arrays(tables.encoder_arrays(db, namespace))))
            self._encoders[namespace] = known
        return known[1], passages

    def _keep(self, db: duckdb.DuckDBPyConnection, namespace: str, encoder: Encoder, passages: int) -> None:
        arrays = {name: np.ascontiguousarray(array) for name, array in self.embedder.arrays(encoder).items()}
        tables.keep_encoder(db, namespace, self.embedder.name, passages, save_arrays(arrays))

    def _fit(self, db: duckdb.DuckDBPyConnection, namespace: str) -> None:
        """Fit the embedder on all passages, and encode them anew."""
        texts = [text for _, text in tables.texts(db, namespace)]
        with steady():
            encoder = self.embedder.fit(texts)
            vectors = encoder.encode(texts)
        tables.replace_vectors(db, namespace, vectors)
        self._keep(db, namespace, encoder, len(texts))
