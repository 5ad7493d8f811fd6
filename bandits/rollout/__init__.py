"""The rollout: a new snapshot serves few users first, more when the evidence says so, and none once it fails.

What serves is said by signed orders that only ever rise (orders.py); a canary also needs a lease of a few seconds.
Who sees it is a hash (slots.py); what is known of it is a fold over the record (evidence.py); what follows is a pure
function (machine.py); every process that serves, and `pilotage watch`, acts on it (controller.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bandits.config import Config
    from bandits.keys import SigningKey
    from bandits.serving import Home
    from bandits.types import Scope


def begin(
    home: Home,
    scope: Scope,
    config: Config,
    version: str,
    *,
    previous: str | None,
    key: SigningKey,
    now: float,
    why: str,
) -> None:
    """Roll out a snapshot that was just published: see giving.begin."""
    from bandits.rollout import giving  # noqa: PLC0415  (the configuration, which it needs, imports this package)

    giving.begin(home, scope, config, version, previous=previous, key=key, now=now, why=why)
