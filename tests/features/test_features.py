"""Facts about contexts and "text-1": finite, the same vector in every process and for ever under one schema name."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandits.errors import ConfigError, ContextError
from bandits.features import NAMES, Request, check_context, context, text1, text_context, width

PROMPT = "Write a python function:\n```def f(x): return 2*x```\nWhat does f(21) give? Préface $5"

GOLDEN = {
    1: 0.25,
    7: 0.25,
    16: 0.25,
    23: -0.25,
    28: -0.25,
    30: 0.25,
    31: 0.25,
    33: 0.25,
    42: 0.25,
    45: 0.25,
    46: -0.25,
    47: 0.25,
    48: 0.25,
    49: -0.25,
    59: 0.25,
    62: 0.25,
}


def test_text_1_is_what_it_was_when_it_was_named():
    """The golden vector: a change of any feature needs a new schema name, or old logs would lie."""
    vector = text_context(PROMPT)
    surface = [round(float(value), 4) for value in vector[:12]]

    assert surface == [4.4427, 2.7081, 1.0986, 0.0476, 0.1786, 0.0357, 0.0119, 1.0, 0.5071, 1.0, 1.0, 1.0]
    hashed = {i: round(float(v), 4) for i, v in enumerate(vector[12:]) if v}
    assert hashed == GOLDEN
    assert context(Request(PROMPT), "text-1").tobytes() == vector.tobytes()


def test_another_process_computes_the_same_bits():
    """No hash seed, no locale, no state."""
    code = "import sys; from bandits.features import text_context; print(text_context(sys.argv[1]).tobytes().hex())"

    other = subprocess.run([sys.executable, "-c", code, PROMPT], capture_output=True, text=True, check=True)

    assert other.stdout.strip() == text_context(PROMPT).tobytes().hex()


@given(st.text(max_size=300))
def test_any_text_has_a_finite_context_of_the_schemas_width(text):
    """Empty, emoji, lone surrogates, control characters: all have features."""
    context = text_context(text)

    assert context.shape == (width("text-1"),) == (len(NAMES["text-1"]),)
    assert context.dtype == np.float32
    assert np.isfinite(context).all()
    assert np.abs(context[12:]).max() <= 1.0


def test_a_lone_surrogate_is_text_too():
    """It reaches us from broken clients."""
    assert np.isfinite(text_context("\ud800 hello")).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_not_finite_is_named(bad):
    """Where, and what to do."""
    context = np.zeros(5)
    context[3] = bad

    with pytest.raises(ContextError, match=r"feature\(s\) \[3\]"):
        check_context(context)


def test_a_context_of_another_length_is_refused():
    """It was computed under another schema."""
    with pytest.raises(ContextError, match=r"shape \(76,\)"):
        check_context(np.zeros(75), 76)


def test_own_vectors_have_a_schema_too():
    """vector-D for callers with features of their own; anything else is a configuration error."""
    assert width("vector-26") == 26
    for unknown in ("vector-0", "vector-", "text-9", "vector-99999"):
        with pytest.raises(ConfigError, match="features must be one of text-1"):
            width(unknown)


@given(st.text() | st.text(st.characters(max_codepoint=127)))
def test_characters_are_counted_alike_in_ascii_and_beyond(text):
    """The quick way counts what the plain one counts."""
    assert text1._counts(text) == tuple(sum(map(kind, text)) for kind in text1._KINDS)
