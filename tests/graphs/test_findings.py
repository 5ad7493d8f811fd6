"""Names, claims, questions, speakers, what is new, and who writes the summary: each stands on segments that bear it."""

from __future__ import annotations

import pytest

from graphs import EXAMPLE
from graphs.analysis import analysis_with
from graphs.claims import claim_marks, is_question
from graphs.codec import decode, encode
from graphs.ingest import ingest, read
from graphs.language import languages
from graphs.names import names
from graphs.near import near_duplicates
from graphs.novelty import new_phrases
from graphs.segment import segment
from graphs.state import Author, PilotRequest
from graphs.summary import Written
from graphs.words import phrases


def state_of(*items):
    state = {"request": PilotRequest("t", "w", items), "run_id": "r", "documents": tuple(read(item) for item in items)}
    return state | segment(state)


def analyse(*items, **ports):
    state = state_of(*items)
    return analysis_with(**ports)(state)["analysis"], state["segments"]


@pytest.fixture(scope="module")
def standup():
    return analyse(EXAMPLE)


class TestStandup:
    @pytest.mark.parametrize("what", ["names", "claims", "questions", "speakers"])
    def test_every_finding_names_segments_that_hold_it(self, standup, what):
        found, segments = standup
        assert getattr(found, what)
        for one in getattr(found, what):
            for i in one.segments:
                held = segments[i].speakers if what == "speakers" else (" ".join(segments[i].speech.split()),)
                assert any(one.label in text for text in held), one.label

    def test_speakers_share_all_that_is_said(self, standup):
        found, _ = standup

        assert {one.label for one in found.speakers} == {"Mara", "Theo", "Ines"}
        assert sum(one.score for one in found.speakers) == pytest.approx(1.0, abs=1e-5)

    def test_speakers_are_no_topic_and_no_name(self, standup):
        found, _ = standup
        labels = {word for one in (*found.topics, *found.key_phrases, *found.names) for word in one.label.split()}

        assert not labels & {"mara", "theo", "ines", "Mara", "Theo", "Ines"}

    def test_sentiment_has_a_course_in_order_of_time(self, standup):
        found, _ = standup
        starts = [min(one.segments) for one in found.sentiment_over_time]

        assert 3 <= len(starts) <= 6
        assert starts == sorted(starts)
        assert all(-1 <= one.score <= 1 for one in found.sentiment_over_time)

    def test_questions_ask(self, standup):
        assert all(one.label.endswith("?") for one in standup[0].questions)


class TestNames:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("We met John Glenn in New York. John was late.", {"John Glenn": 1, "New York": 1}),
            ("The bot uses WebGPU and GPT-4. So NASA did.", {"WebGPU": 1, "GPT-4": 1, "NASA": 1}),
            ("Yesterday it rained. Nobody came.", {}),
            ("Apples fell. We ask Discord. Discord knows.", {"Discord": 2}),
            ("ALL OF THIS IS SHOUTED BY THE BOT", {}),
            ("no capitals here at all", {}),
            ("The University of Toronto said so.", {"University of Toronto": 1}),
        ],
    )
    def test_names_are_known_by_how_they_are_written(self, text, found):
        assert dict(names(text)) == found

    def test_a_german_noun_is_no_name(self):
        assert dict(names("Wir sahen das Haus und Angela Merkel.", "de")) == {"Angela Merkel": 1}


class TestClaims:
    @pytest.mark.parametrize(
        ("sentence", "is_claim"),
        [
            ("The new model is 50 times slower than the old one.", True),
            ("Researchers found that every system performed better on lighter faces.", True),
            ("Maybe the new model is 50 times slower than the old one.", False),
            ("Is the new model 50 times slower than the old one?", False),
            ("Thank you all for coming to this meeting today.", False),
            ("50 %.", False),
        ],
    )
    def test_a_claim_bears_marks_and_no_hedge(self, sentence, is_claim):
        assert (claim_marks(sentence) >= 2) is is_claim

    @pytest.mark.parametrize(
        ("sentence", "asks"),
        [
            ("What is it?", True),
            ("什么是 BLEU 指标？", True),
            ("how do i install the new kernel", True),
            ("How it works is shown below.", False),
            ("It works", False),
            ("", False),
        ],
    )
    def test_a_question_has_its_mark_or_its_word(self, sentence, asks):
        assert is_question(sentence) is asks


