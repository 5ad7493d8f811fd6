"""Vectors that were computed once, by model and content: the same text never costs a second time.

A cache in one SQLite file: it can be deleted at any time. Of a text only its hash is kept.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from graphs.embed import Arrays, Embedder
from graphs.errors import EmbedError
from graphs.index import Encoder, Vectors

_ASKED_AT_ONCE = 500


@dataclass(frozen=True)
class Cached:
    """An embedder that looks into the cache first. One that is fitted on each corpus has nothing to keep."""

    inner: Embedder
    path: Path
    name: str = field(init=False)
    fitted: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        if self.inner.fitted:
            raise EmbedError(f"only vectors that last can be cached, but {self.inner.name} is fitted on each corpus.")
        object.__setattr__(self, "name", self.inner.name)

    def fit(self, texts: Sequence[str]) -> Encoder:
        """See Embedder."""
        return CachedEncoder(self.inner.fit(texts), self.name, self.path)

    def arrays(self, encoder: Encoder) -> Arrays:
        """See Embedder."""
        return self.inner.arrays(encoder.inner if isinstance(encoder, CachedEncoder) else encoder)

    def load(self, arrays: Arrays) -> Encoder:
        """See Embedder."""
        return CachedEncoder(self.inner.load(arrays), self.name, self.path)


@dataclass(frozen=True)
class CachedEncoder:
    """An encoder that is asked only for what the cache does not hold."""

    inner: Encoder
    model: str
    path: Path

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        return self.inner.dimension

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See Encoder."""
        keys = [hashlib.sha256(text.encode()).digest() for text in texts]
        with _opened(self.path) as connection:
            known = self._known(connection, list(dict.fromkeys(keys)))
            missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
            if missing:
                fresh = self.inner.encode(list(missing.values()))
                rows = [(self.model, key, row.tobytes()) for key, row in zip(missing, fresh, strict=True)]
                connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)
                known.update(zip(missing, fresh, strict=True))
        return np.array([known[key] for key in keys], dtype=np.float32).reshape(len(texts), self.dimension)

    def _known(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        found: dict[bytes, Vectors] = {}
        for start in range(0, len(keys), _ASKED_AT_ONCE):
            some = keys[start : start + _ASKED_AT_ONCE]
            marks = ",".join("?" * len(some))
            asked = f"SELECT content, vector FROM vectors WHERE model = ? AND content IN ({marks})"  # noqa: S608 - marks
            for key, vector in connection.execute(asked, [self.model, *some]):
                if len(vector) == 4 * self.dimension:  # of another dimension: the model changed under its name
                    found[key] = np.frombuffer(vector, dtype=np.float32)
        return found


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=30.0)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS vectors (model TEXT, content BLOB, vector BLOB, PRIMARY KEY (model, content)) "
            "WITHOUT ROWID"
        )
        with connection:
            yield connection
    finally:
        connection.close()
