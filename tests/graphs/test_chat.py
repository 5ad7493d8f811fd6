"""Talk written as text: who said what, when, and on which line; and text that only looks like talk stays text."""

from __future__ import annotations

import json

import pytest

from graphs.errors import IngestError
from graphs.ingest import read


def said(name, text):
    return [(cue.speaker, cue.text, cue.start_s, cue.lines) for cue in read((name, text)).cues]


class TestIrc:
    @pytest.mark.parametrize(
        "text",
        [
            "[10:00] <ann> hi\n=== ben has joined #x\n[10:02] <ben> hello\n",
            "10:00 <@ann> hi\n-!- ben has joined #x\n10:02 <+ben> hello\n",
            "2024-01-01 10:00:00 <ann> hi\n2024-01-01 10:00:01 --> ben\n2024-01-01 10:02:00 <ben> hello\n",
            "channel 2024-01-01 [10:00:00] <ann>\t hi\n=== x\nchannel 2024-01-01 [10:02:00] <ben>\t hello\n",
        ],
    )
    def test_messages_have_their_nick_their_line_and_seconds_from_the_first(self, text):
        assert said("a.log", text) == [("ann", "hi", 0.0, (1, 1)), ("ben", "hello", 120.0, (3, 3))]

    def test_an_action_is_said_and_colours_are_not(self):
        text = "[10:00] <ann> \x0304red\x03 alert\n[10:01] * ben waves\n"

        assert said("a.txt", text) == [("ann", "red alert", 0.0, (1, 1)), ("ben", "waves", 60.0, (2, 2))]

    def test_a_pasted_line_goes_on_with_its_message(self):
        text = "[10:00] <ann> look:\n  segfault at 0\n[10:01] <ben> ouch\n[10:02] <ann> yes\n"

        assert said("a.txt", text)[0] == ("ann", "look: segfault at 0", 0.0, (1, 2))

    def test_the_clock_runs_on_past_midnight(self):
        text = "[23:59] <ann> late\n[00:01] <ben> early\n[13:00] <ann> noon\n"

        assert [row[2] for row in said("a.txt", text)] == [0.0, 120.0, 46_860.0]

    def test_a_clock_of_twelve_hours_comes_round_twice_a_day(self):
        text = "[12:30] <ann> a\n[01:00] <ben> b\n[11:00] <ann> c\n[12:10] <ben> d\n[02:00] <ben> e\n"

        assert [row[2] / 60 for row in said("a.txt", text)] == [0, 30, 630, 700, 810]

    def test_without_a_clock_there_are_no_times(self):
        assert said("a.txt", "<ann> hi\n<ben> hello\n") == [("ann", "hi", None, (1, 1)), ("ben", "hello", None, (2, 2))]


class TestFlightLog:
    TEXT = (
        "[-00:00:00:03]\n_page : 1\nCC: Three, two\n\n"
        "[00:01:15:24]\nP: A big mass\nof particles.\n# a remark\nCC: Roger.\n"
    )

    def test_mission_time_goes_through_zero_and_a_turn_may_take_two_lines(self):
        assert said("a", self.TEXT) == [
            ("CC", "Three, two", -3.0, (3, 3)),
            ("P", "A big mass of particles.", 4524.0, (6, 7)),
            ("CC", "Roger.", 4524.0, (9, 9)),
        ]


class TestNames:
    def test_lines_that_begin_with_names_are_turns(self):
        text = "Ann: Hello there.\nBen: Hello.\nAnn: How are you?\nand your cat?\nBen: Fine.\n"

        assert said("a.txt", text)[2] == ("Ann", "How are you? and your cat?", None, (3, 4))

    def test_a_clock_before_the_name_is_its_time(self):
        text = "0:05 Ann: Hello.\n0:09 Ben: Hello.\n[1:00:02] Ann: Bye.\n01:00:03 Ben: Bye.\n"

        assert [(row[0], row[2]) for row in said("a.txt", text)] == [
            ("Ann", 5.0),
            ("Ben", 9.0),
            ("Ann", 3602.0),
            ("Ben", 3603.0),
        ]

    @pytest.mark.parametrize(
        "text",
        [
            "Note: this is a text.\nWarning: it has labels.\nTip: none comes back.\nEnd: of it.\n",
            "One line: and another\nwithout a name\nand a third\nand a fourth\n",
            "[1] a list\n[2] of things\n",
            "We met at [10:00] and <b>ate</b>.\n",
        ],
    )
    def test_a_text_with_labels_is_a_text(self, text):
        document = read(("a.txt", text))

        assert (document.kind, document.text, document.cues) == ("text", text, ())


