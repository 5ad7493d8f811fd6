"""What the analysis says, and that every finding stands on segments that bear it out."""

from __future__ import annotations

import numpy as np
import pytest

from graphs import EXAMPLE, topics
from graphs.analysis import analysis
from graphs.embed import HashedSvd, embed_with
from graphs.findings import quote
from graphs.ingest import read
from graphs.language import language
from graphs.segment import segment
from graphs.sentiment import tone
from graphs.state import PilotRequest
from graphs.words import phrases, tokens


def analyse(*items, embed=True):
    state = {"request": PilotRequest("t", "w", items), "run_id": "r", "documents": tuple(read(item) for item in items)}
    state |= segment(state)
    if embed:
        state |= embed_with(HashedSvd())(state)
    return analysis(state)["analysis"], state["segments"]


@pytest.fixture(scope="module")
def standup():
    return analyse(EXAMPLE)


STARTS = {"outage": 0, "phishing": 98, "quiz": 199, "costs": 281, "newcomers": 380}  # seconds, by the example's text


class TestTopics:
    @pytest.mark.parametrize("embed", [True, False])
    def test_the_five_topics_of_the_example_are_found_with_and_without_embeddings(self, embed):
        found, segments = analyse(EXAMPLE, embed=embed)
        truth = np.searchsorted(sorted(STARTS.values()), [one.start_s for one in segments], side="right")

        assert 4 <= len(found.topics) <= 7
        agree = sum(np.bincount(truth[list(topic.segments)]).max() for topic in found.topics)
        assert agree / len(segments) > 0.75  # five equal topics guessed blindly: about 0.3

    def test_every_segment_belongs_to_one_topic(self, standup):
        found, segments = standup
        members = sorted(i for topic in found.topics for i in topic.segments)

        assert members == [one.index for one in segments]
        assert sum(topic.score for topic in found.topics) == pytest.approx(1.0, abs=1e-4)

    def test_a_topic_is_named_by_words_of_its_own_segments(self, standup):
        found, segments = standup
        for topic in found.topics:
            said = {term for i in topic.segments for term in phrases(segments[i].text)}
            assert set(topic.label.split(" · ")) <= said

    def test_labels_are_the_words_of_the_meeting(self, standup):
        labels = " ".join(topic.label for topic in standup[0].topics)

        for word in ("quiz night", "welcome message", "gateway", "model"):
            assert word in labels

    def test_alike_passages_are_one_topic(self):
        found, _ = analyse(("a.txt", "The cat sat on the mat.\n\n" * 400))

        assert len(found.topics) == 1

    def test_groups_that_stand_apart_are_found(self):
        rng = np.random.default_rng(0)
        centres = np.eye(8)[[0] * 10 + [3] * 10 + [6] * 10]
        labels = topics.cluster((centres + 0.05 * rng.standard_normal((30, 8))).astype(np.float32))

        assert labels.tolist() == [0] * 10 + [1] * 10 + [2] * 10

    def test_rows_that_are_all_equally_far_apart_are_one_group(self):
        assert topics.cluster(np.eye(12, dtype=np.float32)).tolist() == [0] * 12

    def test_a_phrase_does_not_repeat_another(self):
        weights = {"outage report": 1.0, "outage": 0.95, "report": 0.9, "reports": 0.85, "quiz": 0.2}

        assert [term for term, _ in topics.distinct_phrases(weights, 3)] == ["outage report", "quiz"]

    def test_ctfidf_prefers_what_sets_a_group_apart(self):
        from collections import Counter

        said = [Counter(["bot", "bot", "quiz"]), Counter(["bot", "bot", "spam"])]
        first, second = topics.class_weights(said, np.array([0, 1]))

        # A = 3 terms a group; tf 2/3 and log(1 + 3/4) for "bot", tf 1/3 and log(1 + 3/1) for "quiz"
        assert first == pytest.approx({"bot": 2 / 3 * np.log(1.75), "quiz": 1 / 3 * np.log(4)})
        assert second["spam"] > second["bot"]


