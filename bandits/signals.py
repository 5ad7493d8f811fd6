"""What people do when an answer was not good enough: they ask the same again, or want another answer.

    reask        the question of the turn before, in (nearly) the same words, soon after its answer
    regenerate   the very same request again, soon after its answer; or the app says that its user wants another

Both are outcomes of the earlier decision, of nobody's making (`source`), and carry no measure: they happened. What they
say of its quality, if anything, is for the domain's reward to state (`signals`). Each is recorded once a decision.

No text is kept for this. The question before stands in the request itself, as apps send the conversation along; that
the prompt is the same as that of the decision before shows in its features, which are logged. Only the same person
counts, and words so few that anybody may say them twice do not ("go on", "yes").
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Literal

import numpy as np

from bandits.conversation import Talk
from bandits.errors import DuplicateOutcomeError
from bandits.features import Request, names
from bandits.features.request import fold
from bandits.features.schemas import GROUPS
from bandits.types import Context, Decision, Mask, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bandits.router import Router

Signal = Literal["reask", "regenerate"]

ALIKE = 0.8  # words in common / words in either, from which two questions are the same one
FEWEST = 3  # different words of a question that is not said twice by chance
_AROUND = ("conversation", "time", "asker")  # groups of features that do not read the prompt


def notice(
    router: Router,
    request: Request,
    context: Context,
    conversation: Talk | str,
    user: str,
) -> Outcome | None:
    """Record what a new request says of the turn before it; call it before the request is decided.

    context: of the request, (d,).   conversation: it, or its pseudonym.   user: pseudonym, "" for nobody in particular:
    then a conversation that certainly begins says nothing, for it may be somebody else's.
    Returns what was recorded, None where nothing was. Raises RecordError.
    """
    talk = Talk.of(conversation)
    if not tells(talk, user):
        return None
    before = router.record.conversation(router.scope.tenant, talk.key)
    if before is None or before.scope != router.scope or before.user != user:
        return None
    signal: Signal | None = "regenerate" if talk.regenerate else said(request, context, before)
    if signal is None:
        return None
    outcomes = router.record.outcomes(before.id)
    now, last = router.now(), answered(outcomes)
    if not talk.regenerate and (last is None or now - last > router.domain.conversations.reask_s):
        return None
    outcome = Outcome(before.id, now, router.scope, source=signal, key=signal, arm=served(outcomes))
    with suppress(DuplicateOutcomeError):
        router.report(outcome)
        return outcome
    return None


def tells(talk: Talk, user: str) -> bool:
    """Whether a request may say something of a turn before it: then the record is asked for that one."""
    return bool(talk.key) and not (talk.begins and not user)


def said(request: Request, context: Context, before: Decision) -> Signal | None:
    """What a request would say of the decision of the turn before, if it came soon enough."""
    words = set(fold(request.text).split())
    if len(words) < FEWEST:
        return None
    asked = next((turn.text for turn in reversed(request.conversation) if turn.role == "user"), None)
    if asked is not None and _likeness(words, set(fold(asked).split())) >= ALIKE:
        return "reask"
    columns = _of_the_prompt(before.schema)
    if columns is None or before.context.shape != context.shape:
        return None
    return "regenerate" if np.array_equal(before.context[columns], context[columns]) else None


def answered(outcomes: Sequence[Outcome]) -> float | None:
    """When a decision was answered, UTC, seconds since the epoch; None: not yet. An app that is left without an answer
    sends the same again by itself, and that says nothing of any.
    """
    return max((o.time for o in outcomes if o.latency_s is not None and not o.failed), default=None)


def served(outcomes: Sequence[Outcome]) -> str:
    """The arm that answered for the one drawn, as Outcome.arm has it; "" where the one drawn did."""
    return next((o.arm for o in reversed(outcomes) if o.latency_s is not None and not o.failed), "")


def _of_the_prompt(schema: str) -> Mask | None:
    """The columns that are read off the prompt; None where the caller brings the context."""
    if schema.startswith("vector-"):
        return None
    around = {name for group in _AROUND for name in GROUPS[group].names}
    return np.array([name not in around for name in names(schema)])


def _likeness(one: set[str], other: set[str]) -> float:
    return len(one & other) / max(len(one | other), 1)
