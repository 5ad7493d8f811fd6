"""Facts about the offset tree: exact passes, filtering, a bound on regret, and contexts that bend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.errors import ShapeError, SnapshotError
from bandits.learners import doubly_robust, offset_tree
from bandits.learners.doubly_robust import FOLDS, Events
from bandits.learners.frozen import thaw
from bandits.learners.grid import on_grid
from bandits.learners.lift import Lift
from bandits.learners.offset_tree import Centres, OffsetTree, OnlineOffsetTree, Sums, importance, node_sums
from bandits.learners.scaling import ContextSums, Scaler
from bandits.learners.tree_policy import TreePolicy


def log(phi: np.ndarray, reward: np.ndarray, seed: int = 0) -> Events:
    """A uniform log over phi, (n, D), of the rewards, (n, K), that the drawn arms earn."""
    n, k = reward.shape
    actions = np.random.default_rng([seed, 77]).integers(0, k, n)
    rewards = on_grid(reward[np.arange(n), actions], 1.0)
    return Events(phi, actions, rewards, np.full(n, 1.0 / k), np.arange(n) % FOLDS, k)


def random_log(n: int, d: int, k: int, seed: int) -> Events:
    """Skewed propensities, random rewards, a constant last."""
    rng = np.random.default_rng(seed)
    phi = np.hstack([on_grid(rng.normal(size=(n, d - 1)), 5.0), np.ones((n, 1))])
    p = rng.dirichlet(np.ones(k), n)
    actions = np.array([rng.choice(k, p=row) for row in p])
    return Events(phi, actions, on_grid(rng.random(n), 1.0), p[np.arange(n), actions], np.arange(n) % FOLDS, k)


def classes(n: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """phi, (n, 4), and rewards, (n, K): the arm whose direction the context is nearest to earns 1."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    best = (x @ np.random.default_rng(k).normal(size=(3, k))).argmax(axis=1)
    return ContextSums.of(x).scaler().features(x), np.eye(k)[best]


def half(events: Events) -> np.ndarray:
    return np.full((len(events.phi), events.k), 0.5)


def same(one: object, other: object) -> bool:
    names = one.__dataclass_fields__
    return all(np.asarray(getattr(one, x)).tobytes() == np.asarray(getattr(other, x)).tobytes() for x in names)


def test_weights_off_the_grid_would_not_merge():
    """The negative control: why 1/p is rounded."""
    events = random_log(4000, 5, 4, 0)
    raw = np.minimum(1.0 / events.propensities, 50.0)

    def merges(weights):
        parts = [Sums.of(events.phi[p], events.targets[p], weights[p]) for p in (slice(0, 1234), slice(1234, None))]
        return same(parts[0] + parts[1], Sums.of(events.phi, events.targets, weights))

    assert merges(importance(events.propensities))
    assert not merges(raw)
    assert np.abs(importance(events.propensities) / raw - 1.0).max() <= 2.0**-6


@pytest.mark.parametrize("offset", [0.0, 0.5, 0.9])
def test_a_node_estimates_half_the_difference_whatever_is_subtracted(offset):
    """Two contexts, one feature each, a skewed log that holds each event as often as its propensity says."""
    truth = np.array([[0.25, 0.75], [0.875, 0.125]])
    p = np.array([[0.25, 0.75], [0.5, 0.5]])
    rows = [(x, a) for x in (0, 1) for a in (0, 1) for _ in range(round(4 * p[x, a]))]
    x, a = np.array(rows).T
    phi = np.hstack([np.eye(2)[x], np.ones((8, 1))])
    events = Events(phi, a, truth[x, a], p[x, a], np.zeros(8, dtype=int), 2)

    def solved(log_):
        sums = node_sums(log_, np.full((8, 2), offset), np.zeros(8, dtype=int), np.ones(8, dtype=int))
        return (np.array([[1.0, 0, 1], [0, 1, 1]])) @ sums.solve(1e-7)

    wanted = 0.5 * (truth[:, 1] - truth[:, 0])
    assert solved(events) == pytest.approx(wanted, abs=0.01)
    # The negative control: with the propensities of another log it is wrong, unless the offset hides it.
    errors = np.abs(solved(replace(events, propensities=np.full(8, 0.5))) - wanted)
    assert (errors.max() > 0.05) == (offset != 0.5)


