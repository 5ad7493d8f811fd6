"""From a snapshot's arrays back to the policy that they froze."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bandits.errors import SnapshotError
from bandits.learners.baselines import ContextFree
from bandits.learners.lifted_policy import LiftedPolicy
from bandits.learners.linear_policy import LinearPolicy
from bandits.learners.tree_policy import TreePolicy
from bandits.policy import FrozenPolicy, Policy

SIMPLE_KINDS = ("explore", "mix", "fixed")  # policies that see no context
_KINDS: Mapping[str, Callable[[FrozenPolicy], Policy]] = {
    "linear": LinearPolicy.thaw,
    "lifted": LiftedPolicy.thaw,
    "offset_tree": TreePolicy.thaw,
    **dict.fromkeys(SIMPLE_KINDS, ContextFree.thaw),
}


def thaw(frozen: FrozenPolicy) -> Policy:
    """The policy that `frozen` holds; raises SnapshotError for a kind that this version does not know."""
    try:
        thawed = _KINDS[frozen.kind]
    except KeyError:
        raise SnapshotError(
            f"a snapshot's policy must be one of {', '.join(_KINDS)}, but got {frozen.kind!r}; "
            "upgrade Pilotage, or serve an older snapshot."
        ) from None
    try:
        return thawed(frozen)
    except (KeyError, ValueError) as error:
        raise SnapshotError(f"the arrays of a {frozen.kind!r} policy must be complete, but: {error}.") from error


def rules(policy: Policy) -> str | None:
    """The policy as text, if it is of a kind that prints itself."""
    return policy.describe() if isinstance(policy, TreePolicy) else None
