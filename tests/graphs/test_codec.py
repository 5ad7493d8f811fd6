"""A State as bytes: what comes back equals what went in, nothing is built that a State cannot hold, nothing is run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import EXAMPLE
from graphs.codec import decode, encode, storable
from graphs.errors import RunsError
from graphs.passage import Cue
from graphs.state import PilotRequest
from graphs.steps import STEPS

texts = st.text(st.characters(exclude_categories=["Cs"]))
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts | texts.map(Path)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(texts, inner, max_size=3)
        | st.builds(Cue, text=texts, start_s=st.floats(0, 9), end_s=st.floats(0, 9), speaker=st.none() | texts)
    ),
    max_leaves=12,
)


@settings(deadline=None)  # the first one imports
@given(values)
def test_what_comes_back_equals_what_went_in(value):
    """Types too: a tuple is no list, a path no text, a key "$" no tag."""
    back = decode(encode(value))

    assert back == value
    assert type(back) is type(value)


def test_every_update_of_the_real_steps_comes_back():
    """So a run can stop behind any of them."""
    state = {"request": PilotRequest("a", "b", [EXAMPLE, ("x.txt", "hi")]), "run_id": "r"}
    for step in STEPS:
        update = step.run(dict(state))
        back = decode(encode(update))
        assert back.keys() == update.keys()
        if step.name != "embed":  # arrays do not compare with ==
            assert back == update
        state |= back
    one, two = update_of_embed(state), state["index"]
    assert np.array_equal(one.vectors, two.vectors)
    assert one.search("deploy") == two.search("deploy")
    assert decode(encode(state["request"])) == state["request"]


def update_of_embed(state):
    return next(step for step in STEPS if step.name == "embed").run(dict(state))["index"]


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<i8", "|b1", "<u2"])
def test_arrays_come_back_to_the_last_bit(dtype):
    """Several in one value, each with its shape, whatever its order in memory."""
    first, second = np.arange(12).reshape(3, 4).astype(dtype), np.asfortranarray(np.ones((2, 0, 2), dtype))
    back = decode(encode({"a": first, "b": (second, first.T)}))

    for was, now in ((first, back["a"]), (second, back["b"][0]), (first.T, back["b"][1])):
        assert (was.dtype, was.shape, was.tobytes()) == (now.dtype, now.shape, now.tobytes())


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", np.array([object()]), {1: 2}, EXAMPLE.stat(), 1j])
def test_what_no_state_holds_is_refused_when_it_is_written(value):
    """And said so, with its type."""
    with pytest.raises(RunsError, match="add it to the annotations of State"):
        encode(value)


def framed(said):
    data = json.dumps(said).encode()
    return len(data).to_bytes(8, "big") + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        encode({"a": 1})[:-1],
        pickle.dumps({"a": 1}),
        framed({"$": "Popen", "of": {"args": ["true"]}}),
        framed({"$": "Cue", "of": {"colour": "blue"}}),
        framed({"a": 1}),
        framed({"$": "array", "of": ["|O", [1], 0]}),
        framed({"$": "array", "of": ["<f8", [10], 0]}),
        framed({"$": "tuple", "of": 3}),
    ],
)
def test_bytes_that_are_not_its_own_are_refused(data):
    """Whatever stands in them."""
    with pytest.raises(RunsError, match="run its documents anew"):
        decode(data)


def test_the_types_that_are_built_are_those_that_a_state_is_annotated_with():
    """Found by following the annotations; a class that nobody annotated is not among them."""
    assert {"Document", "Cue", "Segment", "Analysis", "Finding", "Evidence", "LeftOut", "Index"} <= storable().keys()
    assert "PilotResult" not in storable()