@pytest.mark.parametrize("offset", ["half", "model"])
def test_no_regret_where_every_node_can_be_right(offset):
    """Four contexts, five arms, every pair seen: the tree plays the best arm everywhere."""
    truth = np.random.default_rng(1).permutation(20).reshape(4, 5) / 19.0
    x, a = (index.ravel().repeat(20) for index in np.meshgrid(range(4), range(5), indexing="ij"))
    phi = np.hstack([np.eye(4)[x], np.ones((400, 1))])
    folds = np.tile(np.arange(20) % FOLDS, 20)
    events = Events(phi, a, on_grid(truth[x, a], 1.0), np.full(400, 0.2), folds, 5)

    tree = offset_tree.learn(events, offset).tree

    assert tree.choose(np.hstack([np.eye(4), np.ones((4, 1))])).tolist() == truth.argmax(axis=1).tolist()


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(0, 10_000))
def test_regret_is_at_most_the_sum_of_the_nodes_own(k, seed):
    """Beygelzimer & Langford's argument, for any tree and rewards, against a tournament written as a loop."""
    rng = np.random.default_rng(seed)
    events = random_log(30, 4, k, seed)
    children = Centres.of(events).shape()
    tree = OffsetTree(children, rng.normal(size=(k - 1, 4)))
    phi, reward = rng.normal(size=(20, 4)), rng.random((20, k))
    allowed = rng.random((20, k)) < 0.6
    allowed[np.arange(20), rng.integers(0, k, 20)] = True

    chosen = tree.choose(phi, allowed)

    for i in range(20):
        won, lost = [arm if allowed[i, arm] else None for arm in range(k)], 0.0
        for (left, right), weights in zip(children.tolist(), tree.weights, strict=True):
            a, b = won[left], won[right]
            if a is None or b is None:
                won.append(b if a is None else a)
                continue
            winner, loser = (b, a) if weights @ phi[i] > 0 else (a, b)
            won.append(winner)
            lost += max(0.0, reward[i, loser] - reward[i, winner])
        assert chosen[i] == won[-1]
        assert allowed[i, chosen[i]]
        assert reward[i, allowed[i]].max() - reward[i, chosen[i]] <= lost + 1e-12


