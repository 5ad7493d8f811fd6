"""Every learner keeps the contract: its passes, what it learns from events or outcome by outcome, what it publishes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache

import numpy as np
import pytest

from bandits.errors import SnapshotError
from bandits.learners import corrected, direct_method, doubly_robust, offset_tree
from bandits.learners.baselines import ContextFree
from bandits.learners.choice import LEARNERS
from bandits.learners.corrected import Correction
from bandits.learners.cost import CostModel, solve_cost
from bandits.learners.doubly_robust import FOLDS, Events, Parameters, playing
from bandits.learners.frozen import thaw
from bandits.learners.lift import Lift
from bandits.learners.offset_tree import Centres, OnlineOffsetTree, node_sums
from bandits.learners.online import LINEAR, OnlineLearner
from bandits.learners.passes import (
    Contexts,
    Corrections,
    Expected,
    Prices,
    Rewards,
    Spending,
    cost_gram_of,
    grams_of,
    reward_models,
    scaler_of,
)
from bandits.learners.ridge import Gram
from bandits.learners.scaling import ContextSums, Scaler
from bandits.learners.slab import DAY_S, Slab
from bandits.testing.learners import (
    Learn,
    LearnerConformance,
    Pass,
    PassConformance,
    PolicyConformance,
    StreamConformance,
    events_of,
)
from bandits.training import candidates
from bandits.training.training import prepare, train
from tests.logs import domain, simulate

N, D = 1000, 64


# The passes of the night, over slabs


@lru_cache
def slab() -> Slab:
    """N events of three arms over five days, 64 features, a few of unknown cost."""
    log = simulate(N, 0)
    rng = np.random.default_rng(0)
    costs = np.where(rng.random(N) < 0.1, np.nan, log.costs)
    contexts = rng.normal(size=(N, D)).astype(np.float32)
    return Slab.of(replace(log, contexts=contexts, costs=costs, times=rng.uniform(0.0, 5 * DAY_S, N)))


def wider(array: np.ndarray, k: int = 3) -> np.ndarray:
    """One arm more along the axis of the arms."""
    axis = array.shape.index(k)
    widths = [(0, int(i == axis)) for i in range(array.ndim)]
    return np.pad(array, widths, constant_values=0)


def widened(one: object) -> object:
    """The pass with one arm more: nobody drew it, and where arms may be barred it is."""
    if isinstance(one, Contexts | Rewards):
        return replace(one, k=one.k + 1)
    changes = {}
    for name in (field.name for field in fields(one)):
        value = getattr(one, name)
        if isinstance(value, CostModel):
            changes[name] = CostModel(wider(value.weights), np.append(value.scale, 1.0))
        elif isinstance(value, np.ndarray) and name != "prices":
            changes[name] = wider(value)
    assert is_dataclass(one)
    return replace(one, **changes)


def night_passes() -> dict[str, object]:
    scaler = scaler_of(Contexts(3)(slab()))
    sums = Rewards(scaler, 3)(slab())
    models = reward_models(grams_of(sums), Parameters())
    weights = solve_cost(cost_gram_of(sums))
    cost = CostModel(weights, np.array([1.0, 2.0, 3.0]))
    prices, allowed = np.array([0.0, 1.0, 30.0]), np.array([True, False, True])
    return {
        "contexts": Contexts(3),
        "rewards": Rewards(scaler, 3),
        "lifted rewards": Rewards(Lift.draw(scaler, 6, 1.0), 3, folds=1, priced=False),
        "expected": Expected(scaler, weights),
        "corrections": Corrections(scaler, models),
        "prices": Prices(scaler, cost),
        "spending": Spending(scaler, models[FOLDS], cost, prices, allowed),
    }


PASSES = night_passes()


class TestPassesOfTheNight(PassConformance):
    """What bandits/learners/passes.py folds."""

    @pytest.fixture(params=PASSES)
    def one(self, request) -> Pass:
        this, log = PASSES[request.param], slab()
        wide = widened(this)
        takes_away = request.param != "prices"  # an extreme stays, and a new arm's price may be one
        return Pass(N, lambda rows: this(log.where(rows)), lambda rows: wide(log.where(rows)), takes_away)

    def test_an_arm_more_leaves_the_statistics_of_the_others_alone(self, one: Pass) -> None:
        """The least and the most of all prices belong to no arm."""
        if one.takes_away:
            super().test_an_arm_more_leaves_the_statistics_of_the_others_alone(one)


# The passes over events


@lru_cache
def events(k: int = 3) -> Events:
    return replace(events_of(N, 3, 0, D), k=k)


def q_hat(k: int) -> np.ndarray:
    return np.random.default_rng(1).random((N, 4))[:, :k]


def won() -> tuple[np.ndarray, np.ndarray]:
    """Winners of two subtrees: arms 0 and 1 below the left child, 2 below the right."""
    return np.arange(N) % 2, np.full(N, 2)


EVENT_PASSES: dict[str, Callable[[np.ndarray, int], object]] = {
    "ridge": lambda rows, k: Gram.of(events().phi[rows], events().actions[rows], events().targets[rows], k),
    "scale": lambda rows, k: ContextSums.of(events().phi[rows].astype(np.float32)),
    "correction": lambda rows, k: Correction.of(taken(rows, k), q_hat(k)[rows]),
    "centres": lambda rows, k: Centres.of(taken(rows, k)),
    "node": lambda rows, k: node_sums(taken(rows, k), q_hat(k)[rows], won()[0][rows], won()[1][rows]),
}


def taken(rows: np.ndarray, k: int) -> Events:
    return events(k).where(rows)


class TestPassesOverEvents(PassConformance):
    """Ridge, correction, and the offset tree's: its shape, and a node."""

    @pytest.fixture(params=EVENT_PASSES)
    def one(self, request) -> Pass:
        of = EVENT_PASSES[request.param]
        return Pass(N, lambda rows: of(rows, 3), lambda rows: of(rows, 4))


