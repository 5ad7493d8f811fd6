"""Assignment: which variant of an experiment a unit sees. A hash, so that every process gives the same answer for ever.

A unit (a user, say) has two places on [0, 1) in an experiment, by a keyed BLAKE2b of the experiment's seed. The first
says whether the unit takes part: it does while its place is below the exposed share, so a ramp of 5, 20, 50, 100 % only
ever adds units. The second says which variant it sees: a ramp moves nobody from one variant to another. Seeds differ,
so experiments are independent; to begin an experiment anew, give it a new seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate

from bandits.errors import ExperimentError

BUCKETS = 10_000  # a share is known to 1 / BUCKETS


@dataclass(frozen=True, slots=True)
class Experiment:
    """Variants and how units are spread over them. Nothing of it may change while it runs, but `exposed` may grow."""

    seed: str  # unique to this run of the experiment
    variants: tuple[str, ...]
    shares: tuple[float, ...]  # of those who take part, one a variant, sum 1
    exposed: float = 1.0  # share of all units that take part

    def __post_init__(self) -> None:
        if not self.seed:
            raise ExperimentError("an experiment must have a seed, but got ''; its name and start date will do.")
        if len(set(self.variants)) != len(self.variants) or len(self.variants) != len(self.shares):
            raise ExperimentError(
                f"variants must have different names and one share each, but got {self.variants} and {self.shares}."
            )
        if not (all(share > 0.0 for share in self.shares) and math.isclose(math.fsum(self.shares), 1.0, abs_tol=1e-9)):
            raise ExperimentError(f"shares must be > 0 and sum to 1, but got {self.shares}.")
        if not 0.0 <= self.exposed <= 1.0:
            raise ExperimentError(f"exposed must be in [0, 1], but got {self.exposed!r}; 0.05 is 5 %.")


def variant(experiment: Experiment, unit: str) -> str | None:
    """The variant that `unit` sees, None if it takes no part."""
    if bucket(experiment.seed, unit, "exposed") >= _places(experiment.exposed):
        return None
    place = bucket(experiment.seed, unit, "variant")
    ends = [_places(end) for end in accumulate(experiment.shares)][:-1]
    return experiment.variants[sum(place >= end for end in ends)]


def bucket(seed: str, unit: str, purpose: str = "exposed") -> int:
    """Place of `unit`, in 0 .. BUCKETS - 1, uniform over units and independent across seeds and purposes."""
    key = blake2b(seed.encode(), digest_size=32).digest()
    digest = blake2b(unit.encode(), digest_size=8, key=key, person=purpose.encode()).digest()
    return int.from_bytes(digest, "big") * BUCKETS >> 64


def _places(share: float) -> int:
    return round(share * BUCKETS)
