"""How a library lies in its DuckDB file. The file is opened for each call only: a writer excludes all others.

Values reach SQL as parameters, or as columns of Arrow; nothing in the file can reach outside it.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graphs.errors import LibraryError
from graphs.index import Vectors
from graphs.keywords import FIELDS, Postings, postings
from graphs.passage import Segment

FORMAT = 1
PATIENCE_S = 20.0
_PAUSE_S = 0.02
_TABLES = """
CREATE TABLE IF NOT EXISTS format (version INTEGER);
CREATE TABLE IF NOT EXISTS encoders (namespace VARCHAR, embedder VARCHAR, passages BIGINT, digest VARCHAR, arrays BLOB);
CREATE TABLE IF NOT EXISTS passages (
    namespace VARCHAR, key BIGINT, document VARCHAR, name VARCHAR, run_id VARCHAR, place VARCHAR, text VARCHAR,
    words BIGINT, runs BIGINT);
CREATE TABLE IF NOT EXISTS vectors (namespace VARCHAR, key BIGINT, vector FLOAT[]);
CREATE TABLE IF NOT EXISTS postings (namespace VARCHAR, field VARCHAR, term BIGINT, key BIGINT, count BIGINT);
"""
_one_here = threading.Lock()  # DuckDB takes no two connections of one process that differ


class Held(NamedTuple):
    """The passages of a namespace as columns, ordered by key."""

    keys: NDArray[np.int64]
    document: NDArray[np.int64]  # in 0..m-1
    lengths: dict[str, NDArray[np.int64]]  # by field
    vectors: Vectors


@contextmanager
def opened(path: Path, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection. Raises LibraryError if others hold the file too long, or it is no library that this can read."""
    with _one_here:
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            db = _connect(path, read_only)
        except duckdb.Error as error:
            raise LibraryError(
                f"the library must be a DuckDB file, but {path} cannot be opened ({error}); "
                "delete it, and run the pilot over its documents again."
            ) from None
        try:
            db.execute("SET enable_progress_bar = false")  # it would be printed among answers
            if not read_only:
                db.execute(_TABLES)
            _check_format(db, path, read_only)
            yield db
        finally:
            db.close()


def _connect(path: Path, read_only: bool) -> duckdb.DuckDBPyConnection:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return duckdb.connect(str(path), read_only=read_only, config={"enable_external_access": "false"})
        except (duckdb.IOException, duckdb.ResourceInUseException) as error:  # of another process; of this, a backup
            if isinstance(error, duckdb.IOException) and "lock" not in str(error).lower():
                raise
            if time.monotonic() >= deadline:
                raise LibraryError(
                    f"the library must be free for a moment, but {path} was held for {PATIENCE_S:g} s; "
                    "wait until the other process is done, then retry."
                ) from None
        time.sleep(_PAUSE_S)


def _check_format(db: duckdb.DuckDBPyConnection, path: Path, read_only: bool) -> None:
    try:
        versions = [version for (version,) in db.execute("SELECT version FROM format").fetchall()]
    except duckdb.CatalogException:
        versions = ["none"]
    if not versions and not read_only:
        db.execute("INSERT INTO format VALUES (?)", [FORMAT])
    elif versions != [FORMAT]:
        found = ", ".join(map(str, versions)) or "none"
        raise LibraryError(
            f"the library must have format {FORMAT}, but {path} has {found}; "
            "delete it, and run the pilot over its documents again."
        )


