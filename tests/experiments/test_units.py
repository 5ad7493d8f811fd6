"""Who was given what, and what came of it: one row a unit, the same at every later look."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bandits.experiments import exposure
from bandits.experiments.exposure import Rows, units
from bandits.experiments.serving import Experiments
from bandits.home import Home
from bandits.record.memory import MemoryRecord
from bandits.record.port import rows
from bandits.router import Router
from bandits.settings.reward import RewardConfig
from bandits.types import Decision, Outcome, Scope
from bandits.warehouse.joining import Came
from bandits.warehouse.loading import load
from tests.experiments.test_path import DAY, SCOPE, START, TRIAL, domain

NOW = START + 30 * DAY


def world(known, n=600, effect=0.0, seed=0, times=2, stays=0.0, usd=1e-3, name="trial"):
    """A log of n users who come `times` times each: .5 on average, `effect` more where they see the other variant.

    stays: how much of a user's own level comes back each time, and was seen once before the start.
    """
    rng = np.random.default_rng(seed)
    experiments = Experiments("routing", known)
    columns = {"ids": [], "times": [], "users": [], "policies": [], "slots": []}
    quality, costs = [], []
    levels = rng.uniform(-1.0, 1.0, n) * stays
    for visit in range(-1 if stays else 0, times):
        for i in range(n):
            time = START + 3600.0 + i + visit * 7200.0 - (DAY if visit < 0 else 0.0)
            chosen = experiments.policy_for(f"u{i}", f"{visit}-{i}", time)
            columns["ids"].append(f"{visit}-{i}")
            columns["times"].append(time)
            columns["users"].append(f"u{i}")
            columns["policies"].append(chosen.version if chosen else "000007")
            columns["slots"].append(str(chosen.slot) if chosen else "stable")
            gain = effect if chosen else 0.0
            quality.append(np.clip(0.5 + levels[i] + gain + rng.normal(0, 0.1), 0.0, 1.0))
            costs.append(1e-3 + (usd if chosen else 0.0))
    m = len(quality)
    came = Came(
        np.arange(m), np.array(columns["times"]) + 5.0, np.array(quality), np.array(costs), np.full(m, np.nan),
        np.zeros(m, np.int8),
    )  # fmt: skip
    return Rows(**(columns | {"times": np.array(columns["times"])}), came=came)


def folded(known, log, now=NOW, name="trial"):
    """Its units."""
    experiments = Experiments("routing", known)
    one = next(each for each in experiments.running if each.name == name)
    return one, units(log, experiments, one, known, now)


class TestUnits:
    """A fold over decisions."""

    def test_a_unit_is_one_row_with_the_mean_of_its_decisions(self):
        known = domain({"trial": TRIAL})
        log = world(known, n=50, times=3)
        _, them = folded(known, log)
        assert len(them) == 50
        assert (them.decisions == 3).all()
        for i in (0, 17, 49):
            mine = [q for q, user in zip(log.came.quality, log.users, strict=True) if user == them.names[i]]
            assert them.rewards[i] == pytest.approx(np.mean(mine))
        assert (np.diff(them.first) >= 0).all()

    def test_what_comes_after_the_outcome_days_changes_nothing(self):
        """Neither a later decision nor a later word about an early one: so every look sees the same."""
        known = domain({"trial": TRIAL | {"outcome_days": 0.05}})  # 72 minutes: the second visit is too late
        log = world(known, n=30)
        _, them = folded(known, log)
        first = [log.came.quality[log.users.index(name)] for name in them.names]
        assert them.rewards.tolist() == first
        late = np.where(np.arange(60) < 30, log.came.times + DAY, log.came.times)
        _, silent = folded(known, replace(log, came=replace(log.came, times=late)))
        assert np.isnan(silent.rewards).all()
        assert silent.ripe.all()

    def test_a_unit_is_not_counted_before_its_days_are_over_and_never_changes_then(self):
        known = domain({"trial": TRIAL})
        log = world(known, n=100)
        _, last = folded(known, log)
        for now in (START + 1800.0, START + DAY + 3600.0 + 50.0, START + DAY + 3600.0 + 100.0):
            seen = log.times <= now
            part = Rows(
                *([x for x, keep in zip(column, seen, strict=True) if keep] for column in (log.ids,)),
                times=log.times[seen],
                users=[x for x, keep in zip(log.users, seen, strict=True) if keep],
                policies=[x for x, keep in zip(log.policies, seen, strict=True) if keep],
                slots=[x for x, keep in zip(log.slots, seen, strict=True) if keep],
                came=exposure._heard(log.came, seen[log.came.rounds] & (log.came.times <= now)),
            )
            _, then = folded(known, part, now)
            ripe = int(then.ripe.sum())
            assert then.names == last.names[: len(then)]
            assert then.rewards[:ripe].tolist() == last.rewards[:ripe].tolist()
            assert np.isnan(then.rewards[ripe:]).all()
        assert ripe == 100

    def test_silence_counts_by_the_default_once_its_window_has_closed(self):
        reward = RewardConfig(default=0.25, window_s=600.0)
        known = domain({"trial": TRIAL}).model_copy(update={"reward": reward})
        log = world(known, n=20, times=1)
        silent = replace(log, came=replace(log.came, quality=np.full(20, np.nan)))
        _, them = folded(known, silent)
        assert them.rewards.tolist() == [0.25] * 20
        _, early = folded(known, silent, START + 3600.0 + DAY + 300.0)
        assert np.isnan(early.rewards).all()

    def test_who_waits_for_silence_does_not_count_what_comes_meanwhile(self):
        """The second visit is after the outcome days, yet before the first one's window has closed."""
        reward = RewardConfig(default=0.25, window_s=86_400.0)
        known = domain({"trial": TRIAL | {"outcome_days": 0.05}}).model_copy(update={"reward": reward})
        log = world(known, n=20, times=2)
        _, them = folded(known, log)
        assert them.rewards.tolist() == [log.came.quality[log.users.index(name)] for name in them.names]

    def test_what_was_known_before_is_of_the_unit_and_from_before_its_exposure(self):
        known = domain({"trial": TRIAL})
        log = world(known, n=40, stays=0.3)
        _, them = folded(known, log)
        before = {u: q for u, q, t in zip(log.users, log.came.quality, log.times, strict=False) if t < START}
        assert them.before.tolist() == [before[name] for name in them.names]
        assert (them.decisions == 2).all()

    def test_who_was_served_something_else_is_named(self):
        """Say, by a process with an older configuration."""
        known = domain({"trial": TRIAL})
        log = world(known, n=40)
        policies, slots = list(log.policies), list(log.slots)
        turned = [i for i, slot in enumerate(slots) if slot == "experiment"][:3]
        for i in turned:
            policies[i], slots[i] = "000007", "stable"
        _, them = folded(known, replace(log, policies=policies, slots=slots))
        assert {them.names[i] for i in np.flatnonzero(them.strayed)} == {log.users[i] for i in turned}
        assert not folded(known, log)[1].strayed.any()

    def test_the_warehouse_gives_the_rows_that_the_record_holds(self, tmp_path):
        """Decisions of other scopes, and outcomes of decisions before, left out."""
        known, record = domain({"trial": TRIAL}), MemoryRecord()
        other, clock = Scope("acme", "main", "other"), [START - 100.0]
        for scope in (SCOPE, other):
            router = Router(scope, known, record, np.random.default_rng(0), lambda: clock[0])
            for i in range(12):
                clock[0] += 20.0
                decision = router.decide(np.zeros(2), f"u{i % 5}")
                if i % 3:
                    router.report(Outcome(decision.id, clock[0] + 1, scope, quality=i / 12, cost_usd=1e-4 * i))
                if i % 4 == 0:
                    router.report(Outcome(decision.id, clock[0] + 2, scope, vote=1))
        home = Home(tmp_path)
        with home.open_record() as file:
            file.append(*(entry for _, entry in rows(record)))
            load(file, home.warehouse)
        log = exposure.read(home.warehouse, SCOPE, START, START + DAY)
        mine = [e for _, e in rows(record) if e.scope == SCOPE]
        decisions = [e for e in mine if isinstance(e, Decision) and e.time >= START]
        assert list(log.ids) == [d.id for d in decisions]
        assert list(log.users) == [d.user for d in decisions]
        assert list(log.policies) == [d.policy for d in decisions]
        assert log.times.tolist() == [d.time for d in decisions]
        told = {(o.decision_id, o.time, o.quality, o.vote) for o in mine if isinstance(o, Outcome)}
        ids = {d.id for d in decisions}
        came = log.came
        read = {
            (log.ids[came.rounds[i]], came.times[i], None if np.isnan(came.quality[i]) else came.quality[i],
             int(came.vote[i]) or None)
            for i in range(len(came.rounds))
        }  # fmt: skip
        assert read == {one for one in told if one[0] in ids}
        assert len(exposure.read(home.warehouse, SCOPE, START + 5 * DAY, START + 6 * DAY).ids) == 0
