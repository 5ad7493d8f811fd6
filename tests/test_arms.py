"""Facts about arms that come, go and fail: what serves goes on, the new are tried, and every row is exact."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from bandits.arms import fitted
from bandits.config import ArmConfig, DomainConfig, NightConfig
from bandits.errors import ContextError, UnavailableError, UnknownArmError
from bandits.explaining.replay import Policies, replays
from bandits.learners.doubly_robust import Parameters
from bandits.night import night
from bandits.policy import served
from bandits.record.memory import MemoryRecord
from bandits.record.port import rows
from bandits.rewards import feedback
from bandits.router import Router
from bandits.served import Serving
from bandits.snapshots.keys import signing_key, trusted_keys
from bandits.snapshots.publishing import publish
from bandits.training import training
from bandits.types import Outcome, Scope
from tests.logs import ARMS, PRICES, domain, simulate

SCOPE = Scope("acme", "main", "model_routing")
CONTEXTS = np.random.default_rng(5).normal(size=(200, 2)).astype(np.float32)


def learned(budget: float = 1.0):
    """A policy that learned the three arms of tests/logs.py."""
    return night.learn(simulate(900, 1), domain(budget), NightConfig(trials=1)).trained.policy


def with_new(budget: float = 1.0) -> tuple[DomainConfig, ArmConfig]:
    """The same domain with an arm more, in the middle, and one less: that one."""
    wide = domain(budget)
    cheap, middle, dear = wide.arms
    new = ArmConfig(name="new", model="new", usd_per_request=2e-3)
    return wide.model_copy(update={"arms": (cheap, new, dear)}), middle


@pytest.fixture(scope="module")
def policy():
    return learned()


def test_a_policy_for_the_same_arms_is_itself(policy):
    """Nothing comes between."""
    assert fitted(policy, ARMS, PRICES) is policy


def test_another_order_of_the_arms_is_only_another_order(policy):
    """Columns move with their names, to the bit."""
    turned = ("dear", "cheap", "middle")
    moved = [ARMS.index(arm) for arm in turned]
    all_ = np.ones((200, 3), dtype=bool)
    found = fitted(policy, turned, PRICES[moved])

    assert found.probabilities(CONTEXTS, all_).tobytes() == policy.probabilities(CONTEXTS, all_)[:, moved].tobytes()
    assert found.prices.tolist() == policy.prices[moved].tolist()


def test_a_new_arm_has_its_share_of_the_floor_and_the_others_keep_their_order(policy):
    """floor / 4 each, whatever the context; what is left is the old row, in proportion."""
    grown = fitted(policy, ("cheap", "middle", "new", "dear"), np.array([1e-4, 1e-3, 2e-3, 1e-2]))
    got = served(grown, CONTEXTS, np.ones((200, 4), dtype=bool))
    old = policy.probabilities(CONTEXTS, np.ones((200, 3), dtype=bool))

    assert got[:, 2] == pytest.approx(policy.floor / 4)
    assert got[:, [0, 1, 3]] == pytest.approx(old * (1.0 - policy.floor / 4))
    assert got.sum(axis=1) == pytest.approx(1.0, abs=1e-12)
    assert (got >= policy.floor / 4 - 1e-15).all()


def test_an_arm_that_is_gone_leaves_its_share_to_the_others(policy):
    """Two of three: the row is the policy's own when it may not play the third."""
    left = fitted(policy, ("cheap", "middle"), PRICES[:2])
    mask = np.tile([True, True, False], (200, 1))

    assert served(left, CONTEXTS, np.ones((200, 2), dtype=bool)) == pytest.approx(
        policy.probabilities(CONTEXTS, mask)[:, :2]
    )


def test_where_only_strangers_are_allowed_the_cheapest_answers(policy):
    """A row with no arm that the policy knows."""
    grown = fitted(policy, ("new", "dear", "newer"), np.array([3.0, 1e-2, 2.0]))
    allowed = np.array([[True, False, True], [True, True, True]])

    got = served(grown, CONTEXTS[:2], allowed)

    assert got[0].tolist() == [0.0, 0.0, 1.0]
    assert got[1] == pytest.approx([policy.floor / 3, 1.0 - 2 * policy.floor / 3, policy.floor / 3])


def test_a_policy_that_knows_no_arm_is_refused(policy):
    """Both lists stand in the message."""
    with pytest.raises(ContextError, match=r"one of the arms x, y, but this one knows cheap, middle, dear"):
        fitted(policy, ("x", "y"), PRICES[:2])


def test_an_arm_with_few_draws_is_tried_and_never_preferred():
    """The best arm by far, but drawn nine times in 900: the floor's share, until it has the draws that trust needs."""
    log = simulate(900, 2, probabilities=(0.5, 0.49, 0.01), expected=lambda x: np.tile([0.1, 0.2, 0.9], (len(x), 1)))
    assert 0 < (log.actions == 2).sum() < training.LEAST_EVENTS
    rare = training.train(training.prepare(log, domain(1.0), 200), Parameters()).policy

    got = served(rare, CONTEXTS, np.ones((200, 3), dtype=bool))

    assert got[:, 2] == pytest.approx(rare.floor / 3)


