"""Facts about leaning on sibling scopes: off by default, taken where it helps, left where it does not."""

from __future__ import annotations

import numpy as np
import pytest

from bandits.config import load_config, parse_config
from bandits.errors import ShapeError
from bandits.learners.doubly_robust import Parameters
from bandits.training.training import prepare, train
from bandits.tuning.tuning import tune
from bandits.types import Scope
from tests.logs import domain, simulate, truth

BUDGET = 6e-4
HALF = Parameters(siblings=0.5)


def opposite(contexts):
    """A world where everything is the other way round."""
    return 1.0 - truth(contexts)


def test_siblings_of_weight_0_change_no_bit():
    """The default: sums of others are there, and nothing listens."""
    alone = train(prepare(simulate(400, 0), domain(BUDGET), 200), Parameters())
    beside = train(prepare(simulate(400, 0), domain(BUDGET), 200, [simulate(900, 1)]), Parameters())

    assert alone.policy.weights.tobytes() == beside.policy.weights.tobytes()
    assert alone.scores.q_hat.tobytes() == beside.scores.q_hat.tobytes()


def test_a_sibling_of_the_same_world_sharpens_the_estimates_and_one_of_another_blurs_them():
    """Squared error of the cross-fitted rewards against the truth, over ten logs of 250 rounds."""

    def error(siblings, parameters):
        found = []
        for seed in range(10):
            log = simulate(250, seed, noise=0.5)
            others = [siblings(seed)] if siblings else []
            q_hat = train(prepare(log, domain(BUDGET), 200, others), parameters).scores.q_hat
            found.append(float(np.square(q_hat - truth(log.contexts)).mean()))
        return np.mean(found)

    alone = error(None, Parameters())
    assert error(lambda seed: simulate(2000, 100 + seed, noise=0.5), HALF) < 0.8 * alone
    assert error(lambda seed: simulate(2000, 100 + seed, noise=0.5, expected=opposite), HALF) > 2.0 * alone


def test_the_order_of_the_siblings_changes_no_bit():
    """Their sums are exact."""
    logs = [simulate(300, 1), simulate(500, 2), simulate(10, 3)]
    one = train(prepare(simulate(400, 0), domain(BUDGET), 200, logs), HALF)
    other = train(prepare(simulate(400, 0), domain(BUDGET), 200, logs[::-1]), HALF)

    assert one.policy.weights.tobytes() == other.policy.weights.tobytes()


def test_the_search_leaves_a_sibling_of_an_opposite_world_alone():
    """What it adopts, if anything, gives it next to no weight."""
    log = simulate(600, 0)
    found = tune(
        prepare(log, domain(BUDGET), 200, [simulate(3000, 1, expected=opposite)]), trials=8, seed=0, study="opposite"
    )

    assert not found.adopted or found.parameters.siblings < 0.1


def test_siblings_without_a_round_are_nobody():
    """An empty workspace."""
    empty = simulate(10, 1).where(np.zeros(10, np.bool_))

    assert prepare(simulate(400, 0), domain(BUDGET), 200, [empty]).siblings is None


def test_siblings_are_the_same_domain_in_the_other_workspaces_of_the_tenant_and_only_if_allowed():
    """Never another tenant's."""
    raw = {
        "tenants": {"acme": {"workspaces": ["main", "side"]}, "rival": {"workspaces": ["main", "side"]}},
        "domains": {name: load_config().domains["model_routing"].model_dump() for name in ("model_routing", "other")},
    }
    mine = Scope("acme", "main", "model_routing")

    assert parse_config(raw, "test").siblings(mine) == []
    shared = parse_config(raw | {"night": {"share": True}}, "test")
    assert shared.siblings(mine) == [Scope("acme", "side", "model_routing")]


def test_a_sibling_over_other_arms_cannot_be_added():
    """Logs are read over the arms that are configured, so this is a fault of the caller."""
    narrow = simulate(300, 1, probabilities=(0.5, 0.5))

    with pytest.raises(ShapeError, match="a sibling's log must be over arms"):
        prepare(simulate(400, 0), domain(BUDGET), 200, [simulate(300, 2), narrow])
