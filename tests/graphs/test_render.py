"""The Markdown of a result: inside 80 columns, and harmless whatever the documents hold."""

from __future__ import annotations

import re

import pytest

from graphs import EXAMPLE
from graphs.audit import Counters
from graphs.pilot import run_pilot
from graphs.render import WIDTH, clock, columns, render, safe
from graphs.state import PilotRequest

HOSTILE = (
    "Our \x1b[31mred\x1b[0m notes <script>alert(1)</script> hold [a link](http://x) and `code` and | pipes. "
    "Our \u202enotes hold " + "w" * 200 + " as one word."
)


def rendered(*inputs, **flags):
    return render(
        run_pilot(PilotRequest("demo", "main", inputs, **flags), orchestrator="sequential", counters=Counters())
    )


class TestRender:
    @pytest.mark.parametrize(
        "inputs",
        [
            [EXAMPLE],
            [("a.txt", HOSTILE)],
            [("很长的名字.txt", "我们今天学习机器翻译的评估方法。" * 60)],
            [("x" * 120 + ".txt", "Hello world.")],
            [("a.pdf", "x")],
        ],
    )
    def test_no_line_is_wider_than_a_terminal(self, inputs):
        assert max(columns(line) for line in rendered(*inputs).splitlines()) <= WIDTH

    def test_wide_characters_take_two_columns_and_marks_none(self):
        assert [columns(text) for text in ("cat", "猫", "cafe\u0301")] == [3, 2, 4]

    def test_it_shows_topics_times_and_speakers(self):
        text = rendered(EXAMPLE)

        assert "## Topics" in text
        assert "quiz night" in text
        assert re.search(r"\(standup\.vtt\s+\d:\d\d–\d:\d\d\)", text)
        assert "Ines: “" in text
        assert "weak" in text

    def test_it_names_what_was_left_out_and_where(self):
        text = " ".join(rendered(("bad.vtt", "WEBVTT\n\n00:"), ("a.txt", "Hello world.")).split())

        assert "**degraded**" in text
        assert "left out: bad.vtt, line 3: the file ends inside a cue" in text

    def test_a_failed_run_says_which_step_and_why(self):
        text = " ".join(rendered(("a.pdf", "x")).split())

        assert "**ingest failed.**" in text
        assert ".pdf is not a kind that can be read" in text

    def test_steps_not_taken_are_shown_with_the_reason(self):
        assert "segment skipped (switched off in the request)" in rendered(("a.txt", "Hello."), enable_segment=False)

    def test_text_of_documents_cannot_move_the_cursor_or_open_a_tag(self):
        text = rendered(("a.txt", HOSTILE))

        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", text)
        assert not re.search(r"(?<!\\)[<>|`]", text)

    def test_a_text_is_shown_on_one_line(self):
        assert safe("a\n# b\r\n\tc\u2028d") == "a \\# b c d"

    @pytest.mark.parametrize(
        ("seconds", "shown"), [(0.0, "0:00"), (62.9, "1:02"), (3600.0, "1:00:00"), (3725.0, "1:02:05")]
    )
    def test_times_read_like_a_clock(self, seconds, shown):
        assert clock(seconds) == shown
