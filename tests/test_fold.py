"""Facts about the fold: any parts in any order give the same bits, in memory, on the disk, and in other processes."""

from __future__ import annotations

import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from bandits.errors import NotEnoughDataError, ShapeError
from bandits.learners import doubly_robust
from bandits.learners.cost import CostModel, fit_cost
from bandits.learners.doubly_robust import FOLDS, Events, Parameters
from bandits.learners.grid import limbs
from bandits.learners.lift import Lift
from bandits.learners.passes import (
    Contexts,
    Corrections,
    Prices,
    Rewards,
    corrected,
    grams_of,
    reward_models,
    scaler_of,
)
from bandits.learners.slab import DAY_S, Slab, folds_of
from bandits.learners.sums import Sums, faded, merged
from bandits.record.memory import MemoryRecord
from bandits.snapshots.manifest import content_hash
from bandits.training.fold import Fold, Held, Logged, Spooled, fold, forget, load_days, parts_of, save_days, spool
from bandits.training.training import prepare, train, train_log, train_parts
from bandits.types import Decision, Outcome, Scope
from bandits.warehouse.loading import load
from tests.logs import domain, simulate

SCOPE = Scope("acme", "main", "model_routing")
DOMAIN = domain(1.5e-3)
N = 240


def slab_of(n: int, seed: int, days: int = 5) -> Slab:
    """n events over some days, a few of unknown cost."""
    log = simulate(n, seed)
    rng = np.random.default_rng(seed)
    costs = np.where(rng.random(n) < 0.1, np.nan, log.costs)
    return Slab.of(replace(log, costs=costs, times=rng.uniform(0.0, days * DAY_S, n)))


def same(one: Sums, other: Sums) -> bool:
    return one.arrays.keys() == other.arrays.keys() and all(
        array.tobytes() == other[name].tobytes() for name, array in one.arrays.items()
    )


def test_sums_that_are_not_on_the_grid_depend_on_the_partition():
    """The negative control: dollars as they came."""
    costs = slab_of(4000, 0).costs
    costs = costs[np.isfinite(costs)]

    assert costs.sum() != sum(costs.tolist())
    assert limbs(costs).sum(axis=0).tobytes() == sum(limbs(costs)).tobytes()
    assert limbs(costs).sum() == pytest.approx(costs.sum(), rel=1e-14)


@pytest.mark.parametrize("features", ["scaler", "lift"])
def test_the_features_of_an_event_do_not_depend_on_its_company(features):
    """Alone, or among any others: so a partition cannot be seen in them."""
    contexts = np.random.default_rng(0).normal(size=(1500, 64)).astype(np.float32)
    sums = Contexts(1)(replace(slab_of(1500, 0), contexts=contexts, actions=np.zeros(1500, np.int64)))
    scaler = scaler_of(sums)
    view = scaler if features == "scaler" else Lift.draw(scaler, 256, 1.0)

    whole = view.features(contexts)

    if isinstance(view, Lift):  # so that a product of two numbers on grids is exact, however BLAS blocks it
        steps = view.frequencies * 2.0**24
        assert (steps == np.round(steps)).all()
    for rows in (slice(0, 1), slice(3, 10), slice(700, 1401), slice(1499, 1500)):
        assert view.features(contexts[rows]).tobytes() == whole[rows].tobytes()


def test_a_matrix_product_without_the_grid_does_depend_on_it():
    """The negative control: why rows are multiplied one by one, or on a grid."""
    rng = np.random.default_rng(0)
    phi, weights = rng.normal(size=(999, 77)), rng.normal(size=(77, 3))

    assert any(((phi @ weights)[i] != phi[i] @ weights).any() for i in range(999))


