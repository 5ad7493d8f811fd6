"""The record by columns: spans of positions as Arrow tables, for the warehouse.

An SQL record is read by columns, and judged by columns: what is accepted here `Record.read` would accept too. A span
in which something is not plainly sound is halved until it is short, and read row by row, so that the record itself
says which row does not read back, and why. Every other record is read row by row from the first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from bandits.errors import UnreadableRowError
from bandits.record.erasure import tombstones
from bandits.record.port import Record, Row
from bandits.record.sql import SqlRecord
from bandits.record.tables import DECISIONS, OUTCOMES, from_decision, from_outcome
from bandits.types import Context, Decision, Scope, Slot, Vector

_SHORT = 256  # rows of a span that is read row by row
_AT_ONCE = 500  # rows that are turned into columns at once: they still lie in the processor's cache
_Types = frozenset[type]
_TEXT, _INT, _BYTES = _Types([str]), _Types([int]), _Types([bytes])
_REAL, _MAYBE = _Types([float, int]), _Types([float, int, type(None)])
_COUNT = _Types([int, type(None)])
_DECISION: dict[str, _Types] = {  # columns, and what they must hold: a file keeps to no types that one could trust
    **{"position": _INT, "id": _TEXT, "time": _REAL, "tenant": _TEXT, "workspace": _TEXT, "domain": _TEXT},
    **{"schema": _TEXT, "context": _BYTES, "arms": _TEXT, "excluded": _TEXT, "probabilities": _BYTES},
    **{"action": _INT, "propensity": _REAL, "policy": _TEXT, "slot": _TEXT, "price": _REAL, "pressure": _REAL},
    **{"forced": _Types([int, bool]), "user": _TEXT, "seen": _INT},
    **{"conversation": _TEXT},
}
_OUTCOME: dict[str, _Types] = {
    **{"position": _INT, "decision_id": _TEXT, "time": _REAL, "tenant": _TEXT, "workspace": _TEXT},
    **{"domain": _TEXT, "quality": _MAYBE, "cost_usd": _MAYBE, "latency_s": _MAYBE, "vote": _Types([int, type(None)])},
    **{"source": _TEXT, "key": _TEXT, "arm": _TEXT, "result": _TEXT},
    **{"input_tokens": _COUNT, "output_tokens": _COUNT, "first_token_s": _MAYBE},
}
_NEAR_1 = 0.999e-9  # probabilities may sum to 1 within 1e-9; what comes near that is left to the exact rule

_Columns = dict[str, Sequence[Any]]
_Where = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Span:
    """A span of positions that ends at `last`: its rows by columns, and those that do not read back."""

    last: int
    decisions: dict[int, pa.Table] = field(default_factory=dict)  # by length of context
    outcomes: pa.Table | None = None
    bad: list[tuple[int, str]] = field(default_factory=list)  # position and reason

    @property
    def rows(self) -> int:
        """Number of rows that read back."""
        decisions = sum(table.num_rows for table in self.decisions.values())
        return decisions + (0 if self.outcomes is None else self.outcomes.num_rows)


class _DoubtfulError(ValueError):
    """Something is not plainly sound; nobody outside hears of it."""


def spans(record: Record, after: int, limit: int) -> Iterator[Span]:
    """All that `record` holds at positions after+1 .. after+limit, in spans that follow each other.

    Tables have the columns of the warehouse, rows of one scope together and in order of position. A position at which
    the record holds nothing, not even a tombstone, counts as a row that does not read back.
    """
    last = min(after + limit, record.head())
    if last <= after:
        return
    if isinstance(record, SqlRecord):
        found = _by_columns(record, after, last)
        if found is not None:
            yield found
            return
        if last - after > _SHORT:
            middle = (after + last) // 2
            yield from spans(record, after, middle - after)
            yield from spans(record, middle, last - middle)
            return
    yield _by_rows(record, after, last)


def _by_columns(record: SqlRecord, after: int, last: int) -> Span | None:
    """The span, or None if something in it must be looked at row by row."""
    try:
        with record.reading() as connection:
            decisions = _selected(connection, DECISIONS, _DECISION, after, last)
            outcomes = _selected(connection, OUTCOMES, _OUTCOME, after, last)
            erased = len(tombstones(connection, after, last))
        if len(decisions["position"]) + len(outcomes["position"]) + erased != last - after:
            return None
        return Span(last, _decisions(decisions, judge=True), _outcomes(outcomes, judge=True))
    except (ValueError, TypeError, AttributeError, OverflowError, pa.ArrowException):
        return None


def _selected(connection: Connection, table: sa.Table, columns: dict[str, _Types], after: int, last: int) -> _Columns:
    """Columns as the driver gives them: SQLAlchemy's rows would cost more than all else."""
    query = sa.select(*(table.c[name] for name in columns)).order_by(table.c.position)
    found = connection.execute(query.where(table.c.position > after, table.c.position <= last))
    read: list[list[Any]] = [[] for _ in columns]
    try:
        while rows := found.cursor.fetchmany(_AT_ONCE):
            for column, values in zip(read, zip(*rows, strict=True), strict=True):
                column.extend(values)
    except connection.dialect.loaded_dbapi.Error as error:  # a text that is no UTF-8
        raise _DoubtfulError from error
    finally:
        found.close()
    return dict(zip(columns, read, strict=True))


