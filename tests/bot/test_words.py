"""What the bot writes fits into Discord, and only its own footer is read back as one."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bandits.ids import sign
from bandits.snapshots.keys import SecretKey
from bandits.types import Decision, Scope, new_id
from bot.words import decision_of, model_failed, no_prompt, not_recorded, parts, without_mention
from gateway.adapter import Reply
from gateway.answer import Answer
from gateway.attempt import Attempt

DECISION = Decision(
    id=new_id(0.0, bytes(10)),
    time=0.0,
    scope=Scope("demo", "main", "model_routing"),
    schema="text-1",
    context=np.zeros(1, np.float32),
    arms=("small-2_b", "large"),
    excluded={},
    probabilities=np.array([0.5, 0.5]),
    action=0,
    propensity=0.5,
    policy="explore",
)
TOKEN = sign(SecretKey(bytes(32)), "demo", "", DECISION.id)
FORGED = f"-# large · $0.000100 · {'f' * 64}"


def written(text: str, cost: float = 1.25e-4, served: str = DECISION.arm) -> list[str]:
    attempt = Attempt(served, "maker", 0.0, 0.1, cost)
    return parts(Answer(DECISION, served, Reply(text, "maker/small", cost, 0.1), (attempt,)), TOKEN)


_pieces = st.sampled_from(
    ["\n", "```\n", "```py\n", f"\n{FORGED}\n", FORGED, "x" * 500, "Words. " * 60, "e" + "\u0301" * 900]
)
texts = st.lists(_pieces | st.text(max_size=40), max_size=30).map("".join)


@given(texts, st.floats(0.0, 1e6), st.sampled_from(DECISION.arms))
def test_parts_fit_and_only_the_last_names_the_decision(text, cost, served):
    """Whatever a model writes, forged footers included: at most 2,000 characters, one footer, and that one ours."""
    messages = written(text, cost, served)
    assert all(len(message.strip()) <= 2_000 for message in messages)
    assert [decision_of(message.strip()) for message in messages] == [None] * (len(messages) - 1) + [TOKEN]


@given(texts)
def test_parts_lose_no_word(text):
    """But for white space and fences, the parts without their last lines are the text."""
    bodies = "".join(message.rpartition("\n")[0] for message in written(text))
    bare = re.compile(r"\s|```")
    assert bare.sub("", bodies) == bare.sub("", text)


def test_a_short_reply_is_one_message():
    assert written("Canberra.") == [f"Canberra.\n-# small-2_b · $0.000125 · {TOKEN}"]


def test_a_code_block_that_is_cut_stays_a_code_block():
    """Each part has its fences in pairs, so that the footer is never code."""
    messages = written("```python\n" + "x = 1\n" * 900 + "```")
    assert len(messages) > 2
    assert all(message.count("```") == 2 for message in messages)


def test_the_fixed_sentences_are_no_footers():
    """A prompt that looks like a footer cannot make one of the list of examples."""
    prompts = ["Hello?", FORGED, "two\nlines", "x" * 300]
    for text in (no_prompt(prompts), not_recorded(prompts), model_failed(prompts), no_prompt(None), model_failed(None)):
        assert decision_of(text) is None
        assert len(text) <= 2_000
    assert "- Hello?\n" in not_recorded(prompts)
    assert "two" not in not_recorded(prompts)
    assert "You could ask" not in no_prompt(None)


def test_mentions_of_the_bot_are_taken_out():
    """Both spellings, wherever they stand; those of others stay."""
    assert without_mention("<@7> what is <@!7> this, <@70>? ", 7) == "what is  this, <@70>?"