def test_the_passes_give_the_doubly_robust_learner_bit_for_bit():
    """For every fold that is left out, and for none: corrections folded once are those that `fit` computes for each."""
    slab = slab_of(1500, 3)
    scaler = scaler_of(Contexts(3)(slab))
    phi = scaler.features(slab.contexts)
    events = Events(phi, slab.actions, slab.targets, slab.propensities, slab.folds.astype(np.int64), 3)
    grams = grams_of(Rewards(scaler, 3)(slab))
    sums = Corrections(scaler, reward_models(grams, Parameters()))(slab)

    weights = corrected(grams, sums, Parameters())

    folded = doubly_robust.grams(events)
    for fold_ in range(FOLDS):
        assert weights[fold_].tobytes() == doubly_robust.fit(events, folded, Parameters(), without=fold_).tobytes()
    assert weights[FOLDS].tobytes() == doubly_robust.fit(events, folded, Parameters()).tobytes()


def test_the_price_model_is_the_same_from_passes():
    """Gram matrices of known costs by taking away the unknown ones, and the scale in a pass of its own."""
    slab, catalogue = slab_of(1500, 4), np.array([1e-4, 1e-3, 1e-2])
    scaler = scaler_of(Contexts(3)(slab))
    prepared = prepare(replace(simulate(1500, 4), costs=slab.costs), DOMAIN, 200)

    straight = fit_cost(scaler.features(slab.contexts), slab.actions, slab.costs, catalogue)

    assert prepared.cost.weights.tobytes() == straight.weights.tobytes()
    assert prepared.cost.scale.tobytes() == straight.scale.tobytes()


def test_folds_of_many_ids_are_those_of_each():
    ids = tuple(f"décision-{i}" for i in range(500))

    assert folds_of(ids).tolist() == [doubly_robust.fold_of(id_) for id_ in ids]


def in_parts(slab: Slab, cuts: list[int]) -> list[Held]:
    return [Held(slab.where(rows)) for rows in np.split(np.arange(len(slab)), cuts)]