def _by_rows(record: Record, after: int, last: int) -> Span:
    rows: list[Row] = []
    bad: dict[int, str] = {}
    start = after
    while start < last:
        try:
            rows += record.read(start, last - start)
            start = last
        except UnreadableRowError as error:
            rows += record.read(start, error.position - start - 1)
            bad[error.position] = str(error)
            start = error.position
    gone = set(range(after + 1, last + 1)) - {row.position for row in rows} - bad.keys() - record.erased(after, last)
    bad |= dict.fromkeys(gone, "the record must hold a row at every position, but holds none here.")
    decisions = [(at, *from_decision(entry)) for at, entry in rows if isinstance(entry, Decision)]
    outcomes = [(at, *from_outcome(entry)) for at, entry in rows if not isinstance(entry, Decision)]
    return Span(
        last,
        _decisions(_by_name(_DECISION, decisions), judge=False),
        _outcomes(_by_name(_OUTCOME, outcomes), judge=False),
        sorted(bad.items()),
    )


def _by_name(names: dict[str, _Types], rows: Sequence[tuple[Any, ...]]) -> _Columns:
    return dict(zip(names, zip(*rows, strict=True) if rows else ((),) * len(names), strict=True))


def _decisions(columns: _Columns, *, judge: bool) -> dict[int, pa.Table]:
    """Tables of decisions by length of context. judge: raise unless Decision and the record would take each row."""
    n = len(columns["position"])
    if not n:
        return {}
    if judge:
        _check_types(columns, _DECISION)
    texts = {name: _encoded(columns[name]) for name in ("tenant", "workspace", "domain", "schema", "policy", "slot")}
    scopes = _scopes(texts)
    lists, names = _arms(columns["arms"])
    k = np.array([len(each) for each in names])[lists.indices]
    starts = np.cumsum(k) - k
    flat = np.frombuffer(b"".join(columns["probabilities"]), "<f8")
    action, propensity = np.array(columns["action"], np.int64), np.array(columns["propensity"], np.float64)
    if judge:
        _check_draws(columns["probabilities"], k, flat, starts, action, propensity)
        _sure(set(texts["slot"].dictionary.to_pylist()) <= set(Slot))
        _sure(set(columns["forced"]) <= {0, 1})
        _check_numbers(columns, "time", "price", "pressure")
        _check_text(
            columns["id"],
            columns["user"],
            columns["conversation"],
            *(each.dictionary.to_pylist() for each in texts.values()),
        )
    first = np.cumsum([0, *map(len, names)])[lists.indices]
    everything = pa.array([name for each in names for name in each])
    known = {
        **texts,
        "arms": lists,
        "excluded": _excluded(columns["excluded"]),
        "probabilities": pa.ListArray.from_arrays(pa.array(np.append(starts, len(flat)), pa.int32()), pa.array(flat)),
        "action": pa.array(action, pa.int32()),
        "arm": everything.take(pa.array(first + action)),
        "propensity": pa.array(propensity),
        "forced": pa.array(np.array(columns["forced"], np.bool_)),
    }
    types = {"position": pa.int64(), "seen": pa.int64()}
    types |= {name: pa.string() for name in ("id", "user", "conversation")}
    for name in _DECISION.keys() - known.keys() - {"context"}:
        known[name] = pa.array(columns[name], types.get(name, pa.float64()))
    return _by_width(pa.table(known), columns["context"], scopes, judge=judge)


def _by_width(table: pa.Table, contexts: Sequence[bytes], scopes: _Where, *, judge: bool) -> dict[int, pa.Table]:
    lengths = np.fromiter(map(len, contexts), np.int64, len(contexts))
    found: dict[int, pa.Table] = {}
    for length in np.unique(lengths).tolist():
        here = np.flatnonzero(lengths == length)
        order = here[np.argsort(scopes[here], kind="stable")]
        whole = len(here) == len(contexts)
        joined = b"".join(contexts if whole else [contexts[i] for i in here.tolist()])
        matrix: Context = np.frombuffer(joined, "<f4").reshape(len(here), length // 4)  # raises where 4 bytes are cut
        if judge:
            _sure(bool(np.isfinite(matrix).all()))
        if not whole or (np.diff(order) < 0).any():
            table_here, matrix = table.take(pa.array(order)), matrix[np.searchsorted(here, order)]
        else:
            table_here = table
        found[length // 4] = table_here.append_column("context", _vectors(matrix))
    return found


def _vectors(matrix: Context) -> pa.Array:
    n, d = matrix.shape
    if d == 0:  # Arrow and DuckDB know no array of length 0
        return pa.ListArray.from_arrays(pa.array(np.zeros(n + 1, np.int32)), pa.array([], pa.float32()))
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), d)


