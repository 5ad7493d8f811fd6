"""What the bot writes, and what it can read back from its own messages.

The last line of every message is the bot's own: a footer with the decision's signed id, "part 1 of 3", or a fixed
sentence. So nothing that a model wrote, or that a person made it write, can pass for the footer of another decision;
and the footer is all the memory that a vote needs: it survives a restart, and no store of messages has to exist.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from semantic_text_splitter import TextSplitter

from gateway.answer import Answer

LONGEST_PROMPT = 4_000  # characters; the most that Discord lets anybody write in one message
_BODY = 1_800  # characters; Discord takes 2,000, the rest is for the last line and for code fences
_FENCE = "```"
_ARM = r"[a-z0-9][a-z0-9_-]{0,62}"
_FOOTER = re.compile(rf"-# {_ARM}(?: for {_ARM})? · \$\d+\.\d{{6}} · ([0-9a-f]{{64}})")
_EXAMPLES, _LONGEST_EXAMPLE = 3, 200

NO_ANSWER = "I could not answer this time: something failed on my side, and my log says what. Please try again later."
TOO_LONG = f"I can read prompts of up to {LONGEST_PROMPT:,} characters. Please shorten yours."


def parts(answer: Answer, token: str) -> list[str]:
    """The messages that carry an answer, each within 2,000 characters; the last ends with the footer.

    token: the signed id of its decision. The footer names who answered, and for whom if another was drawn.
    """
    bodies = _closed(TextSplitter(_BODY).chunks(answer.reply.text) or [""])
    drawn, cost = answer.decision.arm, sum(attempt.cost_usd for attempt in answer.attempts)
    arm = drawn if answer.served == drawn else f"{answer.served} for {drawn}"
    marks = [f"part {number} of {len(bodies)}" for number in range(1, len(bodies))]
    marks.append(f"{arm} · ${cost:.6f} · {token}")
    return [f"{body}\n-# {mark}" for body, mark in zip(bodies, marks, strict=True)]


def decision_of(content: str) -> str | None:
    """Signed id of the decision that a message of the bot answered with, from its footer; None where it has none."""
    found = _FOOTER.fullmatch(content.rsplit("\n", 1)[-1])
    return found[1] if found else None


def body_of(content: str) -> str:
    """What a message of the bot says, without its last line."""
    return content.rpartition("\n")[0]


def without_mention(content: str, user_id: int) -> str:
    """What is left of a message when the mentions of `user_id` are taken out."""
    return re.sub(rf"<@!?{user_id}>", "", content).strip()


def no_prompt(prompts: Collection[str] | None) -> str:
    """To a mention without text."""
    return _with_examples("Write your prompt in the message that mentions me; I do not read attachments.", prompts)


def not_recorded(prompts: Collection[str]) -> str:
    """To a prompt that the recording lacks."""
    return _with_examples(
        f"I am replaying a recording, and it has no answer to that. It knows {len(prompts)} prompts, word for word.",
        prompts,
    )


def model_failed(prompts: Collection[str] | None) -> str:
    """To a prompt whose model did not answer."""
    return _with_examples("The model that was chosen did not answer. You may ask again.", prompts)


def _with_examples(text: str, prompts: Collection[str] | None) -> str:
    short = [prompt for prompt in prompts or () if len(prompt) <= _LONGEST_EXAMPLE and "\n" not in prompt]
    if not short:
        return text
    listed = "\n".join(f"- {prompt}" for prompt in short[:_EXAMPLES])
    return f"{text} You could ask:\n{listed}\nMention me together with one of them."


def _closed(bodies: list[str]) -> list[str]:
    """Bodies whose code blocks end with them: one that is cut is closed, and opened again in the next."""
    out, is_open = [], False
    for body in bodies:
        text = f"{_FENCE}\n{body}" if is_open else body
        is_open = text.count(_FENCE) % 2 == 1
        out.append(f"{text}\n{_FENCE}" if is_open else text)
    return out