class TestNew:
    def test_what_was_said_before_is_not_new(self):
        from collections import Counter

        now = [Counter(phrases(text)) for text in ("the gateway and the quota", "the quota of the gateway")]

        assert [term for term, _ in new_phrases(now, ["the gateway was slow"])] == ["quota"]
        assert new_phrases(now, ["gateway quota"]) == []
        assert new_phrases(now, []) == []

    def test_the_namespace_is_asked_for_all_but_these_documents(self):
        asked = []

        def earlier(namespace, without):
            asked.append((namespace, list(without)))
            return ["The gateway was slow."]

        found, segments = analyse(("a.txt", "A quota. The gateway has a quota."), earlier=earlier)

        assert asked == [("t:w:pilot", [segments[0].document])]
        assert [one.label for one in found.new] == ["quota"]
        assert "against 1 earlier passages" in found.method["new"]


class TestSummary:
    TEXT = (
        "a.txt",
        "The gateway failed because the timeout was wrong on Sunday.\n\nNobody noticed the outage at first.",
    )

    def test_what_a_model_wrote_is_shown_with_its_passages_and_its_author(self):
        asked, author = [], Author(None, "small", "token", 0.5, 1e-3)

        def summarise(request, texts):
            asked.append((request.tenant, list(texts)))
            return Written([("A timeout broke the gateway.", (0,))], author)

        found, segments = analyse(self.TEXT, summarise=summarise)

        assert asked == [("t", [segments[0].text])]
        assert [(one.label, one.segments) for one in found.summary] == [("A timeout broke the gateway.", (0,))]
        assert found.summary[0].evidence[0].quote.startswith("The gateway failed")
        assert found.author == author
        assert decode(encode({"analysis": found})) == {"analysis": found}  # as a run that is killed keeps it
        assert "written by a model" in found.method["summary"]

    @pytest.mark.parametrize("written", [None, Written((), Author(None, "small")), Written((), Author("it is ill"))])
    def test_without_a_sentence_that_stands_the_extract_does_and_says_why(self, written):
        def summarise(request, texts):
            if written is None:
                raise TimeoutError("too late")
            return written

        found, _ = analyse(self.TEXT, summarise=summarise)

        assert found.summary[0].label.startswith("The gateway failed")
        assert found.method["summary"].startswith("extractive")
        fault = "TimeoutError: too late" if written is None else written.author.fault or "named no passage"
        assert fault in found.author.fault
        assert found.method["summary"].endswith(found.author.fault)

    @pytest.mark.parametrize("summarise", [None, lambda request, texts: Written((), Author(None))])
    def test_a_text_that_says_nothing_has_no_summary_and_says_so(self, summarise):
        found, _ = analyse(("a.txt", "Well, yes."), summarise=summarise)

        assert found.summary == ()
        assert found.method["summary"].startswith("none")


class TestNearDuplicates:
    LONG = " ".join(f"word{i} of the long text" for i in range(200))

    def test_a_copy_with_a_few_changes_is_found(self):
        ((earlier, later, similar),) = near_duplicates(["something else", self.LONG, self.LONG.replace("word7 ", "x ")])

        assert (earlier, later) == (1, 2)
        assert similar > 0.9

    def test_texts_that_share_a_part_are_not(self):
        assert (
            near_duplicates([self.LONG, self.LONG[:2_000] + " ".join(f"other{i} words here now" for i in range(300))])
            == []
        )
        assert near_duplicates(["one", "two"]) == []
        assert near_duplicates(["one"]) == []

    def test_a_run_names_them_and_keeps_both(self):
        inputs = [("a.txt", self.LONG), ("b.txt", self.LONG + " End.")]
        state = ingest({"request": PilotRequest("t", "w", inputs), "run_id": "r"})

        assert len(state["documents"]) == 2
        assert [row[:2] for row in state["near_duplicates"]] == [("b.txt", "a.txt")]


class TestLanguages:
    EN = "We think that the bot is in the room with us and that it was there before. "
    FR = "Nous pensons que le robot est dans la salle avec nous et qu'il y était avant. "
    ZH = "我们今天学习机器翻译的评估方法。"

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            (EN * 20, {"en"}),
            ((EN * 10 + "\n") * 5 + (FR * 10 + "\n") * 5, {"en", "fr"}),
            ((ZH + "\n" + EN + "\n") * 20, {"en", "zh"}),
            (EN * 100 + "\n" + FR, {"en"}),
            ("Мы думаем, что бот находится в комнате вместе с нами.", {"ru"}),
            ("12 34 56", set()),
            ("", set()),
        ],
    )
    def test_a_text_has_the_languages_that_a_good_part_of_it_is_in(self, text, found):
        assert set(languages(text)) == found
