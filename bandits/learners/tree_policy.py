"""What a snapshot holds of an offset tree: play the winner of the tournament, and keep a floor for every arm.

A tree knows which arm is better, not by how much, so it cannot weigh reward against dollars: it suits domains whose
arms are all affordable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bandits.features import NAMES
from bandits.learners.lift import Lift
from bandits.learners.offset_tree import OffsetTree
from bandits.policy import FrozenPolicy, with_floor
from bandits.types import Context, Mask, Matrix, Vector


@dataclass(frozen=True, slots=True, eq=False)
class TreePolicy:
    """A tree over lifted contexts.   supported: (K,).   prices: (K,) USD a request.   floor: shared by allowed arms."""

    arms: tuple[str, ...]
    schema: str
    lift: Lift
    tree: OffsetTree
    supported: Mask
    prices: Vector
    floor: float

    def price(self, pressure: float = 1.0) -> float:
        """See Policy. A tree has no use for a price."""
        return 0.0

    def probabilities(self, contexts: Context, allowed: Mask, pressure: float = 1.0) -> Matrix:
        """See Policy. The tournament is among the allowed arms; pressure changes nothing."""
        scores = self.lift.in_blocks(contexts, lambda phi: phi @ self.tree.weights.T)
        winners = self.tree.winners(scores, allowed)
        chosen = np.zeros(allowed.shape)
        chosen[np.arange(len(winners)), winners] = 1.0
        return with_floor(chosen, allowed, self.floor)

    def describe(self, features: Sequence[str] = (), shown: int = 3) -> str:
        """The rules as text.   features: (d,) names of the context's numbers, by default those of the schema."""
        known = NAMES.get(self.schema) or [f"x{i}" for i in range(len(self.lift.scaler.mean))]
        return self.tree.describe(self.arms, features or known, shown)

    def freeze(self) -> FrozenPolicy:
        """See Policy."""
        arrays = self.lift.arrays() | {
            "children": self.tree.children,
            "weights": self.tree.weights,
            "supported": self.supported.astype(np.uint8),
            "prices": self.prices,
            "floor": np.array([self.floor]),
        }
        return FrozenPolicy("offset_tree", self.arms, self.schema, arrays)

    @classmethod
    def thaw(cls, frozen: FrozenPolicy) -> TreePolicy:
        """The policy that `freeze` froze."""
        a = frozen.arrays
        tree = OffsetTree(a["children"], a["weights"])
        if tree.k != len(frozen.arms):
            raise ValueError(f"a tree over {tree.k} arms cannot serve the {len(frozen.arms)} arms {frozen.arms}")
        return cls(
            frozen.arms,
            frozen.schema,
            Lift.of(a),
            tree,
            a["supported"].astype(np.bool_),
            a["prices"],
            float(a["floor"][0]),
        )