def message(at, text, author="ann", **more):
    return {"timestamp": f"2024-01-01T10:{at}+00:00", "content": text, "author": {"name": author}, **more}


class TestDiscord:
    def test_messages_are_said_by_their_authors_in_seconds_from_the_first(self):
        messages = [
            message("00:00", "hi"),
            message("00:30", "pinned", type="ChannelPinnedMessage"),
            message("01:00", "", attachments=[{}]),
            message("02:00.500", "hello", author="ben", type="Reply") | {"author": {"name": "b", "nickname": "ben"}},
        ]
        document = read(("a.json", json.dumps({"guild": {}, "channel": {}, "messages": messages})))

        assert document.kind == "chat"
        assert [(cue.speaker, cue.text, cue.start_s) for cue in document.cues] == [
            ("ann", "hi", 0.0),
            ("ben", "hello", 120.5),
        ]

    def test_a_message_that_cannot_be_read_is_left_out_and_named(self):
        text = json.dumps({"messages": [message("00:00", "hi"), {"content": "lost"}, message("00:01", "bye")]})
        document = read(("a.json", text))

        assert [cue.text for cue in document.cues] == ["hi", "bye"]
        assert [(note.fault, note.lost) for note in document.notes] == [("format", True)]
        assert "message 2 lacks" in document.notes[0].reason

    def test_a_channel_of_nothing_but_such_messages_is_an_error(self):
        with pytest.raises(IngestError, match="message 1 lacks"):
            read(("a.json", '{"messages": [{}]}'))


class TestTables:
    def test_a_tsv_has_times_speaker_and_lines(self):
        text = "start\tend\ttext\tspeaker\n0\t1.5\tHello there\tAnn\n00:02\t0:00:03.5\tBye now\t\n"

        assert said("a.tsv", text) == [("Ann", "Hello there", 0.0, (2, 2)), (None, "Bye now", 2.0, (3, 3))]

    def test_whole_numbers_that_nobody_could_mean_as_seconds_are_milliseconds(self):
        text = "start\tend\ttext\n0\t2500\tHello there\n2500\t4000\tand good morning\n"

        assert [(cue.start_s, cue.end_s) for cue in read(("a.tsv", text)).cues] == [(0.0, 2.5), (2.5, 4.0)]

    def test_whole_seconds_stay_seconds(self):
        text = "start\tend\ttext\n0\t2\tHello there\n2\t4\tand good morning\n"

        assert read(("a.tsv", text)).end_s == 4.0

    def test_a_bad_row_is_left_out_with_its_line(self):
        text = "start\tend\ttext\n0\t2\tHello there\n2\nx\t4\tlost\n4\t5\tBye now\n"
        document = read(("a.tsv", text))

        assert document.text == "Hello there\nBye now"
        assert [(note.line, note.lost) for note in document.notes] == [(3, True), (4, True)]

    def test_a_table_without_the_columns_is_no_transcript(self):
        with pytest.raises(IngestError, match="columns start, end and text are needed") as caught:
            read(("a.tsv", "a\tb\n1\t2\n"))
        assert caught.value.line == 1

    def test_a_json_item_may_have_a_duration(self):
        text = '[{"start": 1.0, "duration": 2.0, "text": "Hello"}]'

        assert read(("a.json", text)).end_s == 3.0


PAGE = """<!doctype html><html><head><title>T</title></head><body><nav><a href="/">Home</a> <a href="/x">Menu</a></nav>
<article><h1>The outage</h1><p>The gateway was down for an hour on Sunday, because a timeout was set in minutes.</p>
<p>Nobody lost any data, and the team has written down what it learned from it.</p></article>
<footer>Cookies</footer></body></html>"""


class TestPages:
    @pytest.mark.parametrize("name", ["a.html", "a.txt", "page"])
    def test_a_page_is_its_article_whatever_it_is_called(self, name):
        document = read((name, PAGE))

        assert document.kind == "html"
        assert "because a timeout was set in minutes." in document.text
        assert "what it learned" in document.text
        assert "Menu" not in document.text
        assert "<p>" not in document.text

    def test_a_page_without_text_is_empty(self):
        with pytest.raises(IngestError, match="holds no text"):
            read(("a.html", "<html><body><script>x()</script></body></html>"))