def test_an_exclusive_or_that_no_linear_policy_sees():
    """Arm 1 is right where two signs differ. Over waves the tree finds out; over the plain context nothing does."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.0, 1.0, (1500, 2)).astype(np.float32)
    right = (x[:, 0] * x[:, 1] < 0.0).astype(int)
    scaler = ContextSums.of(x).scaler()
    bent = log(Lift.draw(scaler, 64, 0.8, 1.0, 6.0).features(x), np.eye(2)[right])
    flat = log(scaler.features(x), np.eye(2)[right])

    def accuracy(events, arms):
        return float((arms == right).mean())

    assert accuracy(bent, offset_tree.learn(bent).tree.choose(bent.phi)) > 0.93
    assert accuracy(flat, offset_tree.learn(flat).tree.choose(flat.phi)) < 0.65
    linear = doubly_robust.fit(flat, doubly_robust.grams(flat), doubly_robust.Parameters(1.0, 1.0, 100.0))
    assert accuracy(flat, (flat.phi @ linear.T).argmax(axis=1)) < 0.65


def test_the_tree_learns_from_drawn_arms_only_what_the_classes_are():
    """Six arms, one right per context: far above the quarter that the best arm earns, on contexts that it never saw."""
    phi, reward = classes(4000, 6, 0)
    events = log(phi[:3000], reward[:3000])

    learned = offset_tree.learn(events)

    played = reward[3000:][np.arange(1000), learned.tree.choose(phi[3000:])].mean()
    assert reward.mean(axis=0).max() < 0.4
    assert played > 0.7
    assert learned.values.max() == pytest.approx(played, abs=0.1)  # what the log promised


def test_an_event_of_an_arm_that_lost_below_does_not_reach_the_node():
    """Filtering: only events of the two winners are heard."""
    phi, reward = classes(400, 4, 1)
    events = log(phi, reward)
    left, right = np.zeros(400, dtype=int), np.full(400, 3)

    sums = node_sums(events, half(events), left, right)

    assert sums.count == np.isin(events.actions, (0, 3)).sum()
    assert 0 < sums.count < 400


def test_arms_that_succeed_in_the_same_places_are_paired_low():
    """Arms 0 and 3 succeed to the right, 1 and 2 to the left; the tree compares neighbours first."""
    rng = np.random.default_rng(0)
    side = rng.choice([-1.0, 1.0], 800)
    phi = np.stack([side, np.ones(800)], axis=1)
    reward = np.stack([side > 0, side < 0, side < 0, side > 0], axis=1).astype(float)

    children = Centres.of(log(phi, reward)).shape()

    assert sorted(map(tuple, children[:2].tolist())) == [(0, 3), (1, 2)]
    assert sorted(children[2].tolist()) == [4, 5]


def test_one_arm_needs_no_node_and_two_need_one():
    """The edges of any K."""
    phi, reward = classes(300, 2, 4)
    alone, two = offset_tree.learn(log(phi, reward[:, :1])).tree, offset_tree.learn(log(phi, reward)).tree

    assert (alone.k, len(alone.children), set(alone.choose(phi).tolist())) == (1, 0, {0})
    assert alone.describe(("only",), ()) == "only"
    assert (two.k, two.children.tolist()) == (2, [[0, 1]])
    assert reward[np.arange(300), two.choose(phi)].mean() > 0.85


def test_an_arm_that_is_not_allowed_is_not_compared():
    """The tree is learned as if its events were not there, and what was cross-fitted never plays it."""
    phi, reward = classes(600, 4, 5)
    events = log(phi, reward)
    learned = offset_tree.learn(events, "half", allowed=np.array([True, False, True, True]))

    assert set(learned.played.tolist()) == {0, 2, 3}
    (node,) = [i for i, pair in enumerate(learned.tree.children.tolist()) if 1 in pair]
    assert (learned.tree.weights[node] == 0.0).all()
    assert (offset_tree.learn(events, "half").tree.weights[node] != 0.0).any()


@pytest.mark.parametrize(
    ("children", "rows"),
    [([[0, 0]], 1), ([[0, 3]], 1), ([[0, 1], [2, 4]], 2), ([[0, 4], [1, 2]], 2), ([[0, 1]], 2)],
)
def test_numbers_that_form_no_tree_are_refused(children, rows):
    """An arm twice, a number too high, a node above itself, a weight too many."""
    with pytest.raises(ShapeError, match="children must hold each of"):
        OffsetTree(np.array(children), np.zeros((rows, 3)))


def test_a_tree_prints_itself():
    """Its strongest features by name, its arms by name, what it owes to waves."""
    weights = np.array([[-0.25, 0.03, 0.5, 0.0, 0.0, 0.125], [0.0, 2.0, 0.0, 3.0, 4.0, -1.0]])
    tree = OffsetTree(np.array([[0, 2], [1, 3]]), weights)

    assert tree.describe(("small", "middle", "large"), ("length", "code", "hour"), shown=2) == (
        "if +2.000 code -1.000 (waves: 5.000) > 0:\n"
        "    if +0.500 hour -0.250 length +0.125 > 0:\n"
        "        large\n"
        "    else:\n"
        "        small\n"
        "else:\n"
        "    middle"
    )


def test_online_sums_are_the_batch_s_to_the_last_bit():
    """At the lowest nodes, where nothing is filtered; above them what was known then decides who is heard."""
    phi, reward = classes(800, 4, 6)
    events = log(phi, reward)
    children = np.array([[0, 1], [2, 3], [4, 5]])
    online = OnlineOffsetTree(children, phi.shape[1])
    for row, action, earned, p in zip(events.phi, events.actions, events.targets, events.propensities, strict=True):
        online.learn(row, int(action), float(earned), float(p))

    for node, (left, right) in enumerate(children[:2].tolist()):
        whole = node_sums(events, half(events), np.full(800, left), np.full(800, right))
        assert same(online.sums[node], whole)
    assert 0 < online.sums[2].count < 800
    played = reward[np.arange(800), online.tree.choose(phi)].mean()
    assert played > 0.75


def policy(floor: float = 0.1) -> TreePolicy:
    phi, reward = classes(600, 3, 7)
    x = phi[:, :-1].astype(np.float32)
    lift = Lift.draw(ContextSums.of(x).scaler(), 16, 0.8)
    tree = offset_tree.learn(log(lift.features(x), reward)).tree
    return TreePolicy(("a", "b", "c"), "text-1", lift, tree, np.ones(3, np.bool_), np.array([1e-4, 1e-3, 1e-2]), floor)


def test_the_winner_has_all_but_its_share_of_the_floor():
    """And its rules name the schema's features, where it has names."""
    one = policy()
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    allowed = np.random.default_rng(1).random((200, 3)) < 0.7
    allowed[:, 1] = True

    rows = one.probabilities(x, allowed)

    assert rows.max(axis=1) == pytest.approx(1.0 - 0.1 + 0.1 / allowed.sum(axis=1))
    assert one.describe(("x", "y", "z")).count("if ") == 2
    assert "log_characters" in one.describe()
    assert "x0" in replace(one, schema="vector-3").describe()


@pytest.mark.parametrize(
    "change",
    [
        {"children": np.array([[0, 1], [2, 2]])},
        {"weights": np.zeros((1, 4))},
        {"units": np.zeros(3)},
        {"children": None},
    ],
)
def test_a_frozen_tree_that_is_none_is_refused(change):
    """With the snapshot's own error."""
    frozen = policy().freeze()
    arrays = {name: array for name, array in (dict(frozen.arrays) | change).items() if array is not None}

    with pytest.raises(SnapshotError, match="offset_tree"):
        thaw(replace(frozen, arrays=arrays))
    with pytest.raises(SnapshotError, match="cannot serve"):
        thaw(replace(frozen, arms=("a", "b")))


def test_a_scaler_alone_is_a_lift_without_waves():
    """So that a domain may have a tree whose rules are all readable."""
    scaler = Scaler(np.zeros(2), np.ones(2))
    x = np.random.default_rng(0).normal(size=(10, 2)).astype(np.float32)

    assert np.array_equal(Lift.draw(scaler, 0, 1.0, linear=1.0).features(x), scaler.features(x))
