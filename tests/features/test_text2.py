"""Facts about "text-2": no case and no blank moves it, a typo hardly; each group says what its names say."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandits.errors import ConfigError, ContextError
from bandits.features import GROUPS, NAMES, Asker, Request, Turn, context, names, text_context, width, without

GOLDEN = Path(__file__).parents[1] / "golden" / "text-2.json"
DAY, HOUR = 86_400.0, 3_600.0
QUESTION = (
    "The planet that contains many ecosystems is sequentially fifth, first, third or fourth from the centre of its "
    "solar system. Which one is it, and how do we know about 4 of them? Answer with the correct option and explain."
)
REQUESTS = {
    "question": Request(QUESTION),
    "code": Request("Fix it:\n```python\ndef half(x_in):\n    return x_in // 2  # [why?]\n```"),
    "german": Request("Wie viele Planeten hat das Sonnensystem, und warum ist der Himmel nicht schwarz?", time=1e9),
    "chinese": Request("为什么天空是蓝色的？请写三句话。"),
    "russian": Request("Сколько будет 2+2? Напиши ответ."),
    "choices": Request("Which is $x^2$ at 3?\n(A) 6\n(B) 9\n(C) 12", time=1_795_000_000.0),
    "emoji": Request("🙂 ok"),
    "empty": Request(""),
    "talk": Request(
        "and again: why is the sky blue?",
        (
            Turn("user", "Why is the sky blue?", 1_794_999_000.0),
            Turn("assistant", "Light scatters: `def f(x): ...`", 1_794_999_010.0),
        ),
        1_795_000_000.0,
        Asker(12, 0.75, 0.5, 3.5),
    ),
}


def column(request: Request, name: str) -> float:
    """One feature."""
    return float(context(request, "text-2")[NAMES["text-2"].index(name)])


def columns(request: Request, group: str) -> list[float]:
    """All features of a group."""
    return [column(request, name) for name in GROUPS[group].names]


def test_text_2_is_what_it_was_when_it_was_named():
    """The golden file: a change of any feature needs a new schema name, or old logs would lie."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))

    assert golden["names"] == list(names("text-2"))
    assert list(golden["contexts"]) == list(REQUESTS)
    for name, expected in golden["contexts"].items():
        np.testing.assert_allclose(context(REQUESTS[name], "text-2"), expected, rtol=0.0, atol=1e-6)


def test_another_process_computes_the_same_bits():
    """No hash seed, no locale, no state."""
    code = (
        "import sys; from bandits.features import *\n"
        "talk = Request(sys.argv[1], (Turn('user', sys.argv[1], 3.0),), 9.0, Asker(3, 0.5))\n"
        "print(context(talk, 'text-2').tobytes().hex())"
    )
    here = context(Request(QUESTION, (Turn("user", QUESTION, 3.0),), 9.0, Asker(3, 0.5)), "text-2")

    other = subprocess.run([sys.executable, "-c", code, QUESTION], capture_output=True, text=True, check=True)

    assert other.stdout.strip() == here.tobytes().hex()


times = st.none() | st.floats(-1e12, 1e12)
turns = st.builds(Turn, st.sampled_from(["user", "assistant"]), st.text(max_size=60), times)
askers = st.builds(
    Asker, st.integers(0, 10**9), st.none() | st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1e5)
)


@given(st.builds(Request, st.text(max_size=200), st.lists(turns, max_size=4).map(tuple), times, st.none() | askers))
def test_any_request_has_a_context_that_a_scaler_can_take(request):
    """Whatever was said, whenever: finite, of the schema's width, and nothing so large that it would be clipped."""
    found = context(request, "text-2")

    assert found.shape == (width("text-2"),) == (len(names("text-2")),)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= 64.0


# "ı" has no capital of its own, so that raising its case makes another letter of it.
words = st.lists(st.text(st.characters(exclude_characters="ı", exclude_categories=["Z", "C", "M"]), min_size=1))


@given(words, st.sampled_from([str.lower, str.upper, str.title, str.swapcase]))
def test_no_case_moves_a_context(parts, change):
    """To the last bit, so that no choice flips on it."""
    text = " ".join(parts)

    assert context(Request(change(text)), "text-2").tobytes() == context(Request(text), "text-2").tobytes()


@given(words, st.text(" \t\n\r\u00a0\u2003", min_size=1, max_size=4))
def test_no_blank_moves_a_context(parts, blank):
    """Indented, wrapped, with blank lines or without: to the last bit."""
    plain, spread = Request(" ".join(parts)), Request(blank + blank.join(parts) + blank)

    assert context(plain, "text-2").tobytes() == context(spread, "text-2").tobytes()
    if len(parts) > 1 and blank != " ":
        assert text_context(plain.text).tobytes() != text_context(spread.text).tobytes()  # which text-1 did not promise


