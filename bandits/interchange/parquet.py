"""Parquet: the log as columns, exact to the bit, for pandas, Polars, DuckDB, Spark and whoever else reads columns.

One row a round: id, time (UTC, seconds), context (d float32), action (0..K-1), propensity, probabilities (K float64),
reward, cost_usd (null where unknown). The file's metadata has, under "pilotage", the names of the arms, the feature
schema and the version of this format.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bandits.errors import InterchangeError
from bandits.interchange.rounds import FORMAT, Imported, Rounds, check, imported, new_file
from bandits.types import LoggedFeedback, Matrix, Vector

_KEY = b"pilotage"
_ABOUT = {"format": int, "arms": list, "schema": str, "missing": int, "position": int}
_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "time": pa.float64(),
        "context": pa.list_(pa.float32()),
        "action": pa.int64(),
        "propensity": pa.float64(),
        "probabilities": pa.list_(pa.float64()),
        "reward": pa.float64(),
        "cost_usd": pa.float64(),
    }
)


def write(feedback: LoggedFeedback, path: Path) -> None:
    """Write every round of `feedback` to a new file, which is there whole or not at all.

    Raises InterchangeError: a file is there, the disk refuses, or a round is not sound (see rounds.faults).
    """
    check(feedback)
    about = {"format": FORMAT} | {name: getattr(feedback, name) for name in _ABOUT if name != "format"}
    try:
        columns = [
            pa.array(feedback.ids, pa.string()),
            pa.array(feedback.times),
            _lists(feedback.contexts),
            pa.array(feedback.actions),
            pa.array(feedback.propensities),
            _lists(feedback.probabilities),
            pa.array(feedback.rewards),
            pa.array(feedback.costs, mask=np.isnan(feedback.costs)),
        ]
        table = pa.Table.from_arrays(columns, schema=_SCHEMA.with_metadata({_KEY: json.dumps(about).encode("ascii")}))
    except (pa.ArrowException, UnicodeError) as error:
        raise InterchangeError(f"a log must fit Arrow's columns, but: {error}. Mend its ids or its types.") from error
    with new_file(path) as temporary:
        pq.write_table(table, temporary)


def read(path: Path) -> Imported:
    """Read a file that `write` wrote, to the bit; a bad row is quarantined (what is null or ragged reads as NaN).

    Columns that Pilotage does not know are ignored.
    Raises InterchangeError: not readable, not Parquet or cut off, of another version, without a column or its type.
    """
    try:
        with pq.ParquetFile(path) as file:
            about = _about(file.schema_arrow, path)
            table = file.read(columns=_SCHEMA.names).combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise InterchangeError(f"{path} must be Parquet, whole and readable, but: {error}. Export it again.") from error
    lengths = pc.list_value_length(table["context"])
    width = pc.mode(lengths)[0]["mode"].as_py() if lengths.null_count < len(table) else 0
    rounds = Rounds(
        rows=np.arange(1, len(table) + 1),
        ids=tuple(table["id"].fill_null("").to_pylist()),
        times=_floats(table["time"]),
        contexts=_matrix(table["context"], width).astype(np.float32),
        actions=table["action"].fill_null(-1).to_numpy(),
        propensities=_floats(table["propensity"]),
        probabilities=_matrix(table["probabilities"], len(about["arms"])),
        rewards=_floats(table["reward"]),
        costs=_floats(table["cost_usd"]),
    )
    return imported(
        rounds,
        (),
        arms=tuple(about["arms"]),
        schema=about["schema"],
        missing=about["missing"],
        position=about["position"],
    )


def _lists(matrix: NDArray[Any]) -> pa.ListArray:
    """A row of lists of one length from each row, (n, m)."""
    n, m = matrix.shape
    return pa.ListArray.from_arrays(
        np.arange(n + 1, dtype=np.int32) * m, pa.array(np.ascontiguousarray(matrix).ravel())
    )


def _about(schema: pa.Schema, path: Path) -> dict[str, Any]:
    """What the metadata says of the file, once it and the columns are what this version writes."""
    try:
        about = json.loads((schema.metadata or {})[_KEY])
    except (KeyError, ValueError) as error:
        raise InterchangeError(f"{path} must be an export of Pilotage, but its metadata does not say so.") from error
    version = about.get("format") if isinstance(about, dict) else None
    if version != FORMAT:
        raise InterchangeError(
            f"{path} must have format {FORMAT}, but has {version!r:.80}; upgrade Pilotage to read it."
        )
    wrong = [name for name, kind in _ABOUT.items() if type(about.get(name)) is not kind]
    arms = [] if wrong else about["arms"]
    if wrong or not arms or not all(isinstance(arm, str) for arm in arms) or len(set(arms)) != len(arms):
        raise InterchangeError(f"{path} must name distinct arms and {', '.join(_ABOUT)}, but has {about!r:.200}.")
    for field in _SCHEMA:
        found = schema.field(field.name).type if field.name in schema.names else "none"
        if found != field.type:
            raise InterchangeError(f"{path} must have a column {field.name} of type {field.type}, but has {found}.")
    return about


def _floats(column: pa.ChunkedArray) -> Vector:
    return column.to_numpy().astype(np.float64)


def _matrix(column: pa.ChunkedArray, width: int) -> Matrix:
    """(n, width) float64, exact for float32 as well; a row of another length, or none, is NaN."""
    fits = pc.fill_null(pc.equal(pc.list_value_length(column), width), False).to_numpy().astype(np.bool_)
    matrix = np.full((len(column), width), np.nan)
    values = pc.list_flatten(column.filter(pa.array(fits))).to_numpy()
    matrix[fits] = values.reshape(int(fits.sum()), width)
    return matrix
