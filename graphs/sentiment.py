"""Sentiment by counting words of a small English lexicon of our own. Weak, and labelled so wherever it is shown.

It knows plain praise and plain complaint and turns them round after a negation. It knows no irony, no jargon and no
other language: there, and where it meets none of its words, the answer is None, not neutral.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphs.words import tokens

METHOD = "lexicon-en (weak: counts words, knows no irony)"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


POSITIVE = _words(
    "amazing appreciate appreciated awesome beautiful best better brilliant calm celebrate charming cheerful "
    "clean clear comfortable congratulations convenient cool correct delight delighted delightful easier easily "
    "easy elegant encouraging enjoy enjoyed enjoying excellent excited exciting fantastic fast faster favorite "
    "favourite fine fixed fortunately friendly fun funny generous glad good gorgeous grateful great happier "
    "happily happy healthy helpful helps hope hopeful impressed impressive improve improved improvement improves "
    "improving joy kudos laughed laughing liked likes love loved lovely loves loving lucky neat nice outstanding "
    "peaceful perfect perfectly pleasant pleased pleasure polite popular positive powerful praise praised "
    "promising proud quick quickly recommend relaxed reliable relieved rewarding robust safe satisfied saved "
    "smart smooth smoother smoothly solid solved solves splendid stable strong succeed succeeded success "
    "successful successfully superb superior support supportive terrific thankful thrilled thriving trust trusted "
    "useful valuable warm welcoming win winner wins won wonderful worth"
)
NEGATIVE = _words(
    "abuse abusive afraid alarming angry annoyed annoying anxious attack attacks awful awkward bad badly bitter "
    "boring broke broken bug buggy bugs chaos complain complained complaining complaint complaints concern "
    "concerned confused confusing corrupt crash crashed crashes crashing crisis critical cruel damage damaged "
    "danger dangerous dead delay delayed delays despair difficult difficulty dirty disappoint disappointed "
    "disappointing disaster disgusting dislike dreadful embarrassed embarrassing error errors evil fail failed "
    "failing fails failure failures fake fault faulty fear flawed fraud frightening frustrated frustrating "
    "frustration garbage gross guilty harm harmful hate hated hates horrible hostile hurt hurts ignored "
    "impossible insecure insult insulting junk lag lagging late lazy leak leaked lie lies lonely lose losing loss "
    "lost mad mess messy miserable misleading missed mistake mistakes nasty negative nightmare noisy offensive "
    "outage outages overwhelmed pain painful panic pathetic phishing poor poorly problem problems rage refuse "
    "refused regret reject rejected ridiculous risk risky rude ruined sad scam scammed scams scared scary scream "
    "shame slow slower slowly sorry spam spammed stole stolen stress stressed stressful struggle struggled "
    "struggling stuck stupid suck sucks suffer suffered suffering terrible terribly threat tired tiring toxic "
    "trouble troubles ugly unable unacceptable unclear unfair unfortunate unfortunately unhappy unhelpful "
    "unreliable unsafe unstable unusable upset useless victim violent vulnerable wasted weak weird worried worry "
    "worrying worse worst wrong"
)
_NEGATIONS = _words("no not never nobody nothing none neither nor without hardly barely cannot")
_REACH = 3  # words that a negation reaches over


@dataclass(frozen=True, slots=True)
class Tone:
    """Words of praise and of complaint that were met; `score` is in -1..1, None if there were none."""

    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()

    @property
    def score(self) -> float | None:
        """(positive - negative) / (positive + negative)."""
        met = len(self.positive) + len(self.negative)
        return (len(self.positive) - len(self.negative)) / met if met else None

    @property
    def balance(self) -> int:
        """positive - negative, in words: how much there is to point at."""
        return len(self.positive) - len(self.negative)


def tone(text: str) -> Tone:
    """The words of the lexicon that stand in an English text; a negation up to 3 words before turns a word round."""
    positive: list[str] = []
    negative: list[str] = []
    words = tokens(text)
    for i, word in enumerate(words):
        if word in POSITIVE or word in NEGATIVE:
            praise = (word in POSITIVE) != _negated(words[max(0, i - _REACH) : i])
            (positive if praise else negative).append(word)
    return Tone(tuple(positive), tuple(negative))


def together(tones: Sequence[Tone]) -> Tone:
    """All words of several texts."""
    return Tone(
        tuple(word for one in tones for word in one.positive),
        tuple(word for one in tones for word in one.negative),
    )


def _negated(before: Sequence[str]) -> bool:
    """Whether a negation stands in these words, with no punctuation after it."""
    clause = before[len(before) - before[::-1].index("") :] if "" in before else before
    return any(word in _NEGATIONS or word.endswith("n't") for word in clause)
