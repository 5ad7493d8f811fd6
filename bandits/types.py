"""The nouns. Read this file first; every other room speaks in these words."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import compress
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bandits.errors import InvalidNameError, PropensityError, ShapeError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Context = NDArray[np.float32]  # (d,), or (n, d) for many
Actions = NDArray[np.int64]
Mask = NDArray[np.bool_]

FAILED = "failed:"  # begins the result of an attempt that did not answer
SIGNALS = ("reask", "regenerate")  # sources of what people do, not say: asking the same again, wanting another answer
JUDGE = "(judge)"  # in the place of an arm: what judging an answer cost, which is no arm's own
_AMOUNTS = ("cost_usd", "latency_s", "input_tokens", "output_tokens", "first_token_s")
_HEX = re.compile(r"[0-9a-f]{12}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def valid_name(name: str, what: str) -> str:
    """Return `name` if it can be a key in SQL, in a path and in a URL alike; raise InvalidNameError otherwise."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        shown = repr(name) if len(str(name)) <= 70 else f"{str(name)[:60]!r}… ({len(str(name))} characters)"
        raise InvalidNameError(
            f"{what} must be 1 to 63 of a-z, 0-9, '_' and '-', starting with a letter or digit, but got {shown}."
        )
    return name


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """(tenant, workspace, domain): the key of every policy and of every row."""

    tenant: str
    workspace: str
    domain: str

    def __post_init__(self) -> None:
        valid_name(self.tenant, "tenant")
        valid_name(self.workspace, "workspace")
        valid_name(self.domain, "domain")

    def __str__(self) -> str:
        return f"{self.tenant}/{self.workspace}/{self.domain}"

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Read "tenant/workspace/domain"."""
        parts = text.split("/")
        if len(parts) != 3:
            raise InvalidNameError(f"scope must be tenant/workspace/domain, but got {text!r}.")
        return cls(*parts)


class Slot(StrEnum):
    """Which policy of a scope acted."""

    STABLE = "stable"
    CANARY = "canary"
    SHADOW = "shadow"
    HOLDBACK = "holdback"
    EXPERIMENT = "experiment"


def new_id(time: float, noise: bytes | None = None) -> str:
    """A decision id: 48 bits of UTC milliseconds, then 80 random bits (`noise`), so that ids sort by time."""
    milliseconds = int(time * 1000) & (2**48 - 1)
    return f"{milliseconds:012x}{(noise or os.urandom(10)).hex()}"


def time_of(decision_id: str) -> float | None:
    """When an id of `new_id` was made: UTC, seconds since the epoch, in whole milliseconds; None for another id."""
    head = decision_id[:12]
    return int(head, 16) / 1000.0 if len(decision_id) >= 32 and _HEX.fullmatch(head) else None


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """One draw, exactly as it was made. Arms with probability 0 stand in `excluded` with their reason."""

    id: str
    time: float  # UTC, seconds since the epoch
    scope: Scope
    schema: str  # name and version of the features, e.g. "text-1"
    context: Context  # (d,)
    arms: tuple[str, ...]  # K names; actions index them
    excluded: Mapping[str, str]  # arm -> why it could not be drawn
    probabilities: Vector  # (K,), sums to 1
    action: int
    propensity: float  # probabilities[action], in (0, 1]
    policy: str  # version of the snapshot that acted, or the name of a built-in policy
    slot: Slot = Slot.STABLE
    price: float = 0.0  # reward that a dollar had to earn (lambda) at this decision
    pressure: float = 1.0  # what the budget was divided by when deciding (see money/budget.py)
    forced: bool = False  # a forced decision is never learned from
    user: str = ""  # pseudonym of whoever asked; "" where nobody in particular did
    seen: int = 0  # position of the record that the policy had learned up to, behind its snapshot's; 0: none
    conversation: str = ""  # pseudonym of the conversation that it was made for; "" for a single request

    def __post_init__(self) -> None:
        k = len(self.arms)
        if self.probabilities.shape != (k,):
            raise ShapeError(
                f"probabilities must have shape (k={k},) to match arms, but got {self.probabilities.shape} "
                f"in decision {self.id}."
            )
        if not 0 <= self.action < k:
            raise ShapeError(f"action must be in 0..{k - 1}, but got {self.action} in decision {self.id}.")
        row = self.probabilities.tolist()
        if not (abs(sum(row) - 1.0) <= 1e-9 and min(row) >= 0.0):
            raise PropensityError(
                f"probabilities must be >= 0 and sum to 1 within 1e-9, but sum to {sum(row)!r} in decision {self.id}; "
                "log the distribution that was drawn from."
            )
        if not (self.propensity > 0.0 and self.propensity == row[self.action]):
            raise PropensityError(
                f"propensity must be > 0 and equal probabilities[action], but got {self.propensity!r} in decision "
                f"{self.id}; log the probability that the router drew with."
            )

    @property
    def arm(self) -> str:
        """Name of the action."""
        return self.arms[self.action]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Something that came back for a decision. What is None was not measured: missing is not zero."""

    decision_id: str
    time: float  # UTC, seconds since the epoch
    scope: Scope  # of whoever reports it; must be the decision's own
    quality: float | None = None  # [0, 1]
    cost_usd: float | None = None  # >= 0
    latency_s: float | None = None  # >= 0
    vote: Literal[-1, 1] | None = None
    source: str = "app"  # who says so: replay, judge, user, app; one of SIGNALS says that it happened, and no more
    key: str = ""  # names the event: a second outcome of the decision with this key is the same one; "" never is
    arm: str = ""  # the arm that it tells of, where another one answered than was drawn; "": the one drawn
    result: str = ""  # of an attempt to answer: why the model finished ("stop", "length", …), or "failed:" and why
    input_tokens: int | None = None
    output_tokens: int | None = None
    first_token_s: float | None = None  # >= 0, from asking until the first token came

    def __post_init__(self) -> None:
        measures = (self.quality, self.cost_usd, self.latency_s, self.vote)
        if measures == (None, None, None, None) and self.source not in SIGNALS:
            raise ShapeError(f"an outcome must carry quality, cost, latency or vote, but {self.decision_id} has none.")
        if self.quality is not None and not 0.0 <= self.quality <= 1.0:
            raise ShapeError(f"quality must be in [0, 1], but got {self.quality!r} for decision {self.decision_id}.")
        for name in _AMOUNTS:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0.0):
                raise ShapeError(f"{name} must be finite and >= 0, but got {value!r} for {self.decision_id}.")
        if self.vote is not None and self.vote not in (-1, 1):
            raise ShapeError(f"vote must be 1 or -1, but got {self.vote!r} for decision {self.decision_id}.")

    @property
    def failed(self) -> bool:
        """Whether it tells of an attempt that did not answer."""
        return self.result.startswith(FAILED)


