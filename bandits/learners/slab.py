"""A slab: the columns of some events that passes read, and nothing else. A log is any number of them, in any order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bandits.learners.doubly_robust import FOLDS
from bandits.learners.grid import on_grid
from bandits.learners.ridge import BLOCK
from bandits.types import Actions, Context, LoggedFeedback, Matrix, Vector

DAY_S = 86_400.0


class Features(Protocol):
    """A frozen map from contexts, (n, d), to features, (n, D) on the grid; a row's never depend on the other rows."""

    def features(self, contexts: Context) -> Matrix:
        """phi, (n, D)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Slab:
    """n events. `phi` holds their features where they are used many times over; else passes compute them."""

    times: Vector  # (n,) UTC, seconds since the epoch
    contexts: Context  # (n, d)
    actions: Actions  # (n,)
    propensities: Vector  # (n,)
    targets: Vector  # (n,) rewards, on the grid
    costs: Vector  # (n,) USD, NaN where unknown
    folds: NDArray[np.uint8]  # (n,) in 0..FOLDS-1, by hash of the decision's id; all 0 where nothing is cross-fitted
    phi: Matrix | None = None

    @classmethod
    def of(cls, batch: LoggedFeedback, crossed: bool = True) -> Slab:
        """The columns of a batch.   crossed: whether folds are wanted, which cost a hash an event."""
        folds = folds_of(batch.ids) if crossed else np.zeros(len(batch), np.uint8)
        targets = on_grid(batch.rewards, 1.0)
        return cls(batch.times, batch.contexts, batch.actions, batch.propensities, targets, batch.costs, folds)

    def __len__(self) -> int:
        return len(self.times)

    def days(self) -> NDArray[np.int64]:
        """UTC day of each event, since the epoch."""
        return np.floor_divide(self.times, DAY_S).astype(np.int64)

    def where(self, rows: NDArray[np.int64]) -> Slab:
        """The events of these rows."""
        return Slab(
            self.times[rows],
            self.contexts[rows],
            self.actions[rows],
            self.propensities[rows],
            self.targets[rows],
            self.costs[rows],
            self.folds[rows],
            None if self.phi is None else self.phi[rows],
        )

    def features(self, features: Features, rows: NDArray[np.int64]) -> Matrix:
        """phi of these rows, (m, D)."""
        return features.features(self.contexts[rows]) if self.phi is None else self.phi[rows]

    def groups(self, k: int, folds: int = FOLDS) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
        """Rows by (fold, arm), so many at a time that their features fit in the cache."""
        key = (self.folds * k + self.actions if folds > 1 else self.actions).astype(np.int16)
        order = np.argsort(key, kind="stable")
        bounds = np.searchsorted(key[order], np.arange(folds * k + 1))
        for group in range(folds * k):
            for start in range(bounds[group], bounds[group + 1], BLOCK):
                yield group // k, group % k, order[start : min(start + BLOCK, bounds[group + 1])]


def folds_of(ids: tuple[str, ...]) -> NDArray[np.uint8]:
    """`doubly_robust.fold_of` of many ids at once, (n,)."""
    digests = b"".join([blake2b(id_.encode(), digest_size=8).digest() for id_ in ids])
    return (np.frombuffer(digests, ">u8") % FOLDS).astype(np.uint8)
