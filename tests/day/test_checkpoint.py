"""Facts about checkpoints of what was learned: with the tail behind it the whole fold, or not used."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.day import checkpoint
from bandits.day.checkpoint import load, save, take
from bandits.day.learning import Learning
from bandits.folds import checkpoints
from bandits.record.memory import MemoryRecord
from bandits.record.sql import SqlRecord
from bandits.router import Router
from bandits.settings.reward import RewardConfig
from bandits.types import Outcome
from tests.day.days import OTHER, SCOPE, Days, fold, plain, rows
from tests.logs import domain

STEPS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.floats(0.0, 1.0)), max_size=25)


@settings(deadline=None, max_examples=40)
@given(steps=STEPS, cut=st.integers(0, 50), mode=st.sampled_from(["watch", "learn"]))
def test_a_checkpoint_and_the_tail_behind_it_give_the_whole_fold(tmp_path_factory, policy, steps, cut, mode):
    """Cut anywhere, through the file: every bit is the same."""
    record, made = filled(steps)
    path = tmp_path_factory.mktemp("home") / "deep" / "one.json"
    reward = RewardConfig(weights={"quality": 1.0, "cost": 1.0}, dear_usd=1.0)
    head = fold(record, policy, mode, min(cut, record.head()), reward=reward)
    taken = take(head, record)
    if taken is not None:
        save(path, taken)

    again = Learning(SCOPE, head.domain, policy, "000001", 0)
    assert load(path, again, record) is (record.head() > 0)
    again.follow(record, record.head())

    assert plain(again) == plain(fold(record, policy, mode, reward=reward))
    assert rows(again.learned) == rows(fold(record, policy, mode, reward=reward).learned)
    assert made >= len(again.waiting)


def filled(steps):
    """A record of decisions of two scopes, each answered whole, in part, later, or not at all."""
    record, rng, made = MemoryRecord(), np.random.default_rng(0), []
    routers = [Router(scope, domain(1.0, between_nights="still"), record, rng, lambda: 0.0) for scope in (SCOPE, OTHER)]
    for kind, back, quality in steps:
        if kind < 2 or not made:
            made.append(routers[kind == 1].decide(rng.normal(size=2).astype(np.float32)))
        else:
            decision = made[-1 - back % len(made)]
            part = {"quality": quality} if kind == 2 else {"cost_usd": quality}
            routers[0]._record.append(Outcome(decision.id, 1.0, decision.scope, **part))
    return record, len(made)


@pytest.mark.parametrize(
    "tamper",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_text(path.read_text().replace('"counts": [', '"counts": [1')),
        lambda path: path.write_bytes(b"\xff"),
        lambda path: path.write_bytes(path.read_bytes()[:-70]),
        lambda path: path.unlink(),
    ],
)
def test_a_damaged_checkpoint_is_not_used(tmp_path, policy, tamper):
    """A digit that changed is seen by the hash."""
    days = Days(policy, mode="learn")
    days.serve(20)
    path = tmp_path / "one.json"
    days.router.known.keep(path)
    fresh = Learning(SCOPE, days.domain, policy, "000001", 0)
    assert load(path, fresh, days.record)
    tamper(path)

    fresh = Learning(SCOPE, days.domain, policy, "000001", 0)
    assert not load(path, fresh, days.record)
    assert fresh.position == 0


@pytest.mark.parametrize(
    "other",
    [
        {"version": "000002"},
        {"start": 3},
        {"epoch": 2},
        {"domain": domain(1.0, between_nights="watch")},
        {"domain": domain(1.0, between_nights="learn", reward=RewardConfig(aggregate="first"))},
    ],
    ids=["version", "start", "epoch", "mode", "reward"],
)
def test_a_checkpoint_of_something_else_is_not_used(tmp_path, policy, other):
    """Of another policy, epoch or configuration."""
    days = Days(policy, mode="learn")
    days.serve(20)
    path = tmp_path / "one.json"
    days.router.known.keep(path)
    named = {"scope": SCOPE, "domain": days.domain, "policy": policy, "version": "000001", "start": 0}

    assert load(path, Learning(**named), days.record)
    assert not load(path, Learning(**named | other), days.record)
    assert not load(path, Learning(**named), filled([(0, 0, 0.5)] * 40)[0])  # another record


def test_what_is_heard_while_a_checkpoint_is_written_is_not_in_it(tmp_path, policy):
    """The tail behind its position tells it, once."""
    record, _ = filled([(0, 0, 0.0)])
    reward = RewardConfig(weights={"quality": 1.0, "cost": 1.0}, dear_usd=1.0)
    head = fold(record, policy, "learn", 1, reward=reward)
    taken = take(head, record)
    (waits,) = head.waiting
    record.append(Outcome(waits, 1.0, SCOPE, quality=0.5))  # of two parts, so it goes on waiting
    head.follow(record)
    save(tmp_path / "one.json", taken)

    again = Learning(SCOPE, head.domain, policy, "000001", 0)
    assert load(tmp_path / "one.json", again, record)
    assert (again.position, again.waiting[waits].outcomes) == (1, [])
    again.follow(record)
    assert plain(again) == plain(head)


def test_a_checkpoint_of_what_was_erased_while_it_was_written_does_not_stay(tmp_path, policy, monkeypatch):
    """Nobody who erases has seen the file."""
    path = tmp_path / "one.json"
    with SqlRecord(f"sqlite:///{tmp_path}/record.db") as record:
        days = Days(policy, record, "learn")
        days.ask(user="gone")
        days.ask(user="stays")
        days.router.catch_up()

        def overtaken(*given):
            save(*given)
            record.erase("acme", user="gone")

        days.router.known.keep(path)
        assert checkpoints.read(path) is not None
        monkeypatch.setattr(checkpoint, "save", overtaken)
        days.router.known.keep(path)
    assert not path.exists()