def test_two_letters_swapped_move_text_2_far_less_than_text_1():
    """Each pair of neighbours of a prompt in turn; the hashed parts alone, which both scale to norm 1."""

    def moved(hashed) -> float:
        pairs = [
            i for i in range(len(QUESTION) - 1) if QUESTION[i : i + 2].isalpha() and QUESTION[i] != QUESTION[i + 1]
        ]
        typos = [QUESTION[:i] + QUESTION[i + 1] + QUESTION[i] + QUESTION[i + 2 :] for i in pairs]
        return float(np.mean([np.linalg.norm(hashed(typo) - hashed(QUESTION)) for typo in typos]))

    pieces = moved(lambda text: np.array(columns(Request(text), "words")))
    whole = moved(lambda text: text_context(text)[12:])

    assert pieces < 0.75 * whole


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("abc", "log_characters", np.log1p(3)),
        ("ab cd", "log_words", np.log1p(2)),
        ("ab abcd", "mean_word_length", np.log1p(3)),
        ("a b A b", "share_distinct_words", 0.5),
        ("1a2b", "share_digits", 0.5),
        ("a_b!", "share_symbols", 0.5),
        ("é é", "share_not_ascii", 2 / 3),
        ("1,000.5 and 7", "log_numbers", np.log1p(2)),
        ("One. Two! 3.5 is no end", "log_sentences", np.log1p(2)),
        ("蓝。天", "log_sentences", np.log1p(1)),
        ("a, b， c", "log_commas", np.log1p(2)),
        ('"a" it’s', "log_quotes", np.log1p(3)),
        ("(A) x\n(b) y 3) z", "log_choices", np.log1p(3)),
        ("I paid it all (a lot)", "log_choices", 0.0),
        ("$x$", "has_formula", 1.0),
        ("x", "has_formula", 0.0),
        ("abc где", "script_cyrillic", 0.5),
        ("天空 ab", "script_han", 0.5),
        ("そら", "script_kana", 1.0),
        ("", "script_latin", 0.0),
        ("der Hund und die Katze", "language_german", 0.5),
        ("the cat and the dog", "language_english", 0.5),
        ("one two three four five six seven eight nine die", "language_german", 0.0),
        ("def f(x): return x", "has_code", 1.0),
        ("SELECT name FROM people", "has_code", 1.0),
        ("He went to class and will return to us.", "has_code", 0.0),
        ("my_name", "has_identifier", 1.0),
        ("_ a _", "has_identifier", 0.0),
        ("f(g(x))", "log_calls", np.log1p(2)),
        ("a = b + c", "log_operators", np.log1p(2)),
        ("x[1] {", "log_brackets", np.log1p(2)),
        ("why? what？", "log_question_marks", np.log1p(2)),
        ("How many are there?", "asks_amount", 1.0),
        ("Wie viele sind es?", "asks_amount", 1.0),
        ("多少钱", "asks_amount", 1.0),
        ("somehow manyfold", "asks_amount", 0.0),
        ("¿Por qué?", "asks_reason", 1.0),
        ("How to cook rice", "asks_way", 1.0),
        ("Which one?", "asks_fact", 1.0),
        ("Summarise this", "asks_text", 1.0),
        ("Hello", "asks_text", 0.0),
    ],
)
def test_a_feature_is_what_its_name_says(text, name, expected):
    """One small text each."""
    assert column(Request(text), name) == pytest.approx(expected, abs=1e-6)


def test_pieces_have_norm_1_and_tell_topics_apart():
    """However long a text is; texts that share words are nearer than texts that share none."""

    def pieces(text: str) -> np.ndarray:
        return np.array(columns(Request(text), "words"))

    physics = pieces("how does the energy of a photon depend on the frequency of its quantum state")
    more = pieces("photons have an energy: what is the frequency that depends on the state of a quantum")
    cooking = pieces("bake two loaves of bread with yeast and salt, then butter them while they are warm")

    assert np.linalg.norm(physics) == pytest.approx(1.0)
    assert np.linalg.norm(pieces("photon " * 500)) == pytest.approx(1.0)
    assert np.linalg.norm(physics - more) < np.linalg.norm(physics - cooking)
    assert pieces("in 1999") == pytest.approx(pieces("in 7"))  # a number is a number
    assert not pieces("").any()


