"""What the record refuses: the rules that every entry is held to, when it is appended and when it is read back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set

import numpy as np

from bandits.errors import (
    ContextError,
    DuplicateDecisionError,
    DuplicateOutcomeError,
    ForeignDecisionError,
    RecordError,
    UnknownDecisionError,
)
from bandits.types import Context, Decision, Entry, Outcome, Scope


def check(entry: Entry) -> None:
    """Raise ContextError or RecordError unless any store can keep `entry` as it is."""
    numbers: tuple[float, ...]
    texts: tuple[str, ...]
    if isinstance(entry, Decision):
        context = entry.context
        if context.ndim != 1 or context.dtype != np.float32 or not _finite(context):
            raise ContextError(
                f"context must be a finite float32 vector, but got {context.dtype} of shape {context.shape}, not "
                f"finite at {np.argwhere(~np.isfinite(context))[:5].tolist()}, in decision {entry.id}; mend the "
                f"features {entry.schema!r}."
            )
        if len(set(entry.arms)) != len(entry.arms):
            raise RecordError(f"arms must have distinct names, but got {entry.arms} in decision {entry.id}.")
        where, numbers = f"decision {entry.id!r}", (entry.time, entry.price, entry.pressure)
        texts = (
            entry.id,
            entry.schema,
            entry.policy,
            entry.user,
            entry.conversation,
            *entry.arms,
            *entry.excluded,
            *entry.excluded.values(),
        )
    else:
        where, numbers, texts = (
            f"an outcome of {entry.decision_id!r}",
            (entry.time,),
            (entry.decision_id, entry.source, entry.key, entry.arm, entry.result),
        )
    if not all(map(math.isfinite, numbers)):
        raise RecordError(f"time, price and pressure must be finite, but got {numbers} in {where}.")
    text = "".join(texts)
    if not text.isascii() or "\0" in text:
        _check_text(text, where)


def _finite(context: Context) -> bool:
    """Whether all of a vector, (d,), is finite: a finite sum of squares says so at a third of the price."""
    return math.isfinite(float(context.dot(context))) or bool(np.isfinite(context).all())


def _check_text(text: str, where: str) -> None:
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise RecordError(f"text must be UTF-8 without NUL, but got {text[:80]!r} in {where}; clean it before logging.")


def key_of(entry: Entry) -> str:
    """Id of the decision that an entry is, or is about."""
    return entry.id if isinstance(entry, Decision) else entry.decision_id


def keys(entries: Sequence[Entry]) -> set[tuple[str, str]]:
    """(decision id, key) of the outcomes that have a key."""
    return {(entry.decision_id, entry.key) for entry in entries if isinstance(entry, Outcome) and entry.key}


def admit(
    entries: Sequence[Entry], scope_of: Callable[[str], Scope | None], heard: Set[tuple[str, str]]
) -> dict[str, Scope]:
    """The scopes of new decisions; raises unless each is new, and each outcome follows a decision of its own scope.

    heard: (decision id, key) of the outcomes that the record has; an outcome with a key must not be among them.
    """
    fresh: dict[str, Scope] = {}
    here: set[tuple[str, str]] = set()
    for entry in entries:
        key = key_of(entry)
        scope = fresh.get(key) or scope_of(key)
        if isinstance(entry, Decision):
            if scope is not None:
                raise DuplicateDecisionError(
                    f"a decision's id must be new, but {key!r} is in the record; nothing was written. "
                    "Give each decision an id of new_id()."
                )
            fresh[key] = entry.scope
        elif scope is None:
            raise UnknownDecisionError(
                f"an outcome must follow its decision, but the record holds no {key!r}; nothing was written. "
                "Send the id that the decision was answered with."
            )
        elif scope != entry.scope:
            raise ForeignDecisionError(  # does not name the other scope: its owner may be a stranger
                f"an outcome must come from its decision's scope, but {entry.scope} reported on {key!r} of another; "
                "nothing was written. Report with the credential and workspace that decided."
            )
        elif entry.key:
            if (key, entry.key) in heard or (key, entry.key) in here:
                raise DuplicateOutcomeError(
                    f"an outcome's key must be new to its decision, but {key!r} has one with {entry.key!r}; nothing "
                    "was written. It was heard already: send it once, or give another event another key."
                )
            here.add((key, entry.key))
    return fresh


def unknown(decision_id: str, tenant: str) -> UnknownDecisionError:
    """The error of a decision that a tenant does not have; the same words whether another has it or nobody."""
    return UnknownDecisionError(
        f"a decision must be in the record of its tenant, but {tenant!r} has no {decision_id!r}; "
        "ask with the id that the decision was answered with."
    )
