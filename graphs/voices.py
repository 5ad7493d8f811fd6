"""What is found sentence by sentence and voice by voice: names, claims, questions, speakers, and how it all sounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from graphs.claims import claim_marks, is_question
from graphs.findings import finding
from graphs.names import names, together
from graphs.passage import Segment
from graphs.segment import segments_of
from graphs.sentences import sentences
from graphs.sentiment import Tone
from graphs.sentiment import together as all_tones
from graphs.state import Finding, State
from graphs.words import phrases, tokens

_NAMES, _CLAIMS, _QUESTIONS, _SPEAKERS = 12, 8, 12, 12  # shown at most
_LEAST_MARKS = 2  # of a claim
_PARTS = 6  # that the course of a document's sentiment is told in
_LEAST_SEGMENTS = 4  # that a document must have for its sentiment to have a course


class Read(NamedTuple):
    """The segments of a run, and what is counted in each."""

    segments: Sequence[Segment]
    texts: Sequence[str]  # without the names of speakers
    tongues: Sequence[frozenset[str]]
    said: Sequence[Counter[str]]  # content phrases, but those with a speaker's name
    speakers: frozenset[str]  # in lower case


def read_of(state: State) -> Read:
    """Read a state's segments once for all findings."""
    segments = segments_of(state)
    tongues = {document.id: frozenset(document.language.split("+")) - {"unknown"} for document in state["documents"]}
    speakers = frozenset(name.casefold() for document in state["documents"] for name in document.speakers)
    words = frozenset(token for name in speakers for token in tokens(name))
    texts = [one.speech for one in segments]
    said = [Counter(term for term in phrases(text) if words.isdisjoint(term.split())) for text in texts]
    return Read(segments, texts, [tongues[one.document] for one in segments], said, speakers)


def sentiments(segments: Sequence[Segment], tones: Sequence[Tone]) -> tuple[Finding, ...]:
    """The segments that praise, and those that complain, the plainest first."""
    found = []
    for label, sign in (("positive", 1), ("negative", -1)):
        members = [i for i, tone in enumerate(tones) if sign * tone.balance > 0]
        members.sort(key=lambda i: -sign * tones[i].balance)
        if members:
            scores = [score for i in members if (score := tones[i].score) is not None]
            first = tones[members[0]]
            word = (first.positive if sign > 0 else first.negative)[0]
            found.append(finding("sentiment", label, float(np.mean(scores)), segments, members, word))
    return tuple(found)


def course(segments: Sequence[Segment], tones: Sequence[Tone]) -> Iterator[Finding]:
    """How each document sounds from its beginning to its end, in up to six parts; a part without a word is missing."""
    for _, group in groupby(range(len(segments)), key=lambda i: segments[i].document):
        members = list(group)
        if len(members) < _LEAST_SEGMENTS:
            continue
        for number, part in enumerate(np.array_split(members, min(_PARTS, len(members) // 2)), start=1):
            tone = all_tones([tones[i] for i in part])
            if tone.score is not None:
                word = (tone.positive or tone.negative)[0]
                strongest = sorted(part.tolist(), key=lambda i: -abs(tones[i].balance))
                yield finding("sentiment", f"part {number}", tone.score, segments, strongest, word)


def named(read: Read) -> tuple[Finding, ...]:
    """Names by how often they are said; the speakers themselves are told of elsewhere."""
    counts = [
        names(text, "de" if tongue == {"de"} else "") for text, tongue in zip(read.texts, read.tongues, strict=True)
    ]
    found = []
    for name, many in together(counts, read.speakers)[:_NAMES]:
        members = sorted((i for i, count in enumerate(counts) if count[name]), key=lambda i: -counts[i][name])
        found.append(finding("name", name, many, read.segments, members, name))
    return tuple(found)


def claimed(read: Read) -> tuple[Finding, ...]:
    """The sentences that bear most marks of a claim, in the order of the text."""
    marked = [
        (marks, i, sentence)
        for i, text in enumerate(read.texts)
        for sentence in sentences(text)
        if (marks := claim_marks(sentence)) >= _LEAST_MARKS
    ]
    best = sorted(marked, key=lambda one: -one[0])[:_CLAIMS]
    best.sort(key=lambda one: one[1])
    return tuple(finding("claim", sentence, marks, read.segments, [i], sentence) for marks, i, sentence in best)


def asked(read: Read) -> tuple[Finding, ...]:
    """Questions, in the order of the text: those of most content words, where there are many."""
    found = [
        (len(phrases(sentence, 1)), i, sentence)
        for i, text in enumerate(read.texts)
        for sentence in sentences(text)
        if is_question(sentence) and phrases(sentence, 1)
    ]
    best = sorted(found, key=lambda one: -one[0])[:_QUESTIONS]
    best.sort(key=lambda one: one[1])
    return tuple(finding("question", sentence, 1.0, read.segments, [i], sentence) for _, i, sentence in best)


def speakers(segments: Sequence[Segment]) -> tuple[Finding, ...]:
    """Who speaks, by their share of the characters, each with the segments in which they say most."""
    said: dict[str, Counter[int]] = {}
    total = 0
    for i, one in enumerate(segments):
        for speaker, text in one.turns:
            total += len(text)
            if speaker is not None:
                said.setdefault(speaker, Counter())[i] += len(text)
    most = sorted(said, key=lambda speaker: (-said[speaker].total(), speaker))[:_SPEAKERS]
    return tuple(
        finding(
            "speaker", one, said[one].total() / max(total, 1), segments, [i for i, _ in said[one].most_common()], one
        )
        for one in most
    )
