"""Cutting documents: passages that fit, lose nothing, and never mix speakers or cut a word."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import EXAMPLE
from graphs.ingest import read
from graphs.passage import Cue, Document
from graphs.segment import MAX_CHARS, Limits, passages, segment, segments_of
from graphs.tiling import depths

words = st.text("abcdefgéßя", min_size=1, max_size=40)
texts = st.lists(st.tuples(words, st.sampled_from([" ", ". ", "\n", "\n\n", ", "])), min_size=1, max_size=400).map(
    lambda parts: "".join(word + gap for word, gap in parts)
)
cue_lists = st.lists(
    st.tuples(st.integers(1, 30), st.integers(0, 20), st.sampled_from([None, "Ann", "Ben"]), st.integers(1, 420)),
    min_size=1,
    max_size=40,
)


def transcript(rows):
    at, cues = 0.0, []
    for number, (gap, length, speaker, size) in enumerate(rows):
        text = " ".join([f"w{number}"] * (size // 4 + 1))
        cues.append(Cue(text, at + gap, at + gap + length, speaker, (3 * number + 1, 3 * number + 2)))
        at += gap
    return Document("id", "a.vtt", "webvtt", "", tuple(cues))


class TestText:
    @given(texts, st.sampled_from(["text", "markdown"]))
    @settings(deadline=None, max_examples=60)
    def test_passages_fit_and_hold_every_word_whole_and_in_order(self, text, kind):
        found = list(passages(Document("id", "a", kind, text)))

        assert all(0 < len(one.text) <= MAX_CHARS for one in found)
        assert [word for one in found for word in re.findall(r"\w+", one.text)] == re.findall(r"\w+", text)

    def test_lines_point_into_the_source(self):
        text = "".join(f"Paragraph {i} has some words to fill its line with.\n\n" for i in range(100))
        rows = text.split("\n")

        for one in passages(Document("id", "a", "text", text)):
            first, last = one.lines
            assert one.text.split("\n")[0] in rows[first - 1]
            assert one.text.split("\n")[-1] in rows[last - 1]

    def test_text_without_any_break_is_still_cut_and_nothing_is_lost(self):
        text = "x" * 60_000
        found = list(passages(Document("id", "a", "text", text)))

        assert "".join(one.text for one in found) == text
        assert all(len(one.text) <= MAX_CHARS for one in found)

    def test_a_long_text_keeps_its_words_whole(self):
        text = " ".join(f"word{i}" for i in range(8_000))
        found = list(passages(Document("id", "a", "text", text)))

        assert " ".join(one.text for one in found) == text

    def test_markdown_is_cut_at_its_headings(self):
        text = "".join(f"# Part {i}\n\n" + "A sentence of the part. " * 28 + "\n\n" for i in range(3))

        assert [one.text[:8] for one in passages(read(("a.md", text)))] == ["# Part 0", "# Part 1", "# Part 2"]


class TestTranscripts:
    @given(cue_lists)
    @settings(deadline=None, max_examples=60)
    def test_passages_follow_the_cues_exactly(self, rows):
        document = transcript(rows)
        cues = list(document.cues)

        for one in passages(document):
            said = one.speech.split()
            group = [cues.pop(0)]
            while sum(len(cue.text.split()) for cue in group) < len(said):
                group.append(cues.pop(0))
            assert said == [word for cue in group for word in cue.text.split()]
            assert len(one.text) <= MAX_CHARS
            assert set(one.speakers) == {cue.speaker for cue in group} - {None}
            assert one.speaker == (group[0].speaker if len({cue.speaker for cue in group}) == 1 else None)
            assert (one.start_s, one.end_s) == (group[0].start_s, max(cue.end_s for cue in group))
            assert one.lines == (group[0].lines[0], group[-1].lines[1])
        assert not cues

    @given(cue_lists, st.integers(1, 300))
    @settings(deadline=None, max_examples=40)
    def test_overlapping_passages_repeat_whole_cues_and_still_fit(self, rows, overlap):
        document = transcript(rows)
        apart, together = (list(passages(document, Limits(overlap=size))) for size in (0, overlap))

        assert len(apart) == len(together)
        assert all(len(one.text) <= MAX_CHARS for one in together)
        for one, other in zip(apart, together, strict=True):
            assert other.speech.split()[-len(one.speech.split()) :] == one.speech.split()
            assert len(other.speech) <= len(one.speech) + overlap + 1

    def test_as_many_cues_go_together_as_fit(self):
        cues = tuple(Cue("x" * 300, i, i + 1) for i in range(7))
        found = list(passages(Document("id", "a", "srt", "", cues)))

        assert [(one.start_s, one.end_s) for one in found] == [(0, 3), (3, 6), (6, 7)]

    def test_a_long_passage_ends_with_a_sentence(self):
        cues = tuple(Cue(f"part {i} of what is said here" + ("." if i % 4 == 3 else ""), i, i + 1) for i in range(80))

        assert all(one.text.endswith(".") for one in passages(Document("id", "a", "srt", "", cues)))

    def test_the_pieces_of_one_huge_cue_share_its_times(self):
        cue = Cue("A sentence of words. " * 200, 5.0, 65.0, "Ann", (1, 2))
        found = list(passages(Document("id", "a", "srt", "", (cue,))))

        assert len(found) > 3
        assert all(len(one.text) <= MAX_CHARS for one in found)
        assert {(one.start_s, one.end_s, one.speaker) for one in found} == {(5.0, 65.0, "Ann")}


def talk(*topics, speakers=("ann", "ben", "cy")):
    """A chat of one message a minute, ten on each topic."""
    cues = []
    for words in topics:
        vocabulary = words.split()
        for i in range(10):
            said = " ".join(vocabulary[(i + j) % len(vocabulary)] for j in range(6))
            n = len(cues)
            cues.append(Cue(said, 60.0 * n, 60.0 * n, speakers[n % len(speakers)], (n + 1, n + 1)))
    return Document("id", "a.txt", "chat", "", tuple(cues))


class TestTalk:
    TOPICS = (
        "kernel module driver patch compile boot image loader firmware",
        "recipe oven butter sugar flour cake icing bowl whisk",
        "goal keeper penalty match league referee striker pitch corner",
    )

    def test_short_turns_share_a_passage_that_says_who_speaks(self):
        first = next(passages(talk(self.TOPICS[0])))

        assert first.speakers == ("ann", "ben", "cy")
        assert first.text.startswith("ann: kernel module")
        assert first.text.count("\n") == first.lines[1] - first.lines[0]
        assert "ann" not in first.speech

    def test_a_passage_ends_where_the_topic_changes(self):
        ends = [one.lines[1] for one in passages(talk(*self.TOPICS))]

        assert {10, 20, 30} <= set(ends)

    def test_the_deepest_gap_is_where_the_words_change(self):
        texts = [cue.text for cue in talk(*self.TOPICS).cues]
        deepest = np.argsort(-depths(texts))[:2]

        assert sorted(deepest.tolist()) == [9, 19]
        assert not depths(texts[:1]).size

    def test_a_long_pause_begins_a_new_passage(self):
        before = talk(self.TOPICS[0])
        later = tuple(replace(c, start_s=c.start_s + 9_000, end_s=c.end_s + 9_000) for c in before.cues)
        document = replace(before, cues=before.cues + later)

        assert any(one.end_s == before.cues[-1].end_s for one in passages(document))


class TestRun:
    def test_indices_count_over_all_documents(self):
        documents = (read(EXAMPLE), read(("a.txt", "One passage.")))
        segments = segment({"documents": documents})["segments"]

        assert [one.index for one in segments] == list(range(len(segments)))
        assert segments[-1].document == documents[1].id

    @pytest.mark.parametrize("kind", ["vtt", "txt"])
    def test_without_segmenting_each_document_is_one_passage(self, kind):
        document = read(EXAMPLE) if kind == "vtt" else read(("a.txt", "One.\n\nTwo.\n"))
        (only,) = segments_of({"documents": (document,)})

        assert only.speech.split() == document.text.split()
        if kind == "vtt":
            assert (only.start_s, only.end_s) == (document.cues[0].start_s, document.cues[-1].end_s)
            assert only.speaker is None
