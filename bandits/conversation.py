"""The unit of decision is the conversation: one draw, and later turns stay with the arm that was drawn.

Each turn is a decision of its own in the record, so that money, budgets, attempts and votes count as ever. A turn that
stays was drawn by nobody: it is marked forced, nothing is learned from it, and its policy is "conversation:" and the id
of the draw that it follows. What is said of the quality of a turn, by whomever, is said of that draw too (`joined`):
so a draw learns how its arm did in the whole conversation, once. Costs and latencies stay with their own turns: the
price of a request is the price of one turn, and budgets are per request.

A conversation is drawn anew when its arm may not be drawn now (unavailable, beyond the budget, broken), after a
silence, or each turn where the domain says so. Then the prompt cache of the current arm is at stake. Only arms stay
allowed whose expected gain pays for it,

    q(x, b) - lambda c(x, b) - [q(x, a) - lambda c(x, a)]  >=  lambda tokens (input price - cached price of a)

a: the current arm, b: another, tokens: what a has read and written so far. The others are excluded, with the reason,
before anything is drawn: what is logged is what was drawn from, and replay needs no more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bandits.arms import Fitted
from bandits.config import ArmConfig, DomainConfig
from bandits.day.learning import Guarded, Scored
from bandits.errors import UnknownDecisionError
from bandits.ids import IdRing
from bandits.policy import Policy
from bandits.record.port import Record
from bandits.types import SIGNALS, Context, Decision, Mask, Outcome, Scope, Vector

FOLLOWS = "conversation:"  # policy of a turn that stays; behind it the id of the draw that it follows
ANOTHER = "its conversation is with another"
DEAR = "switching costs more than it is expected to earn"


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation as `Router.decide` takes it.

    key: its pseudonym; "" for a single request.   begins: it certainly begins now, whatever the record has of this key.
    regenerate: the app says that its user wants another answer than the last.
    """

    key: str = ""
    begins: bool = False
    regenerate: bool = False

    @classmethod
    def of(cls, given: Talk | str) -> Talk:
        """The conversation of which only the pseudonym is given."""
        return cls(given) if isinstance(given, str) else given


def talk(
    ids: IdRing,
    scope: Scope,
    messages: Sequence[Mapping[str, Any]],
    user: str = "",
    key: str = "",
    *,
    regenerate: bool = False,
) -> Talk:
    """The conversation that a request belongs to.

    key: as the app names it, else it is known by how it began: all messages (in OpenAI's form) up to the first of the
    user, and who that is (`user`, as the app names them). Two that begin with the same words, of one user or of nobody
    in particular, are then told apart only as long as the first has no answer: better name them.
    Neither a name nor a word is kept, only a pseudonym under the tenant's key. Raises KeyFileError.
    """
    if key:
        return Talk(ids.conversation(scope, f"named {key}"), regenerate=regenerate)
    if not messages:
        return Talk()
    first = next((at for at, one in enumerate(messages) if one.get("role") == "user"), len(messages) - 1)
    opening = json.dumps([user, *messages[: first + 1]], sort_keys=True, default=str)
    begins = not any(one.get("role") == "assistant" for one in messages[first + 1 :])
    return Talk(ids.conversation(scope, f"begun {opening}"), begins, regenerate)


@dataclass(frozen=True, slots=True)
class Before:
    """The newest turn of a conversation.   saving: USD that its arm saves at the next one on what it has read."""

    decision: Decision
    saving: float = 0.0

    @property
    def follows(self) -> str:
        """Policy of a turn that stays with it."""
        policy = self.decision.policy
        return policy if policy.startswith(FOLLOWS) else f"{FOLLOWS}{self.decision.id}"

    def arm(self, allowed: Mask, policy: Policy, domain: DomainConfig, now: float) -> int | None:
        """Where the conversation stays, if it does; None: it is drawn anew.

        allowed: (K,), arms that may be drawn now.   now: UTC, seconds since the epoch.
        """
        arms, settings = domain.arm_names, domain.conversations
        at = arms.index(self.decision.arm) if self.decision.arm in arms else None
        if at is None or not allowed[at] or self.is_silent(domain, now) or _broken(policy)[at]:
            return None
        return at if settings.decide == "once" or _base(policy) is None else None

    def is_silent(self, domain: DomainConfig, now: float) -> bool:
        """Whether nothing was asked for so long that no provider remembers what it read."""
        longest = domain.conversations.redecide_after_s
        return longest is not None and now - self.decision.time > longest

    def worthwhile(
        self, allowed: Mask, policy: Policy, context: Context, pressure: float, domain: DomainConfig, now: float
    ) -> Mask:
        """`allowed`, (K,), without the arms whose expected gain does not pay for the cache that is lost.

        All stay where there is nothing to lose: no price is known, money is no object, the conversation was silent, its
        arm may not be drawn, or the policy foretells nothing.
        """
        fee, base = policy.price(pressure) * self.saving, _base(policy)
        arms = domain.arm_names
        at = arms.index(self.decision.arm) if self.decision.arm in arms else -1
        if fee <= 0.0 or base is None or at < 0 or not allowed[at] or self.is_silent(domain, now):
            return allowed
        worth = _worth(base, arms, context, policy.price(pressure))
        pays = ~(worth - worth[at] < fee)  # of an arm that nothing is known of nobody can say that it does not
        pays[at] = True
        return allowed & pays


