"""What a snapshot holds of a corrected learner: its rewards bend with random features, its money is every policy's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from bandits.learners.corrected import Corrected
from bandits.learners.direct_method import Link, RewardModel
from bandits.learners.lift import Lift
from bandits.learners.linear_policy import PricedPolicy, with_levels
from bandits.policy import FrozenPolicy
from bandits.types import Context, Matrix, Vector


@dataclass(frozen=True, slots=True, eq=False)
class LiftedPolicy(PricedPolicy):
    """Scores over lifted contexts.   weights: (K, D), or (K + 1, D) where arms compete.   shift: (K, D).

    Raises ValueError for arrays that form no such model.
    """

    lift: Lift
    shift: Matrix

    def __post_init__(self) -> None:
        k, d = len(self.arms), len(self.lift.scaler.mean) + len(self.lift.phases) + 1
        if self.shift.shape != (k, d) or self.weights.shape not in ((k, d), (k + 1, d)):
            raise ValueError(
                f"weights of {k} arms over {d} features must have shape {(k, d)} or {(k + 1, d)} and shift {(k, d)}, "
                f"but got {self.weights.shape} and {self.shift.shape}"
            )

    @property
    def model(self) -> Corrected:
        """What foretells the reward."""
        link: Link = "independent" if len(self.weights) == len(self.arms) else "competing"
        return Corrected(RewardModel(link, self.weights), self.shift)

    def q_hat(self, contexts: Context, phi: Matrix) -> Matrix:
        """See PricedPolicy."""
        return self.lift.in_blocks(contexts, self.model.predict)

    def raised(self, levels: Vector) -> Self:
        """See PricedPolicy."""
        return replace(self, shift=with_levels(self.shift, levels))

    def freeze(self) -> FrozenPolicy:
        """See Policy."""
        return FrozenPolicy(
            "lifted", self.arms, self.schema, self.arrays() | self.lift.arrays() | {"shift": self.shift}
        )

    @classmethod
    def thaw(cls, frozen: FrozenPolicy) -> LiftedPolicy:
        """The policy that `freeze` froze."""
        return cls(**cls.fields_of(frozen), lift=Lift.of(frozen.arrays), shift=np.asarray(frozen.arrays["shift"]))
