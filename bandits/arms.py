"""Arms come and go: a policy that was learned for other arms than the domain has now goes on serving.

An arm that is gone is not played. A new one is on trial (policy.served): it has its share of the floor until a night
knows enough of it. What is known of the others stays what it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bandits.errors import ContextError
from bandits.policy import FrozenPolicy, Policy
from bandits.types import Context, Mask, Matrix, Vector


def fitted(policy: Policy, arms: tuple[str, ...], prices: Vector) -> Policy:
    """`policy` over `arms`, (K,): itself if these are its own.   prices: (K,) USD a request, for arms new to it.

    Raises ContextError if it knows none of them.
    """
    if policy.arms == arms:
        return policy
    columns = tuple(policy.arms.index(arm) if arm in policy.arms else -1 for arm in arms)
    if max(columns) < 0:
        raise ContextError(
            f"a policy must know one of the arms {', '.join(arms)}, but this one knows {', '.join(policy.arms)}; "
            "train again after the configuration changed."
        )
    return Fitted(policy, arms, columns, prices)


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A policy over other arms than its own.

    columns: (K,) place of each arm among the policy's own, -1 where it is new.   catalogue: (K,) USD a request.
    """

    base: Policy
    arms: tuple[str, ...]
    columns: tuple[int, ...]
    catalogue: Vector

    @property
    def schema(self) -> str:
        """See Policy."""
        return self.base.schema

    @property
    def floor(self) -> float:
        """See Policy."""
        return self.base.floor

    @property
    def prices(self) -> Vector:
        """See Policy: what the policy expects, the catalogue's where it is new."""
        return np.where(self._known, self.base.prices[list(self.columns)], self.catalogue)

    @property
    def supported(self) -> Mask:
        """See Policy. Nothing is known of a new arm."""
        return self._known & self.base.supported[list(self.columns)]

    def price(self, pressure: float = 1.0) -> float:
        """See Policy."""
        return self.base.price(pressure)

    def probabilities(self, contexts: Context, allowed: Mask, pressure: float = 1.0) -> Matrix:
        """See Policy. Where no arm is allowed that the policy knows, the first of the cheapest that are."""
        known, columns = self._known, np.array(self.columns)
        own = np.zeros((len(contexts), len(self.base.arms)), dtype=np.bool_)
        own[:, columns[known]] = allowed[:, known]
        told = own.any(axis=1)
        rows = np.zeros(allowed.shape)
        if told.any():
            found = self.base.probabilities(contexts[told], own[told], pressure)
            rows[np.ix_(told, known)] = found[:, columns[known]]
        cheapest = np.where(allowed, self.prices, np.inf).argmin(axis=1)
        rows[~told, cheapest[~told]] = 1.0
        return rows

    def freeze(self) -> FrozenPolicy:
        """See Policy: of the policy that was learned."""
        return self.base.freeze()

    @property
    def _known(self) -> Mask:
        return np.array(self.columns) >= 0