@pytest.mark.parametrize("half_life", [0.5, 2.0, 30.0])
def test_fading_weighs_each_day_by_hand(half_life):
    """2^(-age / half-life) of the age in whole UTC days behind the newest, on Gram matrix, moment and count."""
    slab = slab_of(600, 5, days=6)
    scaler = scaler_of(Contexts(3)(slab))
    weight = 2.0 ** ((slab.days() - slab.days().max()) / half_life)
    phi = scaler.features(slab.contexts)

    sums = Fold(in_parts(slab, [100, 350])).faded(Rewards(scaler, 3), half_life)

    for f in range(FOLDS):
        for arm in range(3):
            mine = (slab.folds == f) & (slab.actions == arm)
            w, x, y = weight[mine, None], phi[mine], slab.targets[mine]
            np.testing.assert_allclose(sums["gram"][f, arm], (w * x).T @ x, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(sums["moment"][f, arm], (w * x).T @ y, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(sums["count"][f, arm], w.sum(), rtol=1e-12)


def test_fading_does_not_see_the_partition_even_where_parts_share_a_day():
    """Days are made whole before they are weighted."""
    slab = slab_of(600, 6)
    one = Rewards(scaler_of(Contexts(3)(slab)), 3)

    folds = [Fold(in_parts(slab, cuts)).faded(one, 3.0) for cuts in ([], [300], [10, 11, 500])]

    assert same(folds[0], folds[1])
    assert same(folds[0], folds[2])
    assert not same(folds[0], Fold(in_parts(slab, [])).faded(one, None))


def test_with_a_half_life_the_policy_follows_a_world_that_turned():
    """Ten days of one truth, two of the opposite; without fading the many old days win (the negative control)."""

    def turned(x):
        return np.stack([0.2 + 0.0 * x[:, 0], np.full(len(x), 0.5), 0.8 + 0.0 * x[:, 0]], axis=1)

    old, new = simulate(3000, 0, expected=turned), simulate(600, 1, expected=lambda x: turned(x)[:, ::-1])
    names = ("contexts", "actions", "propensities", "probabilities", "rewards", "costs")
    log = replace(
        old,
        ids=old.ids + new.ids,
        times=np.concatenate([np.linspace(0.0, 10.0, 3000), np.linspace(10.0, 12.0, 600)]) * (DAY_S - 1.0),
        **{name: np.concatenate([getattr(old, name), getattr(new, name)]) for name in names},
    )

    def mean(half_life: float | None) -> np.ndarray:
        fading = DOMAIN.model_copy(update={"half_life_days": half_life})
        return train(prepare(log, fading, 200), Parameters(shared=1.0, own=1.0)).policy.weights[:, -1]

    assert mean(0.5)[0] > mean(0.5)[2]
    assert mean(None)[0] < mean(None)[2]


def test_permuting_arms_permutes_sums_and_weights():
    """No arm is special in any pass."""
    slab, turn = slab_of(800, 7), np.array([2, 0, 1])
    turned = replace(slab, actions=turn[slab.actions])
    scaler = scaler_of(Contexts(3)(slab))
    one, other = (Rewards(scaler, 3)(s) for s in (slab, turned))

    assert (other["gram"][:, turn] == one["gram"]).all()
    models = reward_models(grams_of(one), Parameters())
    straight, permuted = Corrections(scaler, models)(slab), Corrections(scaler, models[:, :, [1, 2, 0]])(turned)
    assert (permuted["moment"][:, turn] == straight["moment"]).all()
    np.testing.assert_allclose(
        corrected(grams_of(other), permuted, Parameters())[:, turn],
        corrected(grams_of(one), straight, Parameters()),
        atol=1e-9,
    )


def test_sums_survive_the_disk_and_a_broken_file_is_as_if_there_were_none(tmp_path):
    """Names, days, types and bits; a torn file is deleted, so that it is computed again."""
    slab = slab_of(200, 8)
    one = Contexts(3)
    days = {day: one(slab.where(np.flatnonzero(slab.days() == day))) for day in (0, 3)}
    path = tmp_path / "new" / "x.safetensors"

    save_days(path, days)

    found = load_days(path)
    assert found is not None
    assert sorted(found) == [0, 3]
    assert all(same(found[day], days[day]) for day in days)
    assert found[0]["total"].dtype == np.int64
    path.write_bytes(path.read_bytes()[:-9])
    assert load_days(path) is None
    assert not path.exists()
    assert load_days(path) is None


def test_sums_of_other_shapes_are_refused():
    """Rather than broadcast."""
    one, other = Contexts(3)(slab_of(50, 0)), Contexts(2)(replace(slab_of(50, 0), actions=np.zeros(50, np.int64)))

    with pytest.raises(ShapeError, match="same arms and features"):
        _ = one + other


def test_merging_days_is_adding_those_of_one_day():
    one, two = Contexts(3)(slab_of(50, 1)), Contexts(3)(slab_of(50, 2))

    found = merged([{1: one}, {2: two}, {1: two}])

    assert same(found[1], one + two)
    assert same(found[2], two)
    assert same(faded(found, None), one + two + two)


def entries(n: int, scope: Scope, schema: str, arms: tuple[str, ...], start: float, days: float = 5.0):
    """n decisions over some days, eight of nine with an outcome, as a record holds them."""
    rounds = simulate(n, 11)
    rng = np.random.default_rng(0)
    contexts = np.hstack([rounds.contexts, rng.normal(size=(n, 74))]).astype(np.float32)
    times = start + np.sort(rng.uniform(0.0, days * DAY_S, n))
    for i, at in enumerate(times.tolist()):
        action = int(rounds.actions[i])
        yield Decision(
            id=f"{i:032x}",
            time=at,
            scope=scope,
            schema=schema,
            context=contexts[i, : 2 if schema == "vector-2" else None],
            arms=arms,
            excluded={},
            probabilities=rounds.probabilities[i],
            action=action,
            propensity=float(rounds.probabilities[i, action]),
            policy="explore",
        )
        if i % 9:
            cost, quality = float(rounds.costs[i]), float(rounds.rewards[i])
            yield Outcome(f"{i:032x}", at + 5.0, scope, quality=quality, cost_usd=cost)


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Logged:
    """A warehouse loaded from a record: 900 decisions over five days, 800 with an outcome."""
    record = MemoryRecord()
    record.append(*entries(900, SCOPE, "vector-2", DOMAIN.arm_names, 100 * DAY_S))
    path = tmp_path_factory.mktemp("warehouse") / "warehouse.duckdb"
    load(record, path)
    return Logged(path, SCOPE, DOMAIN, 200 * DAY_S)


@pytest.fixture(scope="module")
def columns(log, tmp_path_factory) -> list[Spooled]:
    """The five days of the log, on the disk."""
    folder = tmp_path_factory.mktemp("columns")
    return [spool(part, folder) for part in parts_of(log, 1)]


@pytest.fixture
def spooled(columns, tmp_path) -> list[Spooled]:
    """The same, to be broken."""
    return [replace(part, path=Path(shutil.copy(part.path, tmp_path))) for part in columns]


def hashed(trained) -> str:
    return content_hash(trained.policy.freeze().arrays)


@pytest.fixture(scope="module")
def in_memory(log) -> str:
    """The hash of the policy that the whole log gives in memory."""
    (whole,) = log.batches()
    return hashed(train(prepare(whole, DOMAIN, 200), Parameters()))


@pytest.mark.parametrize("part", [300, 10_000])
def test_a_log_in_parts_gives_the_policy_that_it_gives_in_memory(log, in_memory, part, tmp_path):
    """Three parts, or one: read from the warehouse, through columns on the disk, to the last bit."""
    assert len(parts_of(log, part)) == {300: 3, 10_000: 1}[part]

    found = train_log(log, 200, Parameters(), tmp_path, part=part)

    assert hashed(found) == in_memory
    assert (found.rounds, found.missing) == (800, 100)
    assert not list(tmp_path.glob("columns-*"))


def test_parts_are_whole_days_that_hold_every_round_once(log):
    (whole,) = log.batches()

    parts = parts_of(log, 1)

    ids = [id_ for part in parts for batch in part.batches() for id_ in batch.ids]
    assert sorted(ids) == sorted(whole.ids)
    for part in parts:
        assert part.until - part.since == DAY_S
        assert part.since % DAY_S == 0.0


def test_scores_of_a_batch_are_those_that_training_in_memory_gives(log, tmp_path):
    """Cross-fitted, for the guard and the gate, a batch at a time."""
    (whole,) = log.batches()
    straight = train(prepare(whole, DOMAIN, 200), Parameters()).scores

    found = train_log(log, 200, Parameters(), tmp_path)

    slab = Slab.of(whole)
    pieces = [found.scores(slab.where(rows)) for rows in np.split(np.arange(len(slab)), [1, 400])]
    assert np.concatenate([piece.q_hat for piece in pieces]).tobytes() == straight.q_hat.tobytes()
    assert np.concatenate([piece.cost_hat for piece in pieces]).tobytes() == straight.cost_hat.tobytes()


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_no_bit(columns, in_memory, threads):
    with threadpool_limits(limits=threads):
        assert hashed(train_parts(columns, DOMAIN, 200, Parameters())) == in_memory


@pytest.mark.slow
def test_other_processes_change_no_bit(log, in_memory, tmp_path):
    """Two real processes fold five parts, in whatever order they come to them."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        assert hashed(train_log(log, 200, Parameters(), tmp_path, part=1, over=pool.map)) == in_memory


def test_what_was_folded_once_is_not_folded_again(spooled, in_memory, tmp_path):
    """Without their columns, parts can only come from checkpoints; a changed penalty still has its first passes."""
    run = partial(train_parts, spooled, DOMAIN, 200, checkpoints=tmp_path / "kept")
    assert hashed(run(Parameters())) == in_memory
    scaler = scaler_of(Fold(spooled).sums(Contexts(3)))
    for part in spooled:
        part.path.unlink()

    kept = Fold(spooled, checkpoints=tmp_path / "kept").sums(Rewards(scaler, 3))

    assert kept["count"].sum() == 800
    with pytest.raises(FileNotFoundError):  # the negative control: another scale asks for other sums
        Fold(spooled, checkpoints=tmp_path / "kept").sums(Rewards(replace(scaler, mean=scaler.mean + 1.0), 3))


def test_a_new_day_leaves_the_first_pass_over_old_days_done(spooled, tmp_path):
    """But moves the scale of the contexts, hence the features of every old day, hence all later passes."""
    old, new = spooled[:-1], spooled
    before = Fold(old, checkpoints=tmp_path / "kept").sums(Contexts(3))
    for part in old:
        part.path.unlink()

    after = Fold(new, checkpoints=tmp_path / "kept").sums(Contexts(3))

    assert same(after - before, fold(Contexts(3), new[-1]))
    assert scaler_of(after).mean.tobytes() != scaler_of(before).mean.tobytes()


def test_checkpoints_that_serve_nobody_any_more_are_forgotten(spooled, tmp_path):
    kept = tmp_path / "kept"
    Fold(spooled, checkpoints=kept).sums(Contexts(3))
    (first, *rest) = sorted(kept.glob("*.safetensors"))

    forget(kept, first.stat().st_mtime - 1.0)
    assert len(list(kept.iterdir())) == 1 + len(rest)
    forget(kept, max(path.stat().st_mtime for path in kept.iterdir()) + 1.0)
    assert not list(kept.iterdir())


def test_the_digest_of_a_part_is_of_its_events_and_of_nothing_else(log, columns, tmp_path):
    """Read again it is the same; read under another order of arms, or with a reward more, it is another."""
    first = parts_of(log, 1)[0]
    defaults = log.config.reward.model_copy(update={"default": 0.0})

    again = spool(first, tmp_path)
    turned = spool(replace(first, config=DOMAIN.model_copy(update={"arms": DOMAIN.arms[::-1]})), tmp_path)
    silent = spool(replace(first, config=DOMAIN.model_copy(update={"reward": defaults})), tmp_path)

    assert again.digest == columns[0].digest
    assert len({again.digest, turned.digest, silent.digest, *(part.digest for part in columns)}) == 7
    assert silent.n == again.n + again.missing


def test_too_small_a_log_in_parts_says_so(log, tmp_path):
    with pytest.raises(NotEnoughDataError, match=r"needs 5000 rounds .* has 800 \(100 more wait"):
        train_log(log, 5000, Parameters(), tmp_path)


def test_an_empty_part_is_no_part(log, columns, in_memory, tmp_path):
    """A day without a round adds nothing."""
    empty = spool(replace(log, since=0.0, until=DAY_S), tmp_path)

    assert empty.n == 0
    assert hashed(train_parts([empty, *columns], DOMAIN, 200, Parameters())) == in_memory


def test_merged_parts_of_prices_are_those_of_the_whole():
    """Means by exact sums, and the least and the most of any."""
    slab = slab_of(500, 9)
    scaler = scaler_of(Contexts(3)(slab))
    cost = CostModel(np.random.default_rng(0).normal(0, 0.3, (3, 3)), np.array([1e-4, 1e-3, 1e-2]))
    one = Prices(scaler, cost)

    whole, parts = one(slab), Fold(in_parts(slab, [7, 300])).sums(one)

    assert parts.usd.tobytes() == whole.usd.tobytes()
    assert (parts.n, parts.low, parts.high) == (500, whole.low, whole.high)
    np.testing.assert_allclose(whole.mean, cost.predict(scaler.features(slab.contexts)).mean(axis=0), rtol=1e-12)


def test_collinear_features_have_a_stable_solution():
    """Twice the same feature and a constant one share their weight instead of blowing up."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 1))
    contexts = np.hstack([x, x, np.ones((5000, 1))]).astype(np.float32)
    actions = rng.integers(0, 2, 5000)
    rewards = np.clip(0.5 + 0.1 * x[:, 0], 0.0, 1.0)
    slab = replace(slab_of(5000, 0), contexts=contexts, actions=actions, targets=np.round(rewards * 2048) / 2048)
    gram = grams_of(Rewards(scaler_of(Contexts(2)(slab)), 2, folds=1, priced=False)(slab))[0]

    weights = gram.solve(1e-3, 1e-3)

    assert np.isfinite(weights).all()
    np.testing.assert_allclose(weights[:, 0], weights[:, 1], atol=1e-6)
    np.testing.assert_allclose(weights[:, 0] + weights[:, 1], 0.1, atol=0.01)