class TestConversation:
    """What was said before."""

    def test_without_one_all_is_zero(self):
        """And with an unknown time of the turns, only that time is."""
        assert columns(Request("hi"), "conversation") == [0.0] * 6
        assert column(Request("hi", (Turn("user", "ho"),), 5.0), "log_seconds_since") == 0.0

    def test_turns_lengths_and_the_time_since_are_told(self):
        """Blanks do not count; the answer that counts is the last one, the time that of the last turn."""
        talk = (Turn("user", "why  so?", 100.0), Turn("assistant", "abc"), Turn("assistant", "abcde", 130.0))

        found = columns(Request("ok", talk, 190.0), "conversation")

        assert found == pytest.approx(np.log1p([3, 15, 5, 0, 0, 60]), abs=1e-6)

    def test_code_that_was_shown_before_is_remembered(self):
        """Whoever showed it."""
        shown = (Turn("assistant", "```x```"), Turn("user", "thanks"))

        assert column(Request("more", shown), "has_code_before") == 1.0
        assert column(Request("more", shown[1:]), "has_code_before") == 0.0

    def test_a_question_asked_again_is_like_the_last_one(self):
        """1 for the same, whatever its case; the share of common words otherwise; answers are no questions."""
        before = (Turn("user", "Something else"), Turn("user", "Why is it Blue?"), Turn("assistant", "no idea"))

        likeness = [
            column(Request(text, before), "likeness_to_last_question") for text in ("why is it BLUE?", "why now?")
        ]

        assert likeness == pytest.approx([1.0, 1 / 5])
        assert column(Request("no idea", before), "likeness_to_last_question") == 0.0

    def test_clocks_that_disagree_do_not_break_it(self):
        """A turn from the future was just now."""
        assert column(Request("hi", (Turn("user", "ho", 9.0),), 5.0), "log_seconds_since") == 0.0


class TestTime:
    """Hour and weekday."""

    def test_circles_close(self):
        """A minute before midnight is near a minute after; Sunday is as near to Monday as Monday to Tuesday."""
        monday = 4 * DAY  # the epoch began on a Thursday
        late, early = (np.array(columns(Request("", time=monday + x), "time")[:2]) for x in (DAY - 60, 60))
        days = [np.array(columns(Request("", time=monday + n * DAY), "time")[2:]) for n in (-1, 0, 1)]

        assert np.linalg.norm(late - early) < 0.01
        assert np.linalg.norm(days[0] - days[1]) == pytest.approx(np.linalg.norm(days[1] - days[2]))
        assert np.linalg.norm(days[0] - days[1]) > 0.8

    def test_a_week_later_is_the_same_and_an_unknown_time_is_none_of_them(self):
        """Known times lie on the circles, an unknown one in their middle."""
        now = columns(Request("", time=1e9), "time")

        assert columns(Request("", time=1e9 + 7 * DAY), "time") == pytest.approx(now, abs=1e-6)
        assert columns(Request("", time=1e9 + 6 * HOUR), "time")[:2] != pytest.approx(now[:2], abs=0.1)
        assert np.hypot(*now[:2]) == pytest.approx(1.0)
        assert columns(Request(""), "time") == [0.0] * 4


def test_an_asker_is_told_from_nobody():
    """A newcomer without rewards is known, and different from somebody whose rewards were 0."""
    assert columns(Request(""), "asker") == [0.0] * 6
    assert columns(Request("", asker=Asker(0)), "asker") == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert columns(Request("", asker=Asker(0, 0.0)), "asker") == [1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    full = [1.0, np.log1p(7), 1.0, 0.25, 0.5, np.log1p(2)]
    assert columns(Request("", asker=Asker(7, 0.25, 0.5, 2.0)), "asker") == pytest.approx(full, abs=1e-6)


class TestSchemas:
    """Names of schemas."""

    def test_names_of_columns_are_distinct(self):
        """Within text-2, so that each can be asked for."""
        assert len(set(names("text-2"))) == width("text-2")
        assert len(set(names("text-1"))) == 76

    @pytest.mark.parametrize("left_out", [*combinations(GROUPS, 1), *combinations(GROUPS, 2), tuple(GROUPS)[1:]])
    def test_a_group_that_is_left_out_takes_its_columns_along(self, left_out):
        """And leaves every other number as it is."""
        schema, request = without(*left_out), REQUESTS["talk"]
        gone = {name for group in left_out for name in GROUPS[group].names}
        kept = [
            number for number, name in zip(context(request, "text-2"), names("text-2"), strict=True) if name not in gone
        ]

        assert context(request, schema).tolist() == kept
        assert width(schema) == len(kept)
        assert names(schema) == tuple(name for name in names("text-2") if name not in gone)

    @pytest.mark.parametrize(
        "bad",
        [
            "text-3",
            "text-2-without-",
            "text-2-without-poetry",
            "text-2-without-words-code",  # not in order: two names for one schema
            "text-2-without-words-words",
            without(*GROUPS),
            "",
        ],
    )
    def test_a_schema_that_is_none_is_refused(self, bad):
        """With the names of those there are."""
        for ask in (width, names, lambda schema: context(Request("x"), schema)):
            with pytest.raises(ConfigError, match=r"one of text-1, text-2, text-2-without-GROUP… \(of surface, "):
                ask(bad)

    def test_a_callers_own_numbers_are_not_made_of_a_prompt(self):
        """vector-D has columns, but only the caller can fill them."""
        assert names("vector-3") == ("0", "1", "2")
        with pytest.raises(ContextError, match="send its numbers"):
            context(Request("x"), "vector-3")
