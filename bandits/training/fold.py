"""The fold: passes over a log in parts. Parts are folded anywhere, in any order; their exact sums are added.

A part is a day of one scope in the warehouse, or events in memory. Each pass needs the frozen results of the ones
before it, so a pass ends before the next begins. Between passes a part lies on the disk as plain columns, since reading
the warehouse (joining outcomes, hashing ids) costs more than most passes.

Sums that were computed before are not computed again: a checkpoint is named by a hash of everything that its sums
depend on, the events and what the pass was given. The scale of the contexts moves with every new day, and with it the
features of every old one, so pass 1 is all that a new day usually finds done; a night that was cut short, or is run
again, finds every pass done that ended.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial, reduce
from hashlib import blake2b
from operator import add
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar, cast

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from bandits.config import DomainConfig
from bandits.durable import create_once, make_folder
from bandits.learners.passes import arrays_of
from bandits.learners.slab import DAY_S, Slab
from bandits.learners.sums import Days, Sums, faded, merged
from bandits.types import LoggedFeedback, Scope
from bandits.warehouse.loading import feedback_batches, opened

FORMAT = 3  # of checkpoints; part of their names, so another version's are never found
_COLUMNS = tuple(field.name for field in fields(Slab) if field.name != "phi")
PART = 2**17  # decisions of a part at least, unless told otherwise
_READ = 2 * PART  # decisions that are read at once: opening the warehouse costs as much as reading some ten thousand

S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]  # `map`, or one that maps over processes


class Pass(Protocol[S_co]):
    """Events -> sums that add. Sums of different parts are of one kind and shape."""

    def __call__(self, slab: Slab) -> S_co:
        """The sums of these events."""
        ...


class Part(Protocol):
    """Some events of a log, read anew by every pass."""

    def slabs(self) -> Iterator[Slab]:
        """The events, a slab at a time."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Events in memory."""

    slab: Slab

    def slabs(self) -> Iterator[Slab]:
        """See Part."""
        yield self.slab