def before(record: Record, scope: Scope, conversation: str, domain: DomainConfig) -> Before | None:
    """The newest turn of a conversation of this scope; None where there is none. Raises RecordError."""
    found = record.conversation(scope.tenant, conversation) if conversation else None
    if found is None or found.scope != scope:
        return None
    arm = next((arm for arm in domain.arms if arm.name == found.arm), None)
    if domain.conversations.decide == "once" or arm is None:
        return Before(found)
    return Before(found, saving(arm, record.outcomes(found.id)))


def saving(arm: ArmConfig, outcomes: Sequence[Outcome]) -> float:
    """USD by which the next turn is cheaper with the arm that answered the last: its whole text is read before.

    outcomes: of the last turn. 0 where prices or tokens are not known, or where another arm answered.
    """
    prices = arm.usd_per_million
    answered = [o for o in outcomes if not o.failed and o.input_tokens is not None]
    if prices is None or prices.cached is None or not answered or answered[-1].arm:
        return 0.0
    tokens = (answered[-1].input_tokens or 0) + (answered[-1].output_tokens or 0)
    return tokens * max(prices.input - prices.cached, 0.0) / 1e6


def joined(record: Record, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """What is said of the quality of turns, said of the draws that they follow; nothing for what follows no draw.

    A turn in which the arm failed is no word on all the others: it stays with the turn, and the breaker knows it too.
    What one person says of a draw that was made for another stays where it was said: the one may be erased without the
    other. Raises RecordError.
    """
    return [found for outcome in outcomes if (found := _of_the_draw(record, outcome)) is not None]


def may_join(outcome: Outcome) -> bool:
    """Whether an outcome is of the kind that is said of a draw too: it speaks of quality, and not of a failure."""
    silent = outcome.quality is None and outcome.vote is None and outcome.source not in SIGNALS
    return not (silent or outcome.failed)


def _of_the_draw(record: Record, outcome: Outcome) -> Outcome | None:
    if not may_join(outcome):
        return None
    try:
        turn = record.decision(outcome.decision_id, outcome.scope.tenant)
        if not turn.policy.startswith(FOLLOWS):
            return None
        draw = record.decision(turn.policy.removeprefix(FOLLOWS), outcome.scope.tenant)
    except UnknownDecisionError:
        return None
    if draw.user != turn.user or draw.scope != outcome.scope:
        return None
    key = f"turn-{turn.id}-{outcome.key}" if outcome.key else ""
    return replace(
        outcome,
        decision_id=draw.id,
        key=key,
        cost_usd=None,
        latency_s=None,
        input_tokens=None,
        output_tokens=None,
        first_token_s=None,
    )


def _worth(policy: Policy, arms: tuple[str, ...], context: Context, price: float) -> Vector:
    """q - price * cost of each of `arms`, (K,); NaN of those that the policy does not know."""
    assert isinstance(policy, Scored)
    q_hat, cost_hat = policy.scores(context[None, :])
    own = dict(zip(policy.arms, (q_hat - price * cost_hat)[0].tolist(), strict=True))
    return np.array([own.get(arm, np.nan) for arm in arms])


def _base(policy: Policy) -> Policy | None:
    """The policy inside that foretells rewards; None where none does."""
    while isinstance(policy, Guarded | Fitted):
        policy = policy.base
    return policy if isinstance(policy, Scored) else None


def _broken(policy: Policy) -> Mask:
    """Arms, (K,), that broke since the night."""
    return policy.quarantined if isinstance(policy, Guarded) else np.zeros(len(policy.arms), np.bool_)
