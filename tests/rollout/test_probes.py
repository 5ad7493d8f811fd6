"""Facts about golden probes: what must be seen of a policy before anybody is served by it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from bandits.errors import ContextError
from bandits.rollout import probes
from bandits.rollout.giving import approve, begin, replace_all, roll_back, standing
from tests.rollout.world import SCOPE, World, config

DOMAIN = config().domains["own"]


@dataclass
class Odd:
    """A policy that gives what a test wants."""

    row: object
    arms: tuple[str, ...] = ("a", "b")
    schema: str = "vector-2"
    prices: object = None
    supported: object = None
    floor: float = 0.02

    def __post_init__(self):
        self.prices, self.supported = np.array([1e-4, 1e-4]), np.ones(2, np.bool_)

    def probabilities(self, contexts, allowed, pressure=1.0):
        row = np.array(self.row(contexts) if callable(self.row) else self.row)
        return np.where(allowed, row, 0.0)[:, : len(row)] / (1.0 if allowed.all() else row[allowed[0]].sum())


def crash(contexts):
    raise ContextError("no such column")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([0.5, 0.5], None),
        ([np.nan, 1.0], "finite"),
        ([0.7, 0.7], "sum to 1"),
        ([-0.5, 1.5], ">= 0"),
        ([1e-6, 1.0 - 1e-6], "at least"),
        (crash, "raised ContextError"),
    ],
    ids=["sound", "nan", "sum", "negative", "floor", "raises"],
)
def test_a_policy_must_give_distributions_with_their_floor(row, said):
    """Each fault is told, and a sound policy has none."""
    found = probes.fault(Odd(row), DOMAIN)
    assert found is None if said is None else said in found


def test_a_policy_that_is_always_slow_fails_and_one_slow_answer_does_not():
    """A busy machine is no fault of the policy: the best of three counts."""
    ticks = iter(range(10_000))
    assert "must take under" in probes.fault(Odd([0.5, 0.5]), DOMAIN, clock=lambda: float(next(ticks)))
    once = iter([0.0, 9.0, *np.arange(9.0, 500.0, 0.01)])
    assert probes.fault(Odd([0.5, 0.5]), DOMAIN, clock=lambda: next(once)) is None


def test_a_snapshot_that_fails_its_probes_never_serves(world):
    """Begun and rolled back in one order, with the reason."""
    stable, bad = world.put(), world.put()
    (world.home.snapshots / str(SCOPE) / bad / "arrays.safetensors").write_bytes(b"")
    world.begin(bad, stable)

    order = world.orders()[-1]
    assert (order.number, order.phase, order.stable, order.who) == (1, "rolled back", stable, "probe")
    assert world.start().router.serving.version == stable


def test_a_canary_whose_snapshot_is_damaged_is_rolled_back(rolling, monkeypatch):
    """The controller loads it anew with each probe; what has loaded it already stops too."""
    world, stable, candidate = rolling
    (world.home.snapshots / str(SCOPE) / candidate / "manifest.sig").write_bytes(bytes(64))
    monkeypatch.setattr("bandits.rollout.controller.PROBE_S", 0.0)
    world.server.refresh()

    assert world.orders()[-1].phase == "rolled back"
    assert "signed by a trusted key" in world.orders()[-1].why
    assert {decision.policy for decision in world.serve(range(60))} == {stable}


def test_where_a_person_is_asked_nothing_is_served_before_the_answer(tmp_path):
    """Then it begins with its first stage."""
    world = World(tmp_path, mode="ask")
    stable = world.put()
    world.start()
    candidate = world.put()
    world.begin(candidate, stable)
    world.server.refresh()
    assert {decision.policy for decision in world.serve(range(60))} == {stable}

    approve(world.home, SCOPE, world.key, world.now, who="ann", why="looked at it")
    world.server.refresh()
    assert {decision.policy for decision in world.serve(range(100, 160))} == {stable, candidate}


def test_a_newer_snapshot_takes_the_place_of_one_under_way_and_to_begin_again_changes_nothing(rolling):
    """The old one ends once, and what serves stays."""
    world, stable, candidate = rolling
    newer = world.put()
    for _ in range(2):
        world.begin(newer, candidate)

    told = [(order.phase, order.candidate, order.stable) for order in world.orders()]
    assert told == [("canary", candidate, stable), ("aborted", candidate, stable), ("canary", newer, stable)]


def test_after_an_erasure_only_what_was_learned_anew_serves(rolling):
    """Though an older version was the stable one."""
    world, _, candidate = rolling
    anew = world.put()
    replace_all(world.home, SCOPE, anew, world.key, world.now, "erased")
    world.server.refresh()

    assert [order.phase for order in world.orders()] == ["canary", "aborted", "complete"]
    assert world.server.router.serving.version == anew
    assert standing(world.home, SCOPE).stable == anew
    with pytest.raises(Exception, match="may not"):
        roll_back(world.home, SCOPE, world.config, world.key, world.now, who="a", why="b", to="000077")
    begin(world.home, SCOPE, world.config, candidate, previous=None, key=world.key, now=world.now, why="again")
    assert standing(world.home, SCOPE).candidate == anew  # what ended once is not begun again
