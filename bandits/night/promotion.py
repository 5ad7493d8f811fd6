"""Before a snapshot is published: is it one that servers can serve? And the card on which a person reads what changes.

Each check is a small function of a candidate; one that raises has failed. A candidate that fails any is not published,
and what serves goes on serving.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bandits.config import DomainConfig
from bandits.errors import PilotageError
from bandits.features import width
from bandits.home import Home
from bandits.learners.frozen import thaw
from bandits.policy import FrozenPolicy, served
from bandits.snapshots.keys import SigningKey, signer_of, trusted_keys
from bandits.snapshots.loading import load
from bandits.snapshots.manifest import content_hash
from bandits.snapshots.publishing import publish
from bandits.types import Context, Matrix, Scope

PROBES = 64  # contexts of the log that are asked
SLOWEST_S = 0.1  # the median decision on one of them may take
ROOM = 20  # snapshots of its size that the disk must have room for, and at least
LEAST_ROOM = 16 * 2**20  # bytes
_TOLERANCE = 1e-9
_TIMED = 21  # decisions


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """What is about to be published, where, and for whom.   contexts: (n, d), of the log."""

    frozen: FrozenPolicy
    scope: Scope
    domain: DomainConfig
    home: Home
    key: SigningKey
    contexts: Context

    def probes(self) -> Context:
        """Contexts to ask: some of the log, and the ends of what may come."""
        spread = np.linspace(0, max(len(self.contexts) - 1, 0), min(PROBES, len(self.contexts))).astype(np.int64)
        d = width(self.domain.features)
        ends = np.stack([np.full(d, value, np.float32) for value in (0.0, 1e3, -1e3)])
        return np.concatenate([self.contexts[spread], ends]) if len(self.contexts) else ends

    def answers(self) -> Matrix:
        """Probabilities, (m, K), as they would be drawn from where every arm is allowed."""
        probes = self.probes()
        return served(thaw(self.frozen), probes, np.ones((len(probes), len(self.frozen.arms)), np.bool_))


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    ok: bool
    found: str  # a sentence

    def render(self) -> str:
        """One line of a list."""
        return f"- {'ok' if self.ok else '**FAILED**'} {self.name}: {self.found}"


def schema(candidate: Candidate) -> str:
    """Its features and arms are those that the domain has."""
    frozen, domain = candidate.frozen, candidate.domain
    _hold(frozen.schema == domain.features, f"features must be {domain.features!r}, but are {frozen.schema!r}")
    known = set(frozen.arms) & set(domain.arm_names)
    _hold(
        bool(known), f"it must know one of the arms {', '.join(domain.arm_names)}, but knows {', '.join(frozen.arms)}"
    )
    return f"{len(known)} of {len(domain.arms)} arms over {frozen.schema}"


def loads(candidate: Candidate) -> str:
    """Signed, written and read back by a reader's own code, it is the same, bit for bit."""
    with tempfile.TemporaryDirectory(dir=_folder(candidate.home), prefix=".validating-") as folder:
        now, trusted = time.time(), trusted_keys(candidate.home.root)
        publish(
            Path(folder),
            candidate.scope,
            candidate.frozen,
            position=0,
            parent=None,
            evidence={},
            created=now,
            expires=now + 3600.0,
            key=candidate.key,
        )
        found = load(Path(folder), candidate.scope, trusted=trusted, now=now)
    again = content_hash(found.frozen.arrays)
    _hold(again == content_hash(candidate.frozen.arrays), "it must read back as it was written, but does not")
    return f"reads back as {again[:12]}"


def probes(candidate: Candidate) -> str:
    """Asked twice, it gives the same finite distributions."""
    first, second = candidate.answers(), candidate.answers()
    _hold(bool(np.isfinite(first).all()), "every probability must be finite, but one is not")
    off = float(np.abs(first.sum(axis=1) - 1.0).max())
    _hold(off <= _TOLERANCE, f"rows must sum to 1, but one is off by {off:.3g}")
    _hold(float(first.min()) >= 0.0, f"probabilities must be >= 0, but one is {float(first.min()):.3g}")
    _hold(first.tobytes() == second.tobytes(), "it must answer the same twice, but does not")
    return f"{len(first)} contexts answered, twice the same"