class TestEvidence:
    def test_every_finding_shows_segments_that_support_it(self, standup):
        found, segments = standup
        for finding in [*found.topics, *found.key_phrases, *found.sentiments, *found.summary]:
            assert finding.segments
            assert finding.evidence
            for piece in finding.evidence:
                source = segments[piece.segment]
                assert piece.segment in finding.segments
                assert (piece.start_s, piece.end_s, piece.lines) == (source.start_s, source.end_s, source.lines)
                assert piece.document == "standup.vtt"
                assert piece.quote.strip("…") in source.text

    def test_a_key_phrase_is_said_in_every_segment_it_lists_and_in_no_other(self, standup):
        found, segments = standup
        for finding in found.key_phrases:
            assert list(finding.segments) == [one.index for one in segments if finding.label in phrases(one.text)]

    def test_a_summary_is_made_of_sentences_of_the_text(self, standup):
        found, segments = standup
        assert 3 <= len(found.summary) <= 5
        for finding in found.summary:
            assert finding.label in segments[finding.segments[0]].text

    def test_a_quotation_is_short_and_shows_what_it_is_about(self):
        text = "word " * 100 + "the gateway timeout " + "word " * 100
        shown = quote(text, "gateway timeout")

        assert len(shown) <= 160
        assert "gateway timeout" in shown
        assert quote("short", "nothing") == "short"


class TestSentiment:
    @pytest.mark.parametrize(
        ("text", "score"),
        [
            ("The quiz was wonderful.", 1.0),
            ("It was a terrible week.", -1.0),
            ("The bot is not reliable.", -1.0),
            ("Honestly not bad.", 1.0),
            ("It doesn't work well and isn't helpful.", -1.0),
            ("No, wonderful.", 1.0),  # punctuation ends what a negation reaches
            ("Great music, awful sound.", 0.0),
            ("The bot has nineteen channels.", None),
            ("", None),
        ],
    )
    def test_words_are_counted_and_negations_turn_them(self, text, score):
        assert tone(text).score == score

    def test_the_praise_and_the_complaints_of_the_example_are_found(self, standup):
        found, segments = standup
        by_label = {finding.label: finding for finding in found.sentiments}

        assert any("quiz night was wonderful" in segments[i].text for i in by_label["positive"].segments)
        assert any("terrible week" in segments[i].text for i in by_label["negative"].segments)
        assert not set(by_label["positive"].segments) & set(by_label["negative"].segments)
        assert -0.5 < found.sentiment < 0.5
        assert len(found.sentiment_by_segment) == len(segments)

    def test_it_calls_itself_weak(self, standup):
        assert "weak" in standup[0].method["sentiment"]

    def test_a_language_without_lexicon_is_missing_not_neutral(self):
        found, _ = analyse(("a.txt", "Le pain est sur la table et nous ne savons pas pourquoi il est dans la cuisine."))

        assert (found.language, found.sentiment, found.sentiments) == ("fr", None, ())
        assert found.method["sentiment"].startswith("none")


class TestWords:
    def test_words_of_any_script_are_found(self):
        assert tokens("Don't l'été, naïve E-mail's x") == ["don't", "été", "", "naïve", "e-mail", "x"]
        assert tokens("我们 学习") == ["我们", "学习"]
        assert tokens("机器学习") == ["机器", "器学", "学习"]
        assert tokens("हिन्दी में") == ["हिन्दी", "में"]

    def test_a_phrase_crosses_neither_punctuation_nor_a_stop_word(self):
        assert phrases("Quiz night, of the bot") == ["quiz", "night", "quiz night", "bot"]

    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("I think that the bot is in the room with us", "en"),
            ("je pense que le robot est dans la salle avec nous", "fr"),
            ("ich denke, dass der Roboter mit uns in dem Raum ist", "de"),
            ("creo que el robot está con nosotros en la sala", "es"),
            ("我们今天学习机器翻译的评估方法", "zh"),
            ("ロボットがすきです", "ja"),
            ("il gatto dorme sul tavolo della cucina e sogna di uccelli", "it"),
            ("zzz qqq", "unknown"),
            ("", "unknown"),
        ],
    )
    def test_the_language_is_guessed_by_its_function_words(self, text, name):
        assert language(text) == name


class TestTiny:
    @pytest.mark.parametrize("embed", [True, False])
    @pytest.mark.parametrize("text", ["x", "...", "the of and", "Hello world.", "猫がすき", "7 8 9", "one\n\ntwo"])
    def test_one_segment_is_enough(self, text, embed):
        found, segments = analyse(("a.txt", text), embed=embed)

        assert len(found.topics) <= 1
        assert len(found.sentiment_by_segment) == len(segments)

    @pytest.mark.parametrize("embed", [True, False])
    def test_documents_without_a_word_have_no_findings(self, embed):
        found, _ = analyse(("a.txt", "..."), ("b.txt", "!!!"), ("c.txt", "?"), embed=embed)

        assert (found.topics, found.key_phrases, found.sentiments, found.summary) == ((), (), (), ())
