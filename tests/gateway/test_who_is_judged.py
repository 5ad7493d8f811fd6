"""Facts about who is judged: by chance that is known, where little is known, blind to arms and answers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.day.teaching import Teaching, chance_of, key_of
from bandits.record.memory import MemoryRecord
from bandits.record.port import rows
from bandits.router import Router
from bandits.types import JUDGE, Outcome
from tests.gateway.test_judge import SCOPE, T
from tests.logs import ARMS, domain


def drawn(rng, k=3):
    """A decision by some policy on some context."""
    record = MemoryRecord()
    router = Router(SCOPE, domain(1.0), record, rng)
    decision = router.decide(rng.normal(size=2).astype(np.float32))
    probabilities = rng.dirichlet(np.ones(k))
    return dataclasses.replace(decision, probabilities=probabilities, propensity=float(probabilities[decision.action]))


class TestWhoIsJudged:
    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 10_000))
    def test_the_chance_knows_neither_the_arm_drawn_nor_its_answer(self, seed):
        """Law: so the arms of the judged answers of one context are distributed as logged."""
        rng = np.random.default_rng(seed)
        teaching = Teaching(SCOPE, ARMS, 0.1)
        for _ in range(5):
            teaching.learn(drawn(rng))
        decision = drawn(rng)
        found = set()
        for action, p in enumerate(decision.probabilities.tolist()):
            found.add(teaching.uncertainty(dataclasses.replace(decision, action=action, propensity=p)))
        assert len(found) == 1

    def test_dividing_by_the_chance_gives_back_the_traffic(self):
        """5,000 answers, a tenth judged: the weighted mean of a function of context and arm is that of all, within 4
        standard errors; the unweighted one is not, so the weights are needed."""
        rng = np.random.default_rng(3)
        teaching = Teaching(SCOPE, ARMS, 0.1)
        template = drawn(rng)
        values, chances, taken = [], [], []
        for _ in range(5_000):
            x = rng.normal(size=2).astype(np.float32) * (3.0 if rng.random() < 0.2 else 0.5)
            action = int(rng.choice(3, p=template.probabilities))
            about = {"context": x, "action": action, "propensity": float(template.probabilities[action])}
            decision = dataclasses.replace(template, **about)
            chance = teaching.chance(decision)
            values.append(float(np.abs(x).sum()) + action)
            chances.append(chance)
            taken.append(rng.random() < chance)
            if taken[-1] and sum(taken) < 200:
                teaching.learn(decision)
        v, p, t = np.array(values), np.array(chances), np.array(taken)
        weighted = np.where(t, v / p, 0.0)
        assert abs(weighted.mean() - v.mean()) < 4 * weighted.std() / np.sqrt(len(v))
        assert abs(v[t].mean() - v.mean()) > 5 * v[t].std() / np.sqrt(t.sum())
        assert t.mean() == pytest.approx(0.1, abs=0.02)

    def test_it_looks_where_little_is_known(self):
        """A strange context before a common one, a policy that plays an unjudged arm before one that does not."""
        teaching, decision = Teaching(SCOPE, ARMS, 0.1), drawn(np.random.default_rng(0))
        common = dataclasses.replace(decision, context=np.array([1.0, 0.0], np.float32))
        strange = dataclasses.replace(decision, context=np.array([0.0, 1.0], np.float32))
        first = dataclasses.replace(common, probabilities=np.eye(3)[0], action=0, propensity=1.0)
        last = dataclasses.replace(common, probabilities=np.eye(3)[2], action=2, propensity=1.0)
        for _ in range(50):
            teaching.learn(first)
        assert teaching.uncertainty(strange) > 2.0 * teaching.uncertainty(common)
        assert teaching.uncertainty(last) > 2.0 * teaching.uncertainty(first)

    def test_it_is_a_fold_over_the_record(self):
        """Whoever reads the rows comes to the same, and yesterday's money is not today's."""
        record = MemoryRecord()
        router = Router(SCOPE, domain(1.0), record, np.random.default_rng(0), lambda: T)
        for i in range(30):
            decision = router.decide(np.random.default_rng(i).normal(size=2).astype(np.float32))
            time = T - 86_400.0 if i < 10 else T
            router.report(Outcome(decision.id, time, SCOPE, cost_usd=0.5, source="judge", arm=JUDGE))
            router.report(Outcome(decision.id, time, SCOPE, quality=0.5, source="judge", key=key_of(0.25)))
            router.report(Outcome(decision.id, time, SCOPE, quality=0.5))
        one, other = Teaching(SCOPE, ARMS, 0.1), Teaching(SCOPE, ARMS, 0.1)
        one.follow(record, T)
        for _ in range(2):
            other.follow(record, T)
        assert (one.calls, one.usd, one.counts.sum()) == (20, 10.0, 30.0)
        assert (one.counts.tolist(), one.inverse.tobytes()) == (other.counts.tolist(), other.inverse.tobytes())
        phi = np.stack([np.append(row.entry.context, 1.0) for row in rows(record) if hasattr(row.entry, "context")])
        assert np.allclose(one.inverse, np.linalg.inv(np.eye(3) + phi.T @ phi))

    def test_only_a_verdict_has_a_chance(self):
        """Exactly, to the last bit."""
        said = Outcome("d", T, SCOPE, quality=1.0, source="judge", key=key_of(0.1 + 0.2))
        assert chance_of(said) == 0.1 + 0.2
        with pytest.raises(ValueError, match="verdict"):
            chance_of(dataclasses.replace(said, key=""))
