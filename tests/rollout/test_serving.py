"""Facts about a server while a snapshot is rolled out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bandits.explaining.replay import Policies, verify
from bandits.record.audit import Audit
from bandits.rollout.giving import roll_back
from bandits.rollout.slots import canary_ends, place
from bandits.settings.experiments import HoldbackConfig
from bandits.snapshots.keys import trusted_keys
from bandits.types import Outcome, Slot
from tests.rollout.world import SCOPE, World


def test_without_any_order_the_newest_snapshot_serves(world):
    """As before there were orders."""
    world.put()
    newest = world.put()

    assert world.start().router.serving.version == newest


def test_a_snapshot_that_no_order_names_serves_nobody(rolling):
    """Published and then forgotten, it waits for its order."""
    world, stable, _ = rolling
    world.put()
    world.server.refresh()

    assert world.server.router.serving.version == stable
    assert world.start().router.serving.version == stable


def test_the_canary_serves_those_below_its_share_and_logs_itself(rolling):
    """A fifth of the users, the same ones each time, slot and version of the canary."""
    world, stable, candidate = rolling
    made = world.serve(range(300)) + world.serve(range(300))
    seed = world.server.order.seed

    for decision in made:
        canary = place(seed, decision.user) < canary_ends(0.2)
        assert (decision.slot, decision.policy) == ((Slot.CANARY, candidate) if canary else (Slot.STABLE, stable))
    assert 0.1 < np.mean([decision.slot is Slot.CANARY for decision in made]) < 0.3


def test_decisions_of_a_canary_replay_to_the_last_bit(rolling):
    """The version that they log is the canary's."""
    world, *_ = rolling
    world.serve(range(100))
    found = verify(world.record, Policies(world.config.domains, world.home.snapshots, trusted_keys(world.home.root)))

    assert found.ok
    assert found.replayed == found.decisions == 100


def test_a_sound_canary_climbs_to_everybody_and_then_is_the_stable_one(rolling):
    """Stage by stage, each sealed in the audit chain, with one end."""
    world, stable, candidate = rolling
    for round_ in range(40):
        world.serve(range(50 * round_, 50 * round_ + 50))
        world.pass_time(1)

    phases = [(order.phase, order.share, order.stable) for order in world.orders()]
    assert phases == [
        ("canary", 0.2, stable),
        ("canary", 0.5, stable),
        ("canary", 1.0, stable),
        ("complete", 0.0, candidate),
    ]
    assert world.server.router.serving.version == candidate
    assert world.serve(range(9))[-1].slot is Slot.STABLE
    with Audit(world.home.audit_url) as audit:
        sealed = [(row.action, row.content["evidence"]["order"]) for row in audit.rows("acme")]
    assert sealed == [("rollout", number) for number in (1, 2, 3, 4)]


@pytest.mark.parametrize("how", ["errors", "reward", "latency"])
def test_a_bad_canary_is_rolled_back_and_says_why(rolling, how):
    """From the record alone: by failures, by reward, by time."""
    world, stable, candidate = rolling
    for user in range(2_000):
        decision = world.decide(f"u{user}")
        bad = decision.slot is Slot.CANARY
        if bad and how == "errors":
            world.report(decision, 0.0, result="failed:server")
        else:
            world.report(
                decision, 0.2 if bad and how == "reward" else 0.8, latency_s=2.0 if bad and how == "latency" else 0.1
            )
        if user % 20 == 0:
            world.server.refresh()
        if not world.server.order.active:
            break

    order = world.server.order
    assert (order.phase, order.stable, order.candidate) == ("rolled back", stable, candidate)
    assert {"errors": "fail", "reward": "mean reward", "latency": "take over"}[how] in order.why
    assert {decision.slot for decision in world.serve(range(200))} == {Slot.STABLE}


def test_without_a_fresh_lease_the_stable_policy_serves(rolling):
    """The check is on the decision's own clock: nobody has to notice that the controller is gone."""
    world, stable, _ = rolling
    users = [user for user in range(100) if world.decide(f"u{user}").slot is Slot.CANARY]
    assert users

    world.now += 5.0
    assert {world.decide(f"u{user}").policy for user in users} == {stable}
    world.now -= 3_605.0
    assert {world.decide(f"u{user}").policy for user in users} == {stable}, "the lease is from the future now"
    world.server.refresh()
    assert {world.decide(f"u{user}").slot for user in users} == {Slot.CANARY}, "a fresh one was taken"