# Learners of events


class TestRidge(LearnerConformance):
    """Doubly robust on ridge: what a night folds from a log of any size."""

    @pytest.fixture
    def learn(self) -> Learn:
        def learned(log: Events):
            weights = doubly_robust.fit(log, doubly_robust.grams(log), Parameters(10.0, 10.0, 1000.0))
            return lambda phi: phi @ weights.T

        return learned


class TestDirectMethod(LearnerConformance):
    """Logistic models of the reward, without the log's correction."""

    ORDERLY = False

    @pytest.fixture(params=direct_method.LINKS)
    def learn(self, request) -> Learn:
        return lambda log: direct_method.fit(log.phi, log.actions, log.targets, log.k, request.param, 1.0).predict


class TestCorrected(LearnerConformance):
    """Logistic models of the reward, corrected, everything chosen on the log."""

    ORDERLY = False

    @pytest.fixture
    def learn(self) -> Learn:
        return lambda log: corrected.learn(log).q.predict


class TestOffsetTree(LearnerConformance):
    """The tournament, learned from the whole log."""

    @pytest.fixture(params=["half", "model"])
    def learn(self, request) -> Learn:
        def learned(log: Events):
            tree = offset_tree.learn(log, request.param).tree
            return lambda phi: playing(tree.choose(phi), log.k)

        return learned


class TestOnlineOffsetTree(LearnerConformance):
    """The tournament, one event at a time. What it hears depends on the order, and at first on who is on the left."""

    ORDERLY, ALIKE = False, 0.9

    @pytest.fixture
    def learn(self) -> Learn:
        def learned(log: Events):
            # Its arms are paired by where they succeed, as in the batch, so that names do not matter.
            one = OnlineOffsetTree(Centres.of(log).shape(), log.phi.shape[1])
            for row, a, r, p in zip(log.phi, log.actions, log.targets, log.propensities, strict=True):
                one.learn(row, int(a), float(r), float(p))
            return lambda phi: playing(one.tree.choose(phi), log.k)

        return learned


class TestOnline(LearnerConformance):
    """Upper bounds, one outcome at a time."""

    ORDERLY = False

    @pytest.fixture
    def learn(self) -> Learn:
        def learned(log: Events):
            one = OnlineLearner(log.k, Scaler(np.zeros(3), np.ones(3)), replace(LINEAR, optimism=0.0))
            for row, a, r in zip(log.phi, log.actions, log.targets, strict=True):
                one.learn(row[:-1].astype(np.float32), int(a), float(r))
            one.flush()
            return lambda phi: np.array([one.estimates(row[:-1].astype(np.float32)) for row in phi])

        return learned