Entry: TypeAlias = Decision | Outcome  # what the record holds


@dataclass(frozen=True, slots=True, eq=False)
class LoggedFeedback:
    """The log of one scope as learners and estimators read it: n rounds over K arms, in order of the record.

    Only decisions that were drawn (not forced) and whose reward is known are here; `missing` counts those whose
    reward is not, so that nobody mistakes silence for zero.
    """

    arms: tuple[str, ...]
    schema: str
    ids: tuple[str, ...]  # (n,)
    times: Vector  # (n,) UTC, seconds since the epoch
    contexts: Context  # (n, d)
    actions: Actions  # (n,) in 0..K-1
    propensities: Vector  # (n,) in (0, 1]
    probabilities: Matrix  # (n, K); 0 where the arm was not allowed
    rewards: Vector  # (n,) in [0, 1]
    costs: Vector  # (n,) USD, NaN where unknown
    missing: int = 0
    position: int = 0  # of the last row of the record that was read
    users: tuple[str, ...] = ()  # (n,) pseudonyms, "" of nobody in particular; () where nobody knows who asked

    def __post_init__(self) -> None:
        n, k = len(self.ids), len(self.arms)
        wanted = {
            "times": (n,),
            "contexts": (n, self.contexts.shape[-1]),
            "actions": (n,),
            "propensities": (n,),
            "probabilities": (n, k),
            "rewards": (n,),
            "costs": (n,),
        }
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise ShapeError(f"{name} must have shape {shape}, but got {getattr(self, name).shape}.")
        if self.users and len(self.users) != n:
            raise ShapeError(f"users must be one for each of {n} rounds, or none, but got {len(self.users)}.")
        bad = np.flatnonzero(~(self.propensities > 0.0))
        if bad.size:
            raise PropensityError(
                f"propensity must be > 0, but got {self.propensities[bad[0]]!r} at rows {bad[:5].tolist()}; "
                "log the probability that the router drew with."
            )
        bad = np.flatnonzero(~(self.propensities <= 1.0 + 1e-9))
        if bad.size:
            raise PropensityError(
                f"propensity must be at most 1, but got {self.propensities[bad[0]]!r} at rows {bad[:5].tolist()}."
            )
        bad = np.flatnonzero((self.actions < 0) | (self.actions >= k))
        if bad.size:
            raise ShapeError(f"action must be in 0..{k - 1}, but got {self.actions[bad[0]]} at {bad[:5].tolist()}.")
        bad = np.flatnonzero(~((self.rewards >= 0.0) & (self.rewards <= 1.0)))
        if bad.size:
            raise ShapeError(f"reward must be in [0, 1], but got {self.rewards[bad[0]]!r} at rows {bad[:5].tolist()}.")

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, rows: Mask) -> LoggedFeedback:
        """The rounds that the mask, (n,), picks."""
        return replace(
            self,
            ids=tuple(compress(self.ids, rows.tolist())),
            users=tuple(compress(self.users, rows.tolist())),
            times=self.times[rows],
            contexts=self.contexts[rows],
            actions=self.actions[rows],
            propensities=self.propensities[rows],
            probabilities=self.probabilities[rows],
            rewards=self.rewards[rows],
            costs=self.costs[rows],
        )

    @property
    def k(self) -> int:
        """Number of arms."""
        return len(self.arms)
