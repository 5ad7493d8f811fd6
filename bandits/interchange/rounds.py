"""What every format has in common: rounds as columns, checked, the bad ones set aside; safe files."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bandits.durable import sync_folder
from bandits.errors import InterchangeError
from bandits.types import Actions, Context, LoggedFeedback, Mask, Matrix, Vector

FORMAT = 1  # of what Pilotage adds to a file; another is refused
TOLERANCE = 1e-9  # of the sum of a row of probabilities
_LAST = 6e10  # seconds before and after 1970 that every calendar has


class Rejected(NamedTuple):
    """A row that was not imported."""

    row: int  # line of the file, or row of the table, counted from 1
    reason: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What could be read of a file, and what could not."""

    feedback: LoggedFeedback
    quarantined: tuple[Rejected, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Rounds:
    """Columns as they stand in a file, n rounds over K arms, not yet believed."""

    rows: Actions  # (n,) where each stands in the file
    ids: tuple[str, ...]  # (n,)
    times: Vector  # (n,)
    contexts: Context  # (n, d)
    actions: Actions  # (n,)
    propensities: Vector  # (n,)
    probabilities: Matrix  # (n, K)
    rewards: Vector  # (n,)
    costs: Vector  # (n,) NaN where unknown


def of_feedback(feedback: LoggedFeedback) -> Rounds:
    """The rounds of a log, numbered from 1."""
    return Rounds(
        np.arange(1, len(feedback) + 1),
        feedback.ids,
        feedback.times,
        feedback.contexts,
        feedback.actions,
        feedback.propensities,
        feedback.probabilities,
        feedback.rewards,
        feedback.costs,
    )


def faults(rounds: Rounds) -> dict[int, str]:
    """Index of each bad round -> what must hold of it, and what it has."""
    ids, times, p, q = rounds.ids, rounds.times, rounds.propensities, rounds.probabilities
    actions, rewards, costs = rounds.actions, rounds.rewards, rounds.costs
    n, k = q.shape
    in_range = (actions >= 0) & (actions < k)
    drawn = q[np.arange(n), np.where(in_range, actions, 0)] if k else np.zeros(n)
    totals = q.sum(axis=1)
    is_distribution = (q >= 0.0).all(axis=1) & (np.abs(totals - 1.0) <= TOLERANCE)
    rules: list[tuple[Mask, Callable[[int], str]]] = [
        (_repeated(ids), lambda i: f"an id must stand once, but {ids[i]!r:.80} stands there before"),
        (np.array([not id_ for id_ in ids], np.bool_), lambda _: "an id must not be empty"),
        (~(np.abs(times) <= _LAST), lambda i: f"time must be UTC seconds since the epoch, but is {float(times[i])!r}"),
        (
            np.asarray(~np.isfinite(rounds.contexts).all(axis=1)),
            lambda i: f"context must be finite, but is {rounds.contexts[i].tolist()!r:.200}",
        ),
        (~in_range, lambda i: f"action must be in 0..{k - 1}, but is {actions[i]}"),
        (
            ~is_distribution,
            lambda i: f"probabilities must be >= 0 and sum to 1 within {TOLERANCE}, but are {q[i].tolist()!r:.200}",
        ),
        (
            ~((p > 0.0) & (p == drawn)),
            lambda i: (
                f"propensity must be > 0 and the probability of the action, {float(drawn[i])!r}, but is "
                f"{float(p[i])!r}: log what the router drew with"
            ),
        ),
        (~((rewards >= 0.0) & (rewards <= 1.0)), lambda i: f"reward must be in [0, 1], but is {float(rewards[i])!r}"),
        (
            ~(np.isnan(costs) | ((costs >= 0.0) & (costs < np.inf))),
            lambda i: f"cost must be USD >= 0, or unknown, but is {float(costs[i])!r}",
        ),
    ]
    found: dict[int, str] = {}
    for bad, reason in rules:
        for index in np.flatnonzero(bad).tolist():
            found.setdefault(index, reason(index) + ".")
    return found


def check(feedback: LoggedFeedback) -> None:
    """Raise InterchangeError unless every round of a log would be read back."""
    found = faults(of_feedback(feedback))
    if found:
        first = min(found)
        raise InterchangeError(
            f"every round must be sound to be exported, but {len(found)} are not, first round {first} of id "
            f"{feedback.ids[first]!r:.80}: {found[first]} Mend the log, or leave those rounds out with `where`."
        )


def imported(
    rounds: Rounds, before: Sequence[Rejected], *, arms: tuple[str, ...], schema: str, missing: int, position: int
) -> Imported:
    """The sound rounds as a log; the others join those that were set aside before, in order of the file."""
    bad = faults(rounds)
    rejected = [Rejected(int(rounds.rows[index]), reason) for index, reason in bad.items()]
    good = np.ones(len(rounds.ids), np.bool_)
    good[list(bad)] = False
    feedback = LoggedFeedback(
        arms=arms,
        schema=schema,
        ids=tuple(compress(rounds.ids, good.tolist())),
        times=rounds.times[good],
        contexts=rounds.contexts[good],
        actions=rounds.actions[good],
        propensities=rounds.propensities[good],
        probabilities=rounds.probabilities[good],
        rewards=rounds.rewards[good],
        costs=rounds.costs[good],
        missing=missing,
        position=position,
    )
    return Imported(feedback, tuple(sorted([*before, *rejected])))


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A path to write to, whose file stands at `path` when the block ends: whole, on the disk, or not at all.

    Raises InterchangeError where `path` is there already (before the block, too) or the disk refuses.
    """
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        if path.exists():
            raise FileExistsError
        yield temporary
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.link(temporary, path)  # unlike a rename, a link never replaces
        sync_folder(path.parent)
    except FileExistsError:
        raise InterchangeError(f"an export must not replace a file, but {path} is there; name another.") from None
    except OSError as error:
        raise InterchangeError(
            f"an export must reach the disk, but: {error}. Check the folder and its space."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _repeated(ids: Sequence[str]) -> Mask:
    """Which ids stood before."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(id_, index) != index for index, id_ in enumerate(ids)], np.bool_)