@contextmanager
def transaction(db: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All of it, or nothing."""
    db.execute("BEGIN")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def documents(db: duckdb.DuckDBPyConnection, namespace: str) -> dict[str, str]:
    """Names by id, in the order in which they came."""
    asked = "SELECT document, any_value(name) FROM passages WHERE namespace = ? GROUP BY document ORDER BY min(key)"
    return dict(db.execute(asked, [namespace]).fetchall())


def count(db: duckdb.DuckDBPyConnection, namespace: str) -> int:
    """Passages of a namespace."""
    ((many,),) = db.execute("SELECT count(*) FROM passages WHERE namespace = ?", [namespace]).fetchall()
    return int(many)


def texts(db: duckdb.DuckDBPyConnection, namespace: str) -> list[tuple[str, str]]:
    """(document, text) of each passage, ordered by key."""
    return db.execute("SELECT document, text FROM passages WHERE namespace = ? ORDER BY key", [namespace]).fetchall()


def insert(
    db: duckdb.DuckDBPyConnection, namespace: str, run_id: str, segments: Sequence[Segment], vectors: Vectors
) -> None:
    """Add passages with their vectors and postings."""
    ((last,),) = db.execute("SELECT coalesce(max(key), -1) FROM passages WHERE namespace = ?", [namespace]).fetchall()
    keys = np.arange(last + 1, last + 1 + len(segments))
    found = {field: postings([one.text for one in segments], field) for field in FIELDS}
    whole = pa.table(
        {
            "namespace": [namespace] * len(segments),
            "key": keys,
            "document": [one.document for one in segments],
            "name": [one.name for one in segments],
            "run_id": [run_id] * len(segments),
            "place": [_place(one) for one in segments],
            "text": [one.text for one in segments],
            **{field: found[field].lengths for field in FIELDS},
        }
    )
    _append(db, "passages", whole)
    for field, one in found.items():
        terms = {"term": one.term, "key": keys[one.text], "count": one.times}
        same = {"namespace": pa.repeat(namespace, len(one.term)), "field": pa.repeat(field, len(one.term))}
        _append(db, "postings", pa.table({**same, **terms}))
    _insert_vectors(db, namespace, keys, vectors)


def replace_vectors(db: duckdb.DuckDBPyConnection, namespace: str, vectors: Vectors) -> None:
    """New vectors for all passages of a namespace, ordered by key."""
    rows = db.execute("SELECT key FROM passages WHERE namespace = ? ORDER BY key", [namespace]).fetchall()
    db.execute("DELETE FROM vectors WHERE namespace = ?", [namespace])
    _insert_vectors(db, namespace, np.array([key for (key,) in rows], dtype=np.int64), vectors)


def _insert_vectors(db: duckdb.DuckDBPyConnection, namespace: str, keys: NDArray[Any], vectors: Vectors) -> None:
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
    offsets = pa.array(np.arange(len(keys) + 1, dtype=np.int32) * vectors.shape[1])
    column = pa.ListArray.from_arrays(offsets, flat)
    _append(db, "vectors", pa.table({"namespace": pa.repeat(namespace, len(keys)), "key": keys, "vector": column}))


def _append(db: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    db.register("incoming", rows)
    db.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")  # noqa: S608 - a name of this file
    db.unregister("incoming")


def held(db: duckdb.DuckDBPyConnection, namespace: str, dimension: int) -> Held:
    """What a search looks at: everything but texts and postings."""
    found = db.sql(
        "SELECT key, document, words, runs, vector FROM passages JOIN vectors USING (namespace, key) "
        "WHERE namespace = ? ORDER BY key",
        params=[namespace],
    ).to_arrow_table()
    flat = found["vector"].combine_chunks()
    flat = flat.chunk(0) if isinstance(flat, pa.ChunkedArray) else flat
    _, document = np.unique(found["document"].to_numpy(), return_inverse=True)
    vectors = flat.flatten().to_numpy(zero_copy_only=False).reshape(len(found), dimension)
    lengths = {field: found[field].to_numpy() for field in FIELDS}
    return Held(found["key"].to_numpy(), document, lengths, vectors)


def matching(
    db: duckdb.DuckDBPyConnection, namespace: str, held_: Held, field: str, terms: NDArray[np.int64]
) -> Postings:
    """The postings of some terms."""
    found = db.sql(
        "SELECT term, key, count FROM postings WHERE namespace = ? AND field = ? AND term IN (SELECT unnest(?)) "
        "ORDER BY term, key",
        params=[namespace, field, terms.tolist()],
    ).to_arrow_table()
    text = np.searchsorted(held_.keys, found["key"].to_numpy())
    return Postings(found["term"].to_numpy(), text, found["count"].to_numpy(), held_.lengths[field])


def passages(db: duckdb.DuckDBPyConnection, namespace: str, keys: Sequence[int]) -> list[tuple[Segment, str]]:
    """(segment, run id) of some keys, in their order. A segment's index is its key."""
    rows = db.execute(
        "SELECT key, document, name, run_id, place, text FROM passages "
        "WHERE namespace = ? AND key IN (SELECT unnest(?))",
        [namespace, list(keys)],
    ).fetchall()
    by_key = {key: (_segment(key, document, name, place, text), run) for key, document, name, run, place, text in rows}
    return [by_key[key] for key in keys]


def _place(one: Segment) -> str:
    return json.dumps([one.start_s, one.end_s, one.speaker, one.lines, one.speakers])


def _segment(key: int, document: str, name: str, place: str, text: str) -> Segment:
    start_s, end_s, speaker, lines, speakers = json.loads(place)
    both = (lines[0], lines[1]) if lines else None
    return Segment(key, document, name, text, start_s, end_s, speaker, both, tuple(speakers))


def forget(db: duckdb.DuckDBPyConnection, namespace: str, document: str | None) -> int:
    """Delete a document by id or name, or a whole namespace; how many passages went."""
    whose = "namespace = $namespace AND ($document IS NULL OR document = $document OR name = $document)"
    given = {"namespace": namespace, "document": document}
    keys = [key for (key,) in db.execute(f"SELECT key FROM passages WHERE {whose}", given).fetchall()]  # noqa: S608
    for table in ("postings", "vectors", "passages"):
        db.execute(f"DELETE FROM {table} WHERE namespace = ? AND key IN (SELECT unnest(?))", [namespace, keys])  # noqa: S608
    if not count(db, namespace):
        db.execute("DELETE FROM encoders WHERE namespace = ?", [namespace])
    return len(keys)


def encoder(db: duckdb.DuckDBPyConnection, namespace: str) -> tuple[str, int, str] | None:
    """(embedder, passages that it was fitted on, digest of its arrays)."""
    asked = "SELECT embedder, passages, digest FROM encoders WHERE namespace = ?"
    rows = db.execute(asked, [namespace]).fetchall()
    return next(((str(name), int(passages_), str(digest)) for name, passages_, digest in rows), None)


def encoder_arrays(db: duckdb.DuckDBPyConnection, namespace: str) -> bytes:
    """The arrays of a namespace's encoder."""
    ((arrays,),) = db.execute("SELECT arrays FROM encoders WHERE namespace = ?", [namespace]).fetchall()
    return bytes(arrays)


def keep_encoder(db: duckdb.DuckDBPyConnection, namespace: str, embedder: str, passages_: int, arrays: bytes) -> None:
    """Set the encoder of a namespace."""
    db.execute("DELETE FROM encoders WHERE namespace = ?", [namespace])
    digest = hashlib.sha256(arrays).hexdigest()
    db.execute("INSERT INTO encoders VALUES (?, ?, ?, ?, ?)", [namespace, embedder, passages_, digest, arrays])