# Learners of one outcome after the other


class _Online:
    def __init__(self, d: int) -> None:
        self.one = OnlineLearner(2, Scaler(np.zeros(d), np.ones(d)), LINEAR)

    def learn(self, context, action, reward) -> None:
        self.one.learn(context, action, reward)

    def numbers(self):
        sums, (head,) = self.one.sums, self.one._heads
        found = {"count": sums.count, "gram": sums.gram, "weights": head.weights, "inverse": head.inverse}
        for arm, inverse in enumerate(head.inverse):  # what is updated recursively stays that of the exact sums
            assert np.abs(inverse - inverse.T).max() < 1e-12
            assert np.linalg.eigvalsh(inverse).min() > 0.0
            again = np.linalg.solve(sums.gram[arm] + np.eye(len(inverse)), sums.moment[arm])
            np.testing.assert_allclose(head.weights[arm], again, atol=1e-7)
        return found


class _Tree:
    def __init__(self, d: int) -> None:
        self.one = OnlineOffsetTree(np.array([[0, 1]]), d)

    def learn(self, context, action, reward) -> None:
        self.one.learn(context, action, reward, 0.5)

    def numbers(self):
        (sums,) = self.one.sums
        return {"count": np.array([sums.count]), "gram": sums.gram, "weights": self.one.tree.weights}


class TestStreams(StreamConformance):
    """Upper bounds, and the offset tree."""

    @pytest.fixture(params=[_Online, _Tree])
    def stream(self, request):
        return request.param


# Policies


@lru_cache
def published() -> dict[str, object]:
    """A policy of each kind, as a night trains it, with a floor of a tenth."""
    log, config = simulate(600, 1), domain(1.1e-2, floor=PolicyConformance.FLOOR)
    prepared = prepare(log, config, 200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "WAVES", 32)
        found = candidates.compete(prepared, train(prepared, Parameters()), LEARNERS).candidates
    shared = (log.arms, log.schema, np.array([0.5, 0.6, 0.85]), prepared.prices, 1.5e-3, config.floor)
    simple = {rule: ContextFree(rule, *shared) for rule in ("explore", "mix", "fixed")}
    learned = {learner: each.policy for learner, each in found.items()}
    rng, straight = np.random.default_rng(0), learned["direct_method"]
    k, d = straight.shift.shape
    bent = replace(straight, weights=rng.normal(size=(k + 1, d)), shift=0.1 * rng.normal(size=(k, d)))
    return {**simple, **learned, "competing": bent}


class TestPolicies(PolicyConformance):
    """Everything that a snapshot may hold; `competing` is a lifted one whose arms compete, corrected."""

    @pytest.fixture(params=["explore", "mix", "fixed", *LEARNERS, "competing"])
    def policy(self, request):
        return published()[request.param]

    @pytest.fixture
    def contexts(self):
        return np.random.default_rng(2).normal(size=(200, 2)).astype(np.float32)


def test_a_lifted_policy_foretells_what_its_learner_does():
    """Link and shift survive: the rows are those of the model, wherever a block of contexts ends."""
    policy = published()["competing"]
    contexts = np.random.default_rng(3).normal(size=(5000, 2)).astype(np.float32)
    model = corrected.Corrected(direct_method.RewardModel("competing", policy.weights), policy.shift)

    q_hat = policy.scores(contexts).q_hat

    np.testing.assert_allclose(q_hat, model.predict(policy.lift.features(contexts)), atol=1e-12)


@pytest.mark.parametrize("change", [{"weights": np.zeros((2, 5))}, {"shift": np.zeros((3, 5))}])
def test_a_lifted_policy_of_wrong_shape_is_refused(change):
    """With the snapshot's own error, which says what there should be."""
    frozen = published()["competing"].freeze()

    with pytest.raises(SnapshotError, match="must have shape"):
        thaw(replace(frozen, arrays={**frozen.arrays, **change}))
