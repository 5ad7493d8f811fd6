"""Step 4: what the documents are about and how they sound. Every finding names the segments that support it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from graphs import claims, names, sentiment, summary, topics, voices
from graphs.audit import reason_of
from graphs.findings import finding
from graphs.index import Vectors
from graphs.novelty import Earlier, new_phrases
from graphs.passage import Segment
from graphs.state import Analysis, Author, Finding, Kind, State
from graphs.steady import steady
from graphs.voices import Read, read_of

_KEY_PHRASES = 10


def analysis_with(
    earlier: Earlier | None = None, summarise: summary.Summarise | None = None
) -> Callable[[State], State]:
    """The analysis step. earlier: what a namespace held before; summarise: who writes the summary."""

    def analysis(state: State) -> State:
        """analysis: topics, phrases, names, claims, questions, sentiment, speakers, what is new, and a summary."""
        read = read_of(state)
        index = state.get("index")
        with steady():
            rows = topics.directions(
                read.texts, None if index is None else index.vectors, [one.document for one in read.segments]
            )
            labels = topics.cluster(rows)
        weights = topics.class_weights(read.said, labels)
        english = ["en" in tongue for tongue in read.tongues]
        tones = [
            sentiment.tone(text) if is_english else sentiment.Tone()
            for text, is_english in zip(read.texts, english, strict=True)
        ]
        spoken = sorted(frozenset().union(*read.tongues))
        before = _before(state, earlier)
        found, how, author = _summary(state, read, summarise)
        return {
            "analysis": Analysis(
                language="+".join(spoken) or "unknown",
                method={
                    "vectors": "tf-idf" if index is None else index.embedder,
                    "topics": "k-means, number by silhouette, labels by c-TF-IDF",
                    "key_phrases": "c-TF-IDF with MMR",
                    "sentiment": sentiment.METHOD if any(english) else "none: the lexicon is English, the text is not",
                    "names": names.METHOD,
                    "claims": claims.METHOD,
                    "new": f"c-TF-IDF against {len(before)} earlier passages" if before else "none: nothing earlier",
                    "summary": how,
                },
                topics=_topics(read.segments, rows, labels, weights),
                key_phrases=_key_phrases(read, labels, weights),
                sentiment=sentiment.together(tones).score,
                sentiment_by_segment=tuple(tone.score for tone in tones),
                sentiments=voices.sentiments(read.segments, tones),
                summary=found,
                sentiment_over_time=tuple(voices.course(read.segments, tones)),
                names=voices.named(read),
                claims=voices.claimed(read),
                questions=voices.asked(read),
                speakers=voices.speakers(read.segments),
                new=_said("new", new_phrases(read.said, before), read),
                author=author,
            )
        }

    return analysis


analysis = analysis_with()


def _before(state: State, earlier: Earlier | None) -> Sequence[str]:
    if earlier is None:
        return ()
    return earlier(state["request"].namespace, [document.id for document in state["documents"]])


def _summary(
    state: State, read: Read, summarise: summary.Summarise | None
) -> tuple[tuple[Finding, ...], str, Author | None]:
    """Findings, how they came about, and who wrote them; a model that fails or names no passage leaves an extract."""
    author = None
    if summarise is not None:
        sentences, author = _written(state, read, summarise)
        if author.fault is None:
            written = (finding("summary", said, 1.0, read.segments, places, said) for said, places in sentences)
            return tuple(written), "written by a model, each sentence with the passages that it names", author
    central = summary.central_sentences(read.texts)
    found = (finding("summary", sentence, score, read.segments, [i], sentence) for i, sentence, score in central)
    how = "extractive: sentences of the text itself" if central else "none: no sentence says enough"
    return tuple(found), how if author is None else f"{how}; {author.fault}", author


def _written(state: State, read: Read, summarise: summary.Summarise) -> summary.Written:
    """What a model wrote; where nothing of it can be shown, its author has the fault."""
    try:
        written = summarise(state["request"], [one.text for one in read.segments])
    except Exception as error:
        return summary.Written((), Author(reason_of(error)))
    if written.sentences or written.author.fault is not None:
        return written
    return summary.Written((), replace(written.author, fault="the model's summary named no passage"))


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
        found.append(finding("topic", " · ".join(chosen), share, segments, nearest.tolist(), chosen[0]))
    return tuple(sorted(found, key=lambda one: -one.score))


def _key_phrases(read: Read, labels: topics.Labels, weights: Sequence[dict[str, float]]) -> tuple[Finding, ...]:
    """Phrases by their weight in each topic times the topic's share."""
    shares = np.bincount(labels, minlength=len(weights)) / len(labels)
    overall: dict[str, float] = {}
    for share, terms in zip(shares.tolist(), weights, strict=True):
        for term, weight in terms.items():
            overall[term] = overall.get(term, 0.0) + share * weight
    return _said("key_phrase", topics.distinct_phrases(overall, _KEY_PHRASES), read)


def _said(kind: Kind, weighted: Sequence[tuple[str, float]], read: Read) -> tuple[Finding, ...]:
    """Phrases, each with the segments that say it most."""
    found = []
    for term, weight in weighted:
        times = {i: count for i, terms in enumerate(read.said) if (count := terms[term])}
        found.append(finding(kind, term, weight, read.segments, sorted(times, key=lambda i: -times[i]), term))
    return tuple(found)
