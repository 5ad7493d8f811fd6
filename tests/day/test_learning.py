"""Facts about learning between nights: a fold of the record that replicas share, and that replay comes back to."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.day.learning import PRIOR, Guarded, Learning
from bandits.explaining.replay import Policies, verify
from bandits.explaining.why import explain
from bandits.learners.baselines import ContextFree
from bandits.record.port import Row
from bandits.record.sql import SqlRecord
from bandits.served import Serving, first_policy
from bandits.types import Decision, Outcome
from tests.day.days import DEAR, GRID, SCOPE, Days, decision, fold, plain, rows
from tests.logs import ARMS, domain, truth


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
    assert plain(one.router.known.learning) == plain(two.router.known.learning) == plain(whole)
    assert rows(one.router.known.learning.learned) == rows(whole.learned)


def test_what_is_ahead_of_the_position_is_not_learned(policy):
    """Own outcomes count when the router reaches them, as for everybody; the decision says up to where."""
    days = Days(policy, mode="learn")
    made = [days.ask() for _ in range(5)]
    for one in made:
        days.answer(one)
    assert [one.seen for one in made] == [0] * 5
    assert days.router.known.learning.counts.sum() == 0

    days.router.catch_up()
    assert days.ask().seen == 10
    assert days.router.known.learning.counts.sum() == 5


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

    assert plain(days.router.known.learning) == plain(fold(days.record, policy, start=150))
    assert days.ask().seen == 200
    days.router.swap(Serving(policy, "000003", position=10_000))
    assert {decision.seen for decision in days.serve(5)} == {0}
    assert days.router.known.learning.counts.sum() == 0


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
        assert days.router.known.learning.counts.sum() == 6
        assert plain(days.router.known.learning) == plain(fold(record, policy, "learn", until=26))
        for serving, promised in ((Serving(policy, "000001"), 0), (first_policy(days.domain), 1)):
            policies = Policies({"model_routing": days.domain}, None, {})
            policies._known[SCOPE, "000001", days.domain.arm_names] = serving
            found = verify(record, policies, after=24)  # of another policy, only what is promised is a fault
            assert (found.decisions, len(found.faults)) == (3, promised)