def latency(candidate: Candidate) -> str:
    """One decision is quick."""
    policy, context = thaw(candidate.frozen), candidate.probes()[:1]
    allowed, taken = np.ones((1, len(candidate.frozen.arms)), np.bool_), []
    for _ in range(_TIMED):
        begun = time.perf_counter()
        served(policy, context, allowed)
        taken.append(time.perf_counter() - begun)
    median = statistics.median(taken)
    _hold(
        median <= SLOWEST_S, f"a decision must take {1e3 * SLOWEST_S:.0f} ms at most, but takes {1e3 * median:.0f} ms"
    )
    return f"{1e3 * median:.2f} ms a decision"


def floor(candidate: Candidate) -> str:
    """Every allowed arm keeps its share of the floor, and that is no less than the domain's."""
    answers, least = candidate.answers(), candidate.domain.floor / len(candidate.frozen.arms)
    found = float(answers.min())
    _hold(found >= least - _TOLERANCE, f"no arm may fall below {least:.4g}, but one is played with {found:.4g}")
    return f"no arm below {found:.4g}, of {least:.4g} that must be kept"


def disk(candidate: Candidate) -> str:
    """There is room for it, and for what the record grows by meanwhile."""
    size = sum(array.nbytes for array in candidate.frozen.arrays.values())
    wanted, free = max(ROOM * size, LEAST_ROOM), shutil.disk_usage(_folder(candidate.home)).free
    _hold(free >= wanted, f"{wanted / 2**20:.0f} MiB must be free at {candidate.home.root}, but {free / 2**20:.0f} are")
    return f"{free / 2**30:.1f} GiB free, {size / 2**10:.0f} KiB wanted"


def keys(candidate: Candidate) -> str:
    """Readers of this home trust the key that will sign it."""
    message = b"pilotage promotion"
    signer = signer_of(message, candidate.key.sign(message), trusted_keys(candidate.home.root))
    _hold(signer == candidate.key.id, f"key {candidate.key.id} must be trusted in keys/*.pub, but is not")
    return f"key {candidate.key.id} is trusted"


CHECKS: Mapping[str, Callable[[Candidate], str]] = {
    "schema": schema,
    "keys": keys,
    "disk": disk,
    "load": loads,
    "probes": probes,
    "floor": floor,
    "latency": latency,
}


def validate(candidate: Candidate) -> list[Check]:
    """Every check, in order; those after one that fails are made all the same."""
    return [_made(name, check, candidate) for name, check in CHECKS.items()]


def failures(checks: Sequence[Check]) -> str:
    """What failed, as part of a sentence; empty where nothing did."""
    return "; ".join(f"{check.name}: {check.found}" for check in checks if not check.ok)


def card(
    scope: Scope,
    parent: str | None,
    chosen: str,
    reason: str,
    effect: Mapping[str, Any] | None,
    tuning: Mapping[str, Any],
    checks: Sequence[Check],
    table: str,
) -> str:
    """What a person reads before a promotion goes on: what changes, why, what to expect, what was checked.

    effect: advantage over what it replaces, with low and high; None where nothing tells.
    """
    before = f"snapshot {parent}" if parent else "the first policy, which explores"
    expects = "Nothing in the log tells what it will gain."
    if effect is not None:
        expects = (
            f"{effect['advantage']:+.4f} reward a decision over {effect['over']} "
            f"({effect['low']:+.4f} to {effect['high']:+.4f}, 95 %, {effect['n']} rounds)."
        )
    settings = {name: tuning[name] for name in ("parameters", "floor", "half_life_days", "spend") if name in tuning}
    lines = [
        f"# Promotion card of {scope}",
        "",
        f"- What changes: {chosen} replaces {before}.",
        f"- Why: {reason}",
        f"- Expected effect: {expects}",
        f"- Settings: {settings}.",
        "",
        "## Checks",
        "",
        *[check.render() for check in checks],
    ]
    return "\n".join([*lines, "", "## Evidence", "", table]) if table else "\n".join(lines)


def plain(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """As JSON, for the snapshot that signs it."""
    return [asdict(check) for check in checks]


class _RefusedError(PilotageError):
    """A check does not hold."""


def _hold(ok: bool, otherwise: str) -> None:
    if not ok:
        raise _RefusedError(otherwise)


def _made(name: str, check: Callable[[Candidate], str], candidate: Candidate) -> Check:
    try:
        return Check(name, True, check(candidate))
    except (PilotageError, OSError, ArithmeticError, ValueError, LookupError) as error:
        return Check(name, False, str(error))


def _folder(home: Home) -> Path:
    home.root.mkdir(parents=True, exist_ok=True)
    return home.root