def _outcomes(columns: _Columns, *, judge: bool) -> pa.Table | None:
    """The table of outcomes. judge: raise unless Outcome and the record would take each row."""
    if not len(columns["position"]):
        return None
    if judge:
        _check_types(columns, _OUTCOME)
    known = {name: _encoded(columns[name]) for name in ("tenant", "workspace", "domain", "source", "arm", "result")}
    scopes = _scopes(known)
    types = {"vote": pa.int8(), "decision_id": pa.string(), "key": pa.string()}
    types |= {name: pa.int64() for name in ("position", "input_tokens", "output_tokens")}
    for name in _OUTCOME.keys() - known.keys():
        known[name] = pa.array(columns[name], types.get(name, pa.float64()))
    if judge:
        _check_measured(*(known[name] for name in ("quality", "cost_usd", "latency_s", "vote")))
        _check_amounts(*(known[name] for name in ("input_tokens", "output_tokens", "first_token_s")))
        _check_numbers(columns, "time")
        texts = (known[name].dictionary.to_pylist() for name in ("source", "arm", "result"))
        _check_text(columns["decision_id"], columns["key"], *texts)
    table = pa.table(known)
    order = np.argsort(scopes, kind="stable")
    return table.take(pa.array(order)) if (np.diff(order) < 0).any() else table


def _encoded(texts: Sequence[str]) -> pa.DictionaryArray:
    return pa.array(texts, pa.string()).dictionary_encode()


def _scopes(texts: dict[str, pa.DictionaryArray]) -> _Where:
    """A number for the scope of each row, (n,); raises InvalidNameError."""
    tenant, workspace, domain = (texts[name] for name in ("tenant", "workspace", "domain"))
    found = tenant.indices.to_numpy().astype(np.int64)
    for part in (workspace, domain):
        found = found * len(part.dictionary) + part.indices.to_numpy()
    for at in np.unique(found, return_index=True)[1].tolist():
        Scope(tenant[at].as_py(), workspace[at].as_py(), domain[at].as_py())
    return found


def _arms(texts: Sequence[str]) -> tuple[pa.DictionaryArray, list[list[str]]]:
    """JSON lists of arms, each distinct one once, and what they say."""
    encoded = _encoded(texts)
    names = [json.loads(text) for text in encoded.dictionary.to_pylist()]
    for each in names:
        _sure(isinstance(each, list) and all(type(name) is str for name in each) and len(set(each)) == len(each) > 0)
        _check_text(each)
    return _again(encoded, names), names


def _excluded(texts: Sequence[str]) -> pa.DictionaryArray:
    encoded = _encoded(texts)
    reasons = [json.loads(text) for text in encoded.dictionary.to_pylist()]
    for each in reasons:
        _sure(isinstance(each, dict) and all(type(reason) is str for reason in each.values()))
        _check_text(each, each.values())
    return _again(encoded, reasons)


def _again(encoded: pa.DictionaryArray, values: Sequence[object]) -> pa.DictionaryArray:
    """The same values, as the record itself writes them."""
    return pa.DictionaryArray.from_arrays(encoded.indices, pa.array([json.dumps(value) for value in values]))


def _sure(sound: bool) -> None:
    if not sound:
        raise _DoubtfulError


def _check_types(columns: _Columns, allowed: dict[str, _Types]) -> None:
    _sure(all(set(map(type, columns[name])) <= types for name, types in allowed.items()))


def _check_text(*columns: Any) -> None:  # noqa: ANN401 - any iterables of str
    for texts in columns:
        joined = "".join(texts)
        _sure("\0" not in joined)
        joined.encode()  # raises UnicodeEncodeError for half a surrogate pair


def _check_numbers(columns: _Columns, *names: str) -> None:
    _sure(all(bool(np.isfinite(np.array(columns[name], np.float64)).all()) for name in names))


def _check_draws(
    blobs: Sequence[bytes], k: _Where, flat: Vector, starts: _Where, action: _Where, propensity: Vector
) -> None:
    _sure(bool((np.fromiter(map(len, blobs), np.int64, len(blobs)) == 8 * k).all()))
    _sure(bool(((action >= 0) & (action < k)).all()))
    _sure(bool((np.abs(np.add.reduceat(flat, starts) - 1.0) <= _NEAR_1).all() and (flat >= 0.0).all()))
    _sure(bool(((propensity > 0.0) & (propensity == flat[starts + action])).all()))


def _check_measured(quality: pa.Array, cost: pa.Array, latency: pa.Array, vote: pa.Array) -> None:
    said = [each.is_valid().to_numpy(zero_copy_only=False) for each in (quality, cost, latency, vote)]
    _sure(bool(np.logical_or.reduce(said).all()))
    measured, votes = (each.drop_null().to_numpy() for each in (quality, vote))
    _sure(bool(((measured >= 0.0) & (measured <= 1.0)).all()))
    _check_amounts(cost, latency)
    _sure(bool(np.isin(votes, (-1, 1)).all()))


def _check_amounts(*columns: pa.Array) -> None:
    amounts = (each.drop_null().to_numpy() for each in columns)
    _sure(all(bool((np.isfinite(each) & (each >= 0.0)).all()) for each in amounts))
