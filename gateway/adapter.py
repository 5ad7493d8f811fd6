"""The port to a language model: what goes in, what comes back, how it fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bandits.errors import PilotageError


class GatewayError(PilotageError):
    """A model did not answer. `cost_usd` is what the attempt cost all the same."""

    def __init__(self, message: str, cost_usd: float = 0.0) -> None:
        super().__init__(message)
        self.cost_usd = cost_usd


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered, and what that took. quality: [0, 1] where a judge has spoken already, else None."""

    text: str
    model: str
    cost_usd: float
    latency_s: float
    quality: float | None = None


class Adapter(Protocol):
    """One provider of models."""

    def complete(self, model: str, prompt: str) -> Reply:
        """The reply of `model` to `prompt`; raises GatewayError, never returns an empty success."""
