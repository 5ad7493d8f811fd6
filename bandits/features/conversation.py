"""What was said before the prompt. Without a conversation all of it is 0."""

from __future__ import annotations

from math import log1p

from bandits.features.code import has_code
from bandits.features.request import Reading, fold

NAMES = (
    "log_turns",
    "log_characters_before",
    "log_characters_last_answer",
    "has_code_before",
    "likeness_to_last_question",
    "log_seconds_since",
)


def features(reading: Reading) -> list[float]:
    """One number a name. Likeness: words in common / words in either, 1 for a question asked again."""
    request = reading.request
    turns, folded = request.conversation, [fold(turn.text) for turn in request.conversation]
    answers = [len(text) for turn, text in zip(turns, folded, strict=True) if turn.role == "assistant"]
    questions = [text for turn, text in zip(turns, folded, strict=True) if turn.role == "user"]
    last = turns[-1].time if turns else None
    return [
        log1p(len(turns)),
        log1p(sum(map(len, folded))),
        log1p(answers[-1] if answers else 0),
        float(any(map(has_code, folded))),
        _likeness(set(reading.words), set(questions[-1].split())) if questions else 0.0,
        0.0 if last is None or request.time is None else log1p(max(request.time - last, 0.0)),
    ]


def _likeness(one: set[str], other: set[str]) -> float:
    return len(one & other) / max(len(one | other), 1)
