"""Step 4: what the documents are about and how they sound. Every finding names the segments that support it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from graphs import sentiment, summary, topics
from graphs.index import Vectors
from graphs.passage import Segment
from graphs.segment import segments_of
from graphs.state import Analysis, Evidence, Finding, Kind, State
from graphs.steady import steady
from graphs.words import phrases

_SHOWN = 3  # pieces of evidence that a finding quotes; it lists all its segments
_QUOTE_CHARS = 160
_KEY_PHRASES = 10


def analysis(state: State) -> State:
    """analysis: topics, key phrases, sentiment, summary, over embeddings where there are some."""
    segments = segments_of(state)
    texts = [segment.text for segment in segments]
    index = state.get("index")
    with steady():
        rows = topics.directions(texts, None if index is None else index.vectors, [one.document for one in segments])
        labels = topics.cluster(rows)
    said = [Counter(phrases(text)) for text in texts]
    weights = topics.class_weights(said, labels)
    tongues = {document.id: document.language.split("+") for document in state["documents"]}
    spoken = sorted({tongue for one in tongues.values() for tongue in one})
    tones = [sentiment.tone(one.speech) if "en" in tongues[one.document] else sentiment.Tone() for one in segments]
    return {
        "analysis": Analysis(
            language="+".join(spoken),
            method={
                "vectors": "tf-idf" if index is None else index.embedder,
                "topics": "k-means, number by silhouette, labels by c-TF-IDF",
                "key_phrases": "c-TF-IDF with MMR",
                "sentiment": sentiment.METHOD if "en" in spoken else "none: the lexicon is English, the text is not",
                "summary": "extractive: sentences of the text itself",
            },
            topics=_topics(segments, rows, labels, weights),
            key_phrases=_key_phrases(segments, said, labels, weights),
            sentiment=sentiment.together(tones).score,
            sentiment_by_segment=tuple(tone.score for tone in tones),
            sentiments=_sentiments(segments, tones),
            summary=tuple(
                _finding("summary", sentence, score, segments, [i], sentence)
                for i, sentence, score in summary.central_sentences(texts)
            ),
        )
    }


def _topics(
    segments: Sequence[Segment], rows: Vectors, labels: topics.Labels, weights: Sequence[dict[str, float]]
) -> tuple[Finding, ...]:
    """Largest first; evidence are the segments nearest to the middle of their cluster."""
    found = []
    for label, terms in enumerate(weights):
        members = np.flatnonzero(labels == label)
        chosen = [term for term, _ in topics.distinct_phrases(terms, 3)]
        if not chosen:
            continue  # no content word at all
        nearest = members[np.argsort(-(rows[members] @ rows[members].mean(axis=0)), kind="stable")]
        share = len(members) / len(segments)
        found.append(_finding("topic", " · ".join(chosen), share, segments, nearest.tolist(), chosen[0]))
    return tuple(sorted(found, key=lambda finding: -finding.score))


def _key_phrases(
    segments: Sequence[Segment],
    said: Sequence[Counter[str]],
    labels: topics.Labels,
    weights: Sequence[dict[str, float]],
) -> tuple[Finding, ...]:
    """Phrases by their weight in each topic times the topic's share, each with the segments that say it most."""
    shares = np.bincount(labels, minlength=len(weights)) / len(labels)
    overall: dict[str, float] = {}
    for share, terms in zip(shares.tolist(), weights, strict=True):
        for term, weight in terms.items():
            overall[term] = overall.get(term, 0.0) + share * weight
    found = []
    for term, weight in topics.distinct_phrases(overall, _KEY_PHRASES):
        times = {i: count for i, terms in enumerate(said) if (count := terms[term])}
        found.append(_finding("key_phrase", term, weight, segments, sorted(times, key=lambda i: -times[i]), term))
    return tuple(found)


def _sentiments(segments: Sequence[Segment], tones: Sequence[sentiment.Tone]) -> tuple[Finding, ...]:
    """The segments that praise, and those that complain, the plainest first."""
    found = []
    for label, sign in (("positive", 1), ("negative", -1)):
        members = [i for i, tone in enumerate(tones) if sign * tone.balance > 0]
        members.sort(key=lambda i: -sign * tones[i].balance)
        if members:
            scores = [score for i in members if (score := tones[i].score) is not None]
            first = tones[members[0]]
            word = (first.positive if sign > 0 else first.negative)[0]
            found.append(_finding("sentiment", label, float(np.mean(scores)), segments, members, word))
    return tuple(found)


def _finding(
    kind: Kind, label: str, score: float, segments: Sequence[Segment], members: Sequence[int], about: str
) -> Finding:
    """A finding over `members`, strongest first; its quotations are cut around `about` where they hold it."""
    shown = [segments[i] for i in members[:_SHOWN]]
    evidence = tuple(
        Evidence(one.index, one.name, one.start_s, one.end_s, one.lines, one.speaker, quote(one.text, about))
        for one in shown
    )
    return Finding(kind, label, round(score, 6), tuple(sorted(segments[i].index for i in members)), evidence)


def quote(text: str, about: str, most: int = _QUOTE_CHARS) -> str:
    """At most `most` characters of a text, whole words, with `about` in sight where the text holds it."""
    text = " ".join(text.split())
    if len(text) <= most:
        return text
    at = max(text.casefold().find(about.casefold()), 0)
    start = 0 if at < most // 2 else text.rfind(" ", 0, at - most // 4) + 1
    piece = text[start : start + most - 2]
    if start + len(piece) < len(text):
        piece = piece[: piece.rfind(" ")] if " " in piece[most // 2 :] else piece
        piece += "…"
    return "…" + piece if start else piece
