"""Facts about learning between nights: a fold of the record that replicas share, and that replay comes back to."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.config import NightConfig
from bandits.day import learning as module
from bandits.day.checkpoint import load, save
from bandits.day.learning import PRIOR, Guarded, Learning
from bandits.explaining.replay import Policies, verify
from bandits.explaining.why import explain
from bandits.learners.baselines import ContextFree
from bandits.learners.linear_policy import LinearPolicy
from bandits.night import night
from bandits.record.memory import MemoryRecord
from bandits.record.port import Row
from bandits.record.sql import SqlRecord
from bandits.router import Router
from bandits.served import Serving, first_policy
from bandits.settings.reward import RewardConfig
from bandits.types import Decision, Outcome, Scope, Slot
from tests.logs import ARMS, domain, simulate, truth

SCOPE, OTHER = Scope("acme", "main", "model_routing"), Scope("rival", "main", "model_routing")
DEAR = 2
GRID = np.random.default_rng(9).normal(size=(40, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def policy() -> LinearPolicy:
    """What a night learned; without a budget to keep, it plays the dear arm most."""
    return night.learn(simulate(1500, 1), domain(1.0), NightConfig(trials=1)).trained.policy


class Days:
    """A router, and people who answer it: arm `broken` earns .5 less."""

    def __init__(self, policy, record=None, mode="watch", seed=0, version="000001", **kwargs):
        self.record = MemoryRecord() if record is None else record
        self.now, self.rng = 0.0, np.random.default_rng([seed, 1])
        self.domain = domain(1.0, between_nights=mode)
        serving = Serving(policy, version) if policy is not None else None
        rng = np.random.default_rng([seed, 0])
        self.router = Router(SCOPE, self.domain, self.record, rng, lambda: self.now, serving=serving, **kwargs)

    def ask(self, user=""):
        self.now += 1.0
        return self.router.decide(self.rng.normal(size=2).astype(np.float32), user)

    def answer(self, decision, broken=None):
        reward = truth(decision.context[None])[0, decision.action] + self.rng.normal(0.0, 0.05)
        reward = float(np.clip(reward - 0.5 * (decision.action == broken), 0.0, 1.0))
        self.router.report(Outcome(decision.id, self.now, SCOPE, quality=reward, cost_usd=1e-4))

    def serve(self, n, broken=None):
        made = []
        for _ in range(n):
            made.append(self.ask())
            self.answer(made[-1], broken)
            self.router.catch_up()
        return made


def fold(record, policy, mode="watch", until=None, start=0, reward=None):
    """The fold from the definition: all rows, in order."""
    config = domain(1.0, between_nights=mode, **({} if reward is None else {"reward": reward}))
    learning = Learning(SCOPE, config, policy, "000001", start)
    learning.follow(record, record.head() if until is None else until)
    return learning


def plain(learning):
    """Every bit of a fold."""
    watch = learning.watch
    arrays = (learning.means, learning.counts, watch.draws, watch.usual, watch.quarantined)
    held = [(id_, h.action, h.time, h.context.tobytes(), h.outcomes) for id_, h in learning.waiting.items()]
    return (learning.position, learning.since, watch.wealth, held, *(a.tobytes() for a in arrays))


def rows(policy):
    """What a policy would do in 40 contexts, bit by bit."""
    return policy.probabilities(GRID, np.ones((40, 3), np.bool_)).tobytes()


def test_a_broken_arm_is_quarantined_probed_exactly_and_taken_back(policy):
    """End to end: it falls, has .04 at most with its propensity logged so, heals, and is used again."""
    days = Days(policy)
    days.serve(250)
    assert days.router.quarantined == ()
    days.serve(100, broken=DEAR)

    assert days.router.quarantined == ("dear",)
    kept_away = days.serve(200, broken=DEAR)
    drawn = [decision for decision in kept_away if decision.action == DEAR]
    assert 0 < len(drawn) < 25
    assert all(decision.propensity == decision.probabilities[DEAR] <= 0.04 for decision in drawn)

    days.serve(1600)
    assert days.router.quarantined == ()
    assert np.mean([d.probabilities[DEAR] for d in days.serve(50)]) > 0.2


@pytest.mark.parametrize("mode", ["watch", "learn"])
def test_every_decision_replays_from_its_snapshot_and_the_record_up_to_its_position(policy, mode):
    """Through a quarantine, of two routers that see different heads, one of which seldom catches up."""
    one = Days(policy, mode=mode)
    two = Days(policy, one.record, mode, seed=1)
    one.serve(150)
    for i in range(200):
        one.serve(1, broken=DEAR)
        two.answer(two.ask(), broken=DEAR)
        if i % 7 == 0:
            two.router.catch_up()
    decisions = [entry for _, entry in one.record.read() if isinstance(entry, Decision)]

    policies = Policies({"model_routing": one.domain}, None, {})
    policies._known[SCOPE, "000001", one.domain.arm_names] = Serving(policy, "000001")
    found = verify(one.record, policies)

    assert "dear" in one.router.quarantined
    assert len({decision.seen for decision in decisions}) > 300
    assert (found.replayed, found.faults) == (len(decisions), [])
    alone = [policies.of(decision, one.record) for decision in decisions[::60]]
    assert [rows(a) for a in alone] == [rows(fold(one.record, policy, mode, d.seen).learned) for d in decisions[::60]]


def test_the_first_policy_is_watched_too():
    """Nothing is foretold of an arm but its own mean; replay makes the policy from the configuration."""
    days = Days(None)
    days.serve(600)
    made = days.serve(300, broken=DEAR)

    assert days.router.quarantined == ("dear",)
    assert made[-1].probabilities[DEAR] == 0.04
    found = verify(days.record, Policies({"model_routing": days.domain}, None, {}))
    assert (found.replayed, found.faults) == (900, [])


def test_the_story_of_a_decision_tells_of_a_quarantine(policy):
    """Since when, and what it is probed with; of the other arms nothing."""
    days = Days(None)
    days.serve(400)
    last = days.serve(200, broken=DEAR)[-1]

    story = explain(last, (), days.domain, Path("nowhere"), {}, 0.0, days.record)

    assert story.replays
    told = [arm.quarantined for arm in story.arms]
    assert told[:2] == [None, None]
    since = re.fullmatch(r"quarantined since position (\d+) of the record: probed with at most 0.04", told[DEAR])
    (row,) = days.record.read(int(since[1]) - 1, 1)
    assert days.record.decision(row.entry.decision_id, "acme").action == DEAR
    assert told[DEAR] in story.render()
    assert f"up to position {last.seen} of the record" in story.render()


def test_the_first_policy_learns_while_it_runs():
    """Draws move to the arms that may be best, and earn more; what each logs is what replay makes of the record."""
    days, still = Days(None), Days(None, mode="still")
    made, kept = days.serve(600), still.serve(600)

    best = int(truth(np.stack([decision.context for decision in made])).mean(axis=0).argmax())
    assert made[0].probabilities.tobytes() == kept[0].probabilities.tobytes() == kept[-1].probabilities.tobytes()
    assert made[-1].probabilities[best] > 0.7 > 0.4 > kept[-1].probabilities[best]
    assert min(decision.probabilities.min() for decision in made) > 0.19 * kept[0].probabilities.min()
    found = verify(days.record, Policies({"model_routing": days.domain}, None, {}))
    assert (found.replayed, found.faults) == (600, [])


@pytest.mark.parametrize("mode", ["watch", "learn"])
def test_two_routers_on_one_record_agree_after_catching_up(policy, mode):
    """And with the fold from the definition, bit for bit."""
    one = Days(policy, mode=mode)
    two = Days(policy, one.record, mode, seed=1)
    for i in range(400):
        days = (one, two)[i % 3 == 0]
        days.answer(days.ask(), broken=DEAR if i > 250 else None)
    assert one.router.catch_up() == two.router.catch_up()

    whole = fold(one.record, policy, mode)
    assert plain(one.router._learning) == plain(two.router._learning) == plain(whole)
    assert rows(one.router._learning.learned) == rows(whole.learned)


def test_what_is_ahead_of_the_position_is_not_learned(policy):
    """Own outcomes count when the router reaches them, as for everybody; the decision says up to where."""
    days = Days(policy, mode="learn")
    made = [days.ask() for _ in range(5)]
    for decision in made:
        days.answer(decision)
    assert [decision.seen for decision in made] == [0] * 5
    assert days.router._learning.counts.sum() == 0

    days.router.catch_up()
    assert days.ask().seen == 10
    assert days.router._learning.counts.sum() == 5


def test_still_serves_what_was_published(policy):
    """Whatever comes back: no position is logged, no probability moves."""
    days = Days(policy, mode="still")
    made = days.serve(300, broken=DEAR)

    assert {decision.seen for decision in made} == {0}
    last = made[-1]
    again = policy.probabilities(last.context[None], np.ones((1, 3), np.bool_), last.pressure)[0]
    assert last.probabilities.tobytes() == again.tobytes()
    assert days.router.quarantined == ()


def test_a_swap_starts_anew_behind_the_position_of_the_snapshot(policy):
    """Rows that the new snapshot learned from are not learned again; those behind it are."""
    days = Days(policy)
    days.serve(100)
    days.router.swap(Serving(policy, "000002", position=150))

    assert plain(days.router._learning) == plain(fold(days.record, policy, start=150))
    assert days.ask().seen == 200
    days.router.swap(Serving(policy, "000003", position=10_000))
    assert {decision.seen for decision in days.serve(5)} == {0}
    assert days.router._learning.counts.sum() == 0


STEPS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.floats(0.0, 1.0)), max_size=25)


@settings(deadline=None, max_examples=40)
@given(steps=STEPS, cut=st.integers(0, 50), mode=st.sampled_from(["watch", "learn"]))
def test_a_checkpoint_and_the_tail_behind_it_give_the_whole_fold(tmp_path_factory, policy, steps, cut, mode):
    """Cut anywhere, through the file: every bit is the same."""
    record, made = filled(steps)
    path = tmp_path_factory.mktemp("home") / "deep" / "one.json"
    reward = RewardConfig(weights={"quality": 1.0, "cost": 1.0}, dear_usd=1.0)
    head = fold(record, policy, mode, min(cut, record.head()), reward=reward)
    save(path, head, record)

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
        lambda path: path.unlink(),
    ],
)
def test_a_damaged_checkpoint_is_not_used(tmp_path, policy, tamper):
    """A digit that changed is seen by the hash."""
    days = Days(policy, mode="learn")
    days.serve(20)
    path = tmp_path / "one.json"
    days.router.keep(path)
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
    days.router.keep(path)
    named = {"scope": SCOPE, "domain": days.domain, "policy": policy, "version": "000001", "start": 0}

    assert load(path, Learning(**named), days.record)
    assert not load(path, Learning(**named | other), days.record)
    assert not load(path, Learning(**named), filled([(0, 0, 0.5)] * 40)[0])  # another record


def decision(id_="d", time=0.0, **fields):
    p = np.array([0.5, 0.25, 0.25])
    given = {"arms": ARMS, "schema": "vector-2", "excluded": {}, "policy": "000001"}
    return Decision(
        id=id_, time=time, scope=SCOPE, context=np.zeros(2, np.float32), probabilities=p, action=0, propensity=0.5,
        **given | fields,
    )  # fmt: skip


def heard(policy, *entries, **reward):
    """How often the arm of `decision` was learned from, and the mean of its rewards less the estimate."""
    learning = Learning(SCOPE, domain(1.0, reward=RewardConfig(**reward)), policy, "000001", 0)
    learning.fold([Row(i, entry) for i, entry in enumerate(entries, start=1)])
    return learning


def test_an_outcome_is_learned_once_when_the_reward_is_first_known(policy):
    """Not at the cost alone; not again when it is corrected."""
    d = decision()
    cost, quality = Outcome("d", 1.0, SCOPE, cost_usd=0.1), Outcome("d", 2.0, SCOPE, quality=1.0)

    assert heard(policy, d, cost).counts.sum() == 0
    once = heard(policy, d, cost, quality)
    assert once.counts.tolist() == [1, 0, 0]
    assert plain(heard(policy, d, cost, quality, Outcome("d", 3.0, SCOPE, quality=0.0)))[2:] == plain(once)[2:]
    estimate = policy.scores(d.context[None]).q_hat[0, 0]
    assert once.means[0] == 1.0 - estimate


@pytest.mark.parametrize(
    "skipped",
    [
        {"forced": True},
        {"slot": Slot.SHADOW},
        {"schema": "vector-3"},
        {"arms": ("cheap", "middle", "other")},
    ],
    ids=["forced", "shadow", "schema", "arms"],
)
def test_what_tells_nothing_of_these_arms_is_skipped(policy, skipped):
    """Forced and shadow decisions; other features, other arms."""
    assert heard(policy, decision(**skipped), Outcome("d", 1.0, SCOPE, quality=1.0)).counts.sum() == 0


def test_a_window_that_closed_is_left_to_the_night(policy):
    """The outcome came too late, or its decision was let go of."""
    late = Outcome("d", 99.0, SCOPE, quality=1.0)
    learning = heard(policy, decision(), decision("e", time=100.0), late, window_s=50.0)

    assert learning.counts.sum() == 0
    assert list(learning.waiting) == ["e"]


def test_where_silence_has_a_worth_good_news_waits_for_it(policy):
    """Answered and silent decisions are learned together when their windows close, so that neither biases."""
    entries = [decision("a"), decision("b"), Outcome("a", 1.0, SCOPE, quality=1.0)]

    assert heard(policy, *entries, default=0.0, window_s=50.0).counts.sum() == 0
    closed = heard(policy, *entries, decision("c", time=60.0), default=0.0, window_s=50.0)
    assert closed.counts.tolist() == [2, 0, 0]
    estimate = policy.scores(np.zeros((1, 2), np.float32)).q_hat[0, 0]
    assert closed.means[0] == pytest.approx(0.5 - estimate)


def test_no_more_decisions_wait_than_stated(policy, monkeypatch):
    """The oldest is let go of."""
    monkeypatch.setattr(module, "WAITING", 3)

    assert list(heard(policy, *[decision(str(i)) for i in range(5)]).waiting) == ["2", "3", "4"]


def test_the_level_of_an_arm_is_its_mean_error_shrunk_toward_the_snapshot(policy):
    """n outcomes that all lie .1 above the estimate raise it by .1 n / (n + prior), in every context alike."""
    d, n = decision(), 100
    value = float(policy.scores(d.context[None]).q_hat[0, 0]) + 0.1
    learning = Learning(SCOPE, domain(1.0, between_nights="learn"), policy, "000001", 0)
    for i in range(n):
        one = Outcome(str(i), 1.0, SCOPE, quality=value)
        learning.fold([Row(2 * i + 1, replace(d, id=str(i))), Row(2 * i + 2, one)])

    raised = learning.learned.scores(GRID).q_hat - policy.scores(GRID).q_hat
    assert raised[:, 0] == pytest.approx(np.full(40, 0.1 * n / (n + PRIOR)))
    assert (raised[:, 1:] == 0.0).all()


@settings(deadline=None)
@given(
    allowed=st.lists(st.booleans(), min_size=3, max_size=3).filter(any),
    quarantined=st.lists(st.booleans(), min_size=3, max_size=3),
    rule=st.sampled_from(["explore", "mix", "fixed"]),
    pressure=st.floats(0.25, 20.0),
)
def test_a_guarded_policy_is_a_distribution_that_keeps_every_allowed_arm(allowed, quarantined, rule, pressure):
    """No quarantined arm has more than `probe` or than it had, unless nothing else may answer."""
    numbers = (np.array([0.3, 0.5, 0.9]), np.array([1e-4, 1e-3, 1e-2]), 3e-3, 0.02)
    base = ContextFree(rule, ARMS, "vector-2", *numbers)
    mask, kept_away = np.array([allowed] * 40), np.array(quarantined)
    rows = base.probabilities(GRID, mask, pressure)

    found = Guarded(base, kept_away, (0, 0, 0), 0.04).probabilities(GRID, mask, pressure)

    assert found.sum(axis=1) == pytest.approx(np.ones(40))
    assert ((found > 0.0) == mask).all()
    if (mask[0] & ~kept_away).any():
        assert (found[:, kept_away] <= np.minimum(rows, 0.04)[:, kept_away]).all()
    else:
        assert found.tobytes() == rows.tobytes()


def test_what_an_erased_person_said_is_not_learned(tmp_path, policy):
    """Her rows are tombstones: the fold is of what is left, and what was learned from her is owed to no replay."""
    with SqlRecord(f"sqlite:///{tmp_path}/record.db") as record:
        days = Days(policy, record, "learn")
        for i in range(12):
            days.answer(days.ask(user="gone" if i % 2 else "stays"))
        days.router.catch_up()
        before = days.ask()
        record.erase("acme", user="gone")
        between = days.ask()  # the router has not heard of it yet
        days.router.catch_up()
        after = days.ask()

        assert (before.seen, between.seen, after.seen) == (24, 24, 26)
        assert days.router._learning.counts.sum() == 6
        assert plain(days.router._learning) == plain(fold(record, policy, "learn", until=26))
        for serving, promised in ((Serving(policy, "000001"), 0), (first_policy(days.domain), 1)):
            policies = Policies({"model_routing": days.domain}, None, {})
            policies._known[SCOPE, "000001", days.domain.arm_names] = serving
            found = verify(record, policies, after=24)  # of another policy, only what is promised is a fault
            assert (found.decisions, len(found.faults)) == (3, promised)