@dataclass(frozen=True, slots=True)
class Logged:
    """The rounds of a scope in the warehouse that were decided in [since, until), UTC seconds since the epoch."""

    warehouse: Path
    scope: Scope
    config: DomainConfig
    now: float  # closes reward windows
    since: float | None = None
    until: float | None = None

    def batches(self) -> Iterator[LoggedFeedback]:
        """The rounds in order of the record, in bounded memory."""
        return feedback_batches(
            self.warehouse, self.scope, self.config, self.now, since=self.since, until=self.until, batch=_READ
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asked for some of a slab's events: those where that is known. Rows, ids of decisions, pseudonyms."""

    rows: list[int]
    ids: list[str]
    users: list[str]


@dataclass(frozen=True, slots=True)
class Spooled:
    """A part on the disk, as columns in .npy format one behind the other, and what is known of it."""

    path: Path
    digest: str  # of its events: the same events in the same order, the same digest
    n: int
    missing: int  # rounds that still wait for their reward
    position: int  # of the last row of the record that was read

    def slabs(self) -> Iterator[Slab]:
        """See Part."""
        for columns in _read(self.path, len(_COLUMNS)):
            yield Slab(*columns)

    def asked(self) -> Iterator[Asked]:
        """Who asked, a slab at a time, from a file beside the columns."""
        for rows, ids, users in _read(_asked_of(self.path), 3):
            yield Asked(rows.tolist(), *([text.decode() for text in column.tolist()] for column in (ids, users)))


def parts_of(log: Logged, least: int = PART) -> list[Logged]:
    """The log in parts of whole UTC days, oldest first: as many days as hold `least` decisions. A new day
    changes the last part only.
    """
    query = (
        "SELECT floor(time / ?)::BIGINT AS day, count(*) FROM decisions "
        "WHERE tenant = ? AND workspace = ? AND domain = ? GROUP BY day ORDER BY day"
    )
    scope = log.scope
    with opened(log.warehouse) as connection:
        found = connection.execute(query, [DAY_S, scope.tenant, scope.workspace, scope.domain]).fetchall()
    parts: list[Logged] = []
    held = least
    for day, decisions in found:
        if held >= least:
            parts.append(replace(log, since=day * DAY_S))
            held = 0
        parts[-1] = replace(parts[-1], until=(day + 1) * DAY_S)
        held += decisions
    return parts


def spool(part: Logged, folder: Path, crossed: bool = True) -> Spooled:
    """Read a part from the warehouse once and put what passes need into `folder`, about 5 bytes a number.

    crossed: whether folds are wanted (see Slab.of). Raises what reading raises, OSError when the disk refuses.
    """
    missing = position = 0
    name = "log" if part.since is None else f"{part.since:.0f}"
    path = folder / f"{name}.columns"

    def slabs() -> Iterator[Slab]:
        nonlocal missing, position
        with _asked_of(path).open("wb") as names:
            for batch in part.batches():
                missing, position = missing + batch.missing, max(position, batch.position)
                if len(batch):
                    _write(names, _asked(batch))
                    yield Slab.of(batch, crossed)

    digest, n = written(path, slabs())
    return Spooled(path, digest, n, missing, position)


def written(path: Path, slabs: Iterable[Slab]) -> tuple[str, int]:
    """Put events on the disk as columns: their digest and number. Raises OSError when the disk refuses."""
    hashes = [blake2b(digest_size=16) for _ in _COLUMNS]
    n = 0
    with path.open("wb") as file:
        for slab in slabs:
            n += len(slab)
            columns = [np.ascontiguousarray(getattr(slab, column)) for column in _COLUMNS]
            for values, seen in zip(columns, hashes, strict=True):
                seen.update(values.data)
            _write(file, columns)
    return blake2b(b"".join(h.digest() for h in hashes), digest_size=16).hexdigest(), n


def _asked_of(path: Path) -> Path:
    return path.with_suffix(".asked")


def _asked(batch: LoggedFeedback) -> list[NDArray[Any]]:
    """Rows, ids and pseudonyms of the rounds that somebody in particular asked for."""
    rows = [row for row, user in enumerate(batch.users) if user]
    texts = ([column[row].encode() for row in rows] for column in (batch.ids, batch.users))
    return [np.array(rows, np.int64), *(np.array(text, np.bytes_) for text in texts)]


def _write(file: BinaryIO, columns: Iterable[NDArray[Any]]) -> None:
    for values in columns:
        np.lib.format.write_array(file, values, allow_pickle=False)


def _read(path: Path, columns: int) -> Iterator[list[NDArray[Any]]]:
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        while file.tell() < end:
            yield [np.lib.format.read_array(file, allow_pickle=False) for _ in range(columns)]


def in_turn(function: Callable[[Any], Any], parts: Iterable[Any]) -> Iterable[Any]:
    """`map`, in this process."""
    return map(function, parts)


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """A log in parts, and how passes go over it.

    over: maps a function over the parts, anywhere. checkpoints: folder of sums that need not be computed again.
    """

    parts: Sequence[Part]
    over: Map = in_turn
    checkpoints: Path | None = None

    def sums(self, one: Pass[S]) -> S:
        """The sums of one pass over all parts; memory holds two sums at a time."""
        return reduce(add, self.over(partial(fold, one, checkpoints=self.checkpoints), self.parts))

    def faded(self, one: Pass[Sums], half_life_days: float | None) -> Sums:
        """The same where old days count less (see sums.faded); memory then holds the sums of every day."""
        if half_life_days is None:
            return self.sums(one)
        return faded(
            merged(self.over(partial(fold_days, one, checkpoints=self.checkpoints), self.parts)), half_life_days
        )


def fold(one: Pass[S], part: Part, checkpoints: Path | None = None) -> S:
    """The sums of a part, computed or from `checkpoints`."""
    path = _place(one, part, checkpoints, "whole")
    kept = None if path is None else load_days(path)
    if kept is not None:
        return cast(S, kept[0])
    found = reduce(add, map(one, part.slabs()))
    if path is not None and isinstance(found, Sums):
        save_days(path, {0: found})
    return found


def fold_days(one: Pass[Sums], part: Part, checkpoints: Path | None = None) -> dict[int, Sums]:
    """The sums of a part by UTC day of the event, computed or from `checkpoints`."""
    path = _place(one, part, checkpoints, "days")
    found = None if path is None else load_days(path)
    if found is None:
        found = merged(_by_day(one, slab) for slab in part.slabs())
        if path is not None:
            save_days(path, found)
    return found


def _by_day(one: Pass[Sums], slab: Slab) -> Days:
    days = slab.days()
    return {int(day): one(slab.where(np.flatnonzero(days == day))) for day in np.unique(days)}


def save_days(path: Path, days: Days) -> None:
    """Write sums to a file that is there whole or not at all; if it is there already, it stays. Raises OSError."""
    arrays = {f"{day}/{name}": np.ascontiguousarray(a) for day, sums in days.items() for name, a in sums.arrays.items()}
    make_folder(path.parent)
    create_once(path, safetensors.numpy.save(arrays, {"format": str(FORMAT)}), 0o644)


def load_days(path: Path) -> dict[int, Sums] | None:
    """The sums of a file, or None where there is none that reads: then they are computed again."""
    try:
        arrays = safetensors.numpy.load(path.read_bytes())
        os.utime(path)  # it was of use (see forget)
    except FileNotFoundError:
        return None
    except (SafetensorError, ValueError, KeyError):
        path.unlink(missing_ok=True)
        return None
    days: dict[int, dict[str, Any]] = {}
    for name, array in arrays.items():
        day, _, field = name.partition("/")
        days.setdefault(int(day), {})[field] = array
    return {day: Sums(found) for day, found in days.items()}


def forget(folder: Path, before: float) -> None:
    """Delete checkpoints that were not of use since `before`, UTC seconds since the epoch."""
    for path in folder.glob("*.safetensors"):
        if path.stat().st_mtime < before:
            path.unlink(missing_ok=True)


def _place(one: Pass[Any], part: Part, folder: Path | None, how: str) -> Path | None:
    """Where these sums are kept: the name is a hash of all that they depend on."""
    if folder is None or not isinstance(part, Spooled):
        return None
    seen = blake2b(f"{FORMAT} {type(one).__name__} {how} {part.digest}".encode(), digest_size=16)
    for name, array in arrays_of(one).items():
        seen.update(f"{name} {array.dtype} {array.shape}".encode())
        seen.update(np.ascontiguousarray(array).tobytes())
    return folder / f"{seen.hexdigest()}.safetensors"
