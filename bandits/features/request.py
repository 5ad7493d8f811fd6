"""What is known when a decision is asked for, and how its text is read: case and whitespace are folded away first."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cached_property
from typing import Literal


@dataclass(frozen=True, slots=True)
class Turn:
    """Something said before.   time: UTC, seconds since the epoch; None: unknown."""

    role: Literal["user", "assistant"]
    text: str
    time: float | None = None


@dataclass(frozen=True, slots=True)
class Asker:
    """What is known of whoever asks, from their earlier requests of this domain; no name, no id.

    requests: how many.   mean_reward: [0, 1]; None: no reward yet.   favourite_share: [0, 1], of the arm that they were
    answered by most.   days: since the first.
    """

    requests: int
    mean_reward: float | None = None
    favourite_share: float = 0.0
    days: float = 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and what is known around it.   time: UTC, seconds since the epoch; None: unknown."""

    text: str
    conversation: tuple[Turn, ...] = ()  # oldest first, without the prompt itself
    time: float | None = None
    asker: Asker | None = None


@dataclass(frozen=True)
class Reading:
    """A request whose prompt is read once for all groups of features."""

    request: Request

    @cached_property
    def text(self) -> str:
        """The prompt, folded."""
        return fold(self.request.text)

    @cached_property
    def words(self) -> list[str]:
        """What stands between the blanks of the folded prompt."""
        return self.text.split()


def fold(text: str) -> str:
    """`text` without case, compatibility forms, and whitespace but single blanks.

    Whatever is computed from this alone is the same to the last bit however a prompt was capitalised, indented or
    wrapped: no choice can flip on it.
    """
    return " ".join(_nfkc(_nfkc(text).casefold()).split())


def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)