def test_a_host_without_the_signing_key_serves_under_leases_and_gives_none(rolling):
    """It stops its own canary at a breach, and the order is left to others."""
    world, *_ = rolling
    (world.home.root / "keys" / "signing.key").rename(world.home.root / "kept")
    world.pass_time(3)
    assert {world.decide(f"u{user}").slot for user in range(50)} == {Slot.CANARY, Slot.STABLE}, "issued at the start"
    world.pass_time(2)
    assert {world.decide(f"u{user}").slot for user in range(50)} == {Slot.STABLE}, "nobody renewed it"

    (world.home.root / "kept").rename(world.home.root / "keys" / "signing.key")
    world.server.refresh()
    (world.home.root / "keys" / "signing.key").rename(world.home.root / "kept")
    for user in range(200):
        decision = world.decide(f"u{user}")
        if decision.slot is Slot.CANARY:
            world.server.router.report(Outcome(decision.id, world.now, SCOPE, quality=0.0, result="failed:server"))
    world.server.refresh()
    assert world.orders()[-1].phase == "canary"
    assert {world.decide(f"u{user}").slot for user in range(50)} == {Slot.STABLE}


def test_a_rollback_by_hand_is_a_higher_order_for_older_content(rolling):
    """Also after the rollout has ended; each names its reason."""
    world, stable, candidate = rolling
    given = {"who": "ann", "why": "users complain"}
    first = roll_back(world.home, SCOPE, world.config, world.key, world.now, **given)
    assert (first.number, first.phase, first.stable, first.why) == (2, "rolled back", stable, "users complain")
    world.server.refresh()
    assert {decision.policy for decision in world.serve(range(50))} == {stable}

    to = roll_back(world.home, SCOPE, world.config, world.key, world.now, to=candidate, **given)
    world.server.refresh()
    assert (to.number, world.server.router.serving.version) == (3, candidate)
    back = roll_back(world.home, SCOPE, world.config, world.key, world.now, **given)
    world.server.refresh()
    assert (back.stable, world.server.router.serving.version) == (stable, stable)


def test_the_first_snapshot_of_a_scope_begins_with_half_of_the_users(world):
    """The others go on exploring, as its control; a sound one then serves everybody."""
    world.start()
    version = world.put()
    world.begin(version, None)
    world.server.refresh()
    assert Counter(decision.policy for decision in world.serve(range(200))).keys() == {"explore", version}

    for round_ in range(40):
        world.serve(range(50 * round_, 50 * round_ + 50))
        world.pass_time(1)
    assert [order.share for order in world.orders()] == [0.5, 1.0, 0.0]
    assert world.server.router.serving.version == version


def test_a_bad_first_snapshot_leaves_everybody_to_the_first_policy(world):
    """It is held against what explores, and taken back by itself."""
    world.start()
    version = world.put()
    world.begin(version, None)
    world.server.refresh()
    for round_ in range(40):
        world.serve(range(50 * round_, 50 * round_ + 50), bad=0.2)
        world.pass_time(1)

    newest = world.orders()[-1]
    assert (newest.phase, newest.stable, newest.candidate) == ("rolled back", None, version)
    assert {decision.policy for decision in world.serve(range(200))} == {"explore"}


def test_all_at_once_is_an_order_too(tmp_path):
    """Stages of [1.0]."""
    world = World(tmp_path, stages=[1.0])
    stable = world.put()
    world.start()
    version = world.put()
    world.begin(version, stable)
    world.server.refresh()

    assert world.server.router.serving.version == version


def test_held_back_users_never_see_a_canary(tmp_path):
    """The holdback takes precedence, also at the last stage."""
    world = World(tmp_path)
    held = {"start": "1970-01-01T00:00:00Z", "share": 0.3}
    domain = world.config.domains["own"].model_copy(update={"holdback": HoldbackConfig(**held)})
    world.config = world.config.model_copy(update={"domains": {"own": domain}})
    stable = world.put()
    world.start()
    world.begin(world.put(), stable)
    world.server.refresh()

    made = world.serve(range(400))
    slots = {decision.slot for decision in made}
    assert slots == {Slot.HOLDBACK, Slot.CANARY, Slot.STABLE}
    held_users = {decision.user for decision in made if decision.slot is Slot.HOLDBACK}
    seed = world.server.order.seed
    assert any(place(seed, user) < canary_ends(0.2) for user in held_users), "some would be the canary's otherwise"