def test_an_arm_that_is_added_leaves_the_statistics_of_the_others_alone():
    """A log of three arms, read once for three and once for four: the sums of the three are the same to the bit."""
    log = simulate(900, 3)
    four = domain(1.0).model_copy(
        update={"arms": (*domain(1.0).arms, ArmConfig(name="new", model="new", usd_per_request=2e-3))}
    )
    grown = replace(
        log, arms=(*log.arms, "new"), probabilities=np.column_stack([log.probabilities, np.zeros(len(log))])
    )
    before = training.prepare(log, domain(1.0), 200)
    after = training.prepare(grown, four, 200)
    for one, other in zip(before.folded, after.folded, strict=True):
        assert one.gram.tobytes() == other.gram[:3].tobytes()
        assert one.moment.tobytes() == other.moment[:3].tobytes()
        assert not other.gram[3].any()
    assert after.supported.tolist() == [True, True, True, False]


class TestServing:
    """Through the router and the record."""

    def serve(self, config: DomainConfig, policy, n: int, record: MemoryRecord, **unavailable: str) -> Counter[str]:
        router = Router(SCOPE, config, record, np.random.default_rng(7), lambda: 100.0)
        router.swap(Serving(policy, "explore-not"))
        drawn: Counter[str] = Counter()
        for i in range(n):
            made = router.decide(CONTEXTS[i % 200], unavailable=unavailable)
            router.report(Outcome(made.id, 100.0, SCOPE, quality=0.5, cost_usd=1e-4))
            drawn[made.arm] += 1
        return drawn

    def test_a_new_arm_is_tried_from_the_first_decision_and_the_night_learns_it(self, policy):
        """The snapshot of yesterday serves today's arms; the log holds the new arm's draws with their propensities."""
        config, gone = with_new()
        record = MemoryRecord()

        drawn = self.serve(config, policy, 3000, record)

        assert gone.name not in drawn
        assert drawn["new"] == pytest.approx(3000 * policy.floor / 3, rel=0.5)
        log = feedback(rows(record), SCOPE, config, 200.0)
        assert log.propensities[log.actions == 1] == pytest.approx(policy.floor / 3)

    def test_an_arm_that_is_unavailable_is_not_drawn_and_the_row_says_why(self, policy):
        """The propensity is that of the others' distribution; what is logged is what was drawn from."""
        record = MemoryRecord()

        drawn = self.serve(domain(1.0), policy, 200, record, dear="its breaker is open")

        assert "dear" not in drawn
        for row in rows(record):
            if not isinstance(row.entry, Outcome):
                assert row.entry.excluded == {"dear": "its breaker is open"}
                assert row.entry.probabilities.sum() == pytest.approx(1.0, abs=1e-12)
                assert row.entry.propensity >= policy.floor / 2 - 1e-15

    def test_at_the_cap_the_cheapest_that_is_available_answers(self):
        """The cheapest of all is down: the next one answers."""
        router = Router(SCOPE, domain(1e-9), MemoryRecord(), np.random.default_rng(0), lambda: 0.0)

        assert router.decide(CONTEXTS[0], unavailable={"cheap": "down"}).arm == "middle"

    def test_without_an_available_arm_nothing_is_decided(self):
        """Neither with all of them down, nor with a name that is no arm's."""
        record = MemoryRecord()
        router = Router(SCOPE, domain(1.0), record, np.random.default_rng(0), lambda: 0.0)

        with pytest.raises(UnavailableError, match="none of acme/main/model_routing is"):
            router.decide(CONTEXTS[0], unavailable=dict.fromkeys(ARMS, "down"))
        with pytest.raises(UnknownArmError):
            router.decide(CONTEXTS[0], unavailable={"nobody": "down"})
        assert record.head() == 0

    def test_what_was_served_over_other_arms_replays_to_the_bit(self, policy, tmp_path):
        """A snapshot of three arms, decisions over two of them and a new one: verified from snapshot and row alone."""
        key = signing_key(tmp_path)
        version = publish(
            tmp_path / "snapshots",
            SCOPE,
            policy.freeze(),
            position=0,
            parent=None,
            evidence={},
            created=0.0,
            expires=1e9,
            key=key,
        ).version
        config, _ = with_new()
        record = MemoryRecord()
        router = Router(SCOPE, config, record, np.random.default_rng(7), lambda: 100.0)
        router.swap(Serving(policy, version))
        made = [router.decide(context) for context in CONTEXTS[:20]]
        policies = Policies({"model_routing": config}, tmp_path / "snapshots", trusted_keys(tmp_path))

        assert all(replays(one, policies.of(one, record)) for one in made)
        lie = replace(made[0], excluded={"new": "nobody tried it"})
        assert not replays(lie, policies.of(lie, record))
