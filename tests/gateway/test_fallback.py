"""Facts about who can take a prompt, and who stands in: capability first, then the policy's own order, then money."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandits.types import Decision, new_id
from gateway.adapter import Ask
from gateway.fallback import incapable, roomier, stand_ins, tokens
from tests.gateway.conftest import SCOPE, arm, domain

ARMS = (
    arm("cheap", usd_per_request=1e-4, context_tokens=4_000),
    arm("middle", usd_per_request=1e-3, context_tokens=8_000),
    arm("large", usd_per_request=1e-2, context_tokens=100_000),
    arm("vast", usd_per_request=2e-2),
)
DOMAIN = domain(*ARMS)


def decision(action: int, *chances: float) -> Decision:
    return Decision(
        id=new_id(0.0, bytes(10)),
        time=0.0,
        scope=SCOPE,
        schema="text-1",
        context=np.zeros(1, np.float32),
        arms=DOMAIN.arm_names,
        excluded={name: "dear" for name, chance in zip(DOMAIN.arm_names, chances, strict=True) if chance == 0.0},
        probabilities=np.array(chances),
        action=action,
        propensity=chances[action],
        policy="explore",
    )


@pytest.mark.parametrize(
    ("chances", "closed", "expected"),
    [
        ((0.5, 0.3, 0.1, 0.1), {}, ["middle", "large", "vast"]),  # as the policy prefers them
        ((0.5, 0.1, 0.3, 0.1), {"large": "open"}, ["middle", "vast"]),  # never one that is left alone
        ((1.0, 0.0, 0.0, 0.0), {}, ["middle"]),  # the cheapest of those that are left, whatever the budget says
        ((1.0, 0.0, 0.0, 0.0), {"middle": "no tools", "large": "no tools"}, ["vast"]),
        ((1.0, 0.0, 0.0, 0.0), {"middle": "-", "large": "-", "vast": "-"}, []),
    ],
)
def test_the_order_of_the_stand_ins(chances, closed, expected):
    """Likeliest first, closed never."""
    assert stand_ins(decision(0, *chances), DOMAIN, closed, 9) == expected


def test_what_stays_with_one_arm_falls_back_to_no_dearer_ones():
    """A decision that only one arm could win says nothing of the others: what the request had money for stands in."""
    assert stand_ins(decision(2, 0.0, 0.0, 1.0, 0.0), DOMAIN, {}, 9) == ["middle", "cheap"]


@given(st.permutations([0.0, 0.0, 0.3, 0.7]), st.sets(st.sampled_from(DOMAIN.arm_names)), st.integers(0, 4))
def test_stand_ins_are_few_and_the_cheapest_able_is_the_last_resort(chances, closed, most):
    """Whatever the probabilities: no arm twice, none closed, never the one drawn, and never without the cheapest."""
    drawn = max(range(4), key=lambda index: chances[index])
    found = stand_ins(decision(drawn, *chances), DOMAIN, dict.fromkeys(closed, "-"), most)
    able = [one for one in ARMS if one.name not in closed and one.name != DOMAIN.arm_names[drawn]]
    assert len(found) == len(set(found)) <= most
    assert set(found) <= {one.name for one in able}
    if able and most:
        assert min(able, key=lambda one: one.usd_per_request).name in found


def test_after_too_long_a_prompt_only_more_room_helps():
    """A room that is not known may be large enough; other failures leave all in place."""
    assert roomier(["cheap", "large", "vast"], "middle", DOMAIN, "too_long") == ["large", "vast"]
    assert roomier(["cheap", "large", "vast"], "middle", DOMAIN, "server") == ["cheap", "large", "vast"]
    assert roomier(["cheap"], "vast", DOMAIN, "too_long") == ["cheap"], "nothing is known of its room"


def test_what_is_asked_is_counted_with_tools_calls_and_the_answer():
    """About four characters to a token."""
    tool = {"type": "function", "function": {"name": "f", "description": "x" * 400, "parameters": {}}}
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "y" * 400}}
    plain = Ask.of("z" * 400)
    assert tokens(plain) == 100
    assert tokens(Ask(plain.messages, max_tokens=50)) == 150
    assert tokens(Ask(plain.messages, tools=(tool,))) > 200
    assert tokens(Ask(({"role": "assistant", "content": None, "tool_calls": [call]},))) > 100
    assert tokens(Ask(({"role": "user", "content": [{"type": "text", "text": "z" * 400}]},))) == 100
    assert incapable(ARMS[0], Ask.of("z" * 16_001)) is None
    assert incapable(ARMS[0], Ask.of("z" * 16_004)) == "its context is too short for the prompt"
