"""Asking the same model once more: when that helps, after which pause, and how often at most over all requests.

One loop for all retries, one budget for all of them: adapters never ask again by themselves. Where every layer tries
three times, a provider in trouble gets nine times the load.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np

from gateway.adapter import Failure

# What may be over in a moment. A timeout has had its time already, and what is refused would be refused again.
PASSING: frozenset[Failure] = frozenset({"refused", "server", "cut", "malformed", "rate_limited"})
_LONGEST_PAUSE_S = 2.0  # a longer wait is another model's chance
_SAVED = 10.0  # retries that quiet times may save up


@dataclass(slots=True)
class RetryBudget:
    """A token bucket: each request pays in `share`, each retry takes 1. So retries <= share of requests, always."""

    share: float
    _saved: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def requested(self) -> None:
        """Count a request."""
        with self._lock:
            self._saved = min(self._saved + self.share, _SAVED)

    def take(self) -> bool:
        """Whether a retry is allowed; if so, it is counted."""
        with self._lock:
            allowed = self._saved >= 1.0 - 1e-9  # ten tenths are one
            self._saved -= allowed
            return allowed


def pause(
    kind: Failure, retry_after_s: float | None, tried: int, backoff_s: float, rng: np.random.Generator
) -> float | None:
    """Seconds to wait before the same model is asked again; None where that would not help.

    tried: how often it was asked.   A provider's own wish is obeyed where it is short; else the pause is drawn evenly
    from 0 to twice its mean (full jitter), so that those who failed together do not come back together.
    """
    if kind not in PASSING:
        return None
    if kind == "rate_limited":
        return retry_after_s if retry_after_s is not None and retry_after_s <= _LONGEST_PAUSE_S else None
    return min(float(rng.uniform(0.0, 2.0 * backoff_s * 2.0 ** (tried - 1))), _LONGEST_PAUSE_S)
