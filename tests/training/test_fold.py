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
from bandits.learners.doubly_robust import FOLDS, Parameters
from bandits.learners.passes import (
    Contexts,
    Rewards,
    scaler_of,
)
from bandits.learners.slab import DAY_S, Slab
from bandits.learners.sums import faded, merged
from bandits.record.memory import MemoryRecord
from bandits.snapshots.manifest import content_hash
from bandits.training.fold import Fold, Logged, Spooled, fold, forget, load_days, parts_of, save_days, spool
from bandits.training.training import prepare, train, train_log, train_parts
from bandits.warehouse.loading import load
from tests.logs import simulate
from tests.training.rounds import DOMAIN, SCOPE, entries, in_parts, same, slab_of


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
