"""Is the probability that is logged the probability that was drawn with?

    python -m benchmarks.propensity --draws 1000000

Every policy there is (explore, mix, fixed, the linear one, trained on a log, and `online`, the same after it learned on
while an arm broke) gives its distribution for 200 contexts, each under a mask of allowed arms and a pressure of its
own; the product's own `draw` draws from each in turn. Then a few thousand decisions take the whole way: signed
snapshot, server that learns on, router, record (SQLite on disk), warehouse; and each is computed again from its
snapshot and the record.

Read it, per policy: `chi2_p`, realised against logged distribution; `max_sum_error`, |sum - 1| at worst; `max_z`, how
many standard errors the mean of 1[a = k] / p_k lies from 1, for the worst arm. `path_equal`: probabilities and
propensity are the same bits at every stage.

What would make it wrong: a draw made otherwise than the product makes it; a chi-square over bins that expect almost
nothing (those of fewer than 5 are pooled); an arm of few draws hidden in the mean over all arms (each has its own z).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import chi2

from bandits.config import ArmConfig, Config, DomainConfig, TenantConfig
from bandits.explaining.replay import Policies, replays
from bandits.home import Home
from bandits.learners.baselines import ContextFree
from bandits.learners.doubly_robust import Parameters
from bandits.policy import Draw, Policy, draw
from bandits.record.memory import MemoryRecord
from bandits.record.port import Record, rows
from bandits.rewards import feedback
from bandits.router import Router
from bandits.served import Serving
from bandits.serving import Server
from bandits.snapshots.keys import signing_key, trusted_keys
from bandits.snapshots.publishing import publish
from bandits.training.training import prepare, train
from bandits.types import Context, Decision, Mask, Matrix, Outcome, Scope, Vector
from bandits.warehouse import loading as warehouse
from benchmarks.synthetic import LOGGING, known

SCOPE = Scope("bench", "main", "propensity")
CONTEXTS = 200
ARMS, FEATURES = 5, 5
PRICES = np.geomspace(1e-4, 1e-2, ARMS)  # USD per request
BUDGET, BURST = 1e-3, 5  # a small burst: the cap takes dear arms away now and then
START_S, TICK_S, EXPIRES_S = 1_700_000_000.0, 30.0, 1e9  # UTC; a decision each half minute, so that a day turns
FOLLOW = 10  # decisions after which the server catches up with the record
LEAST_EXPECTED = 5.0  # draws in a bin of the chi-square
LEAST_P, MOST_Z, MOST_SUM_ERROR = 1e-6, 4.0, 1e-9

Drawer = Callable[[Vector, np.random.Generator], Draw]
Stage = Mapping[str, tuple[bytes, bytes]]  # decision id -> the bits of its probabilities and of its propensity


@dataclass(frozen=True, slots=True)
class Audit:
    """What the draws of one policy say of what it logged."""

    policy: str
    chi2_p: float
    max_sum_error: float
    max_z: float

    @property
    def ok(self) -> bool:
        """Whether all three are within their bars."""
        return self.chi2_p > LEAST_P and self.max_sum_error <= MOST_SUM_ERROR and self.max_z <= MOST_Z


def domain() -> DomainConfig:
    """Five arms, 1 : 100 in price."""
    arms = tuple(ArmConfig(name=f"arm-{i}", model=f"arm-{i}", usd_per_request=float(p)) for i, p in enumerate(PRICES))
    return DomainConfig(
        arms=arms,
        features=f"vector-{FEATURES}",
        budget_usd_per_request=BUDGET,
        burst=BURST,
        between_nights="learn",
    )


def policies(config: DomainConfig, rng: np.random.Generator) -> dict[str, Policy]:
    """One policy of each kind; the linear one as a night would train it."""
    log = known(4_000, ARMS, FEATURES, LOGGING["mild"], rng).feedback
    costs = PRICES[log.actions] * np.exp(rng.normal(0.0, 0.3, len(log)))
    learned = train(prepare(replace(log, costs=costs), config, 200), Parameters()).policy
    values = np.sort(rng.random(ARMS))  # the dearer the better, so that the budget binds
    shared = (config.arm_names, config.features, values, PRICES, BUDGET, config.floor)
    simple = {rule: ContextFree(rule, *shared) for rule in ("explore", "mix", "fixed")}
    return {**simple, "linear": learned, "online": learned_on(learned, config, rng)}


def learned_on(policy: Policy, config: DomainConfig, rng: np.random.Generator) -> Policy:
    """What a router makes of `policy` in 1,200 decisions, the arm that it plays most earning nothing in the last third.

    Raises RuntimeError unless that arm is quarantined in the end.
    """
    router = Router(SCOPE, config, MemoryRecord(), rng, lambda: START_S, serving=Serving(policy, "online"))
    drawn = np.zeros(ARMS)
    for i in range(1_200):
        decision = router.decide(rng.normal(size=FEATURES).astype(np.float32))
        drawn[decision.action] += 1.0
        quality = 0.0 if i >= 800 and decision.action == drawn.argmax() else 0.5 + 0.5 * float(rng.random())
        router.report(Outcome(decision.id, decision.time, SCOPE, quality=quality, cost_usd=float(PRICES[0])))
        router.catch_up()
    if not router.quarantined:
        raise RuntimeError("the arm that broke must be quarantined, but no arm is.")
    return router.learned


def distributions(policy: Policy, contexts: Context, masks: Mask, pressures: Vector) -> Matrix:
    """Rows of probabilities, (n, K), each asked for alone as the router does.   masks: (n, K).   pressures: (n,)."""
    each = zip(contexts, masks, pressures.tolist(), strict=True)
    return np.stack([policy.probabilities(x[None, :], mask[None, :], pressure)[0] for x, mask, pressure in each])


def audit(name: str, logged: Matrix, draws: int, rng: np.random.Generator, drawer: Drawer = draw) -> Audit:
    """Draw `draws` times, from each row of `logged`, (n, K), in turn, and hold what came against what was logged."""
    n, k = logged.shape
    counts, weight = np.zeros((n, k), dtype=np.int64), [0.0] * k
    for row in itertools.islice(itertools.cycle(range(n)), draws):
        action, propensity = drawer(logged[row], rng)
        counts[row, action] += 1
        weight[action] += 1.0 / propensity
    per_row = counts.sum(axis=1)
    sums = max(abs(math.fsum(row) - 1.0) for row in logged.tolist())
    return Audit(name, chi_square(counts, logged * per_row[:, None]), sums, _z(np.array(weight), logged, per_row))


def chi_square(counts: np.ndarray[Any, Any], expected: Matrix) -> float:
    """p value of all rows' Pearson statistics together. A draw where none could be is impossible: p = 0."""
    if counts[expected == 0.0].any():
        return 0.0
    statistic, freedom = 0.0, 0
    for found, wanted in zip(counts, expected, strict=True):
        order = np.argsort(wanted)
        rare = int(np.searchsorted(wanted[order], LEAST_EXPECTED))
        if 0.0 < wanted[order[:rare]].sum() < LEAST_EXPECTED:
            rare += 1  # the rare together expect too little still: the next bin takes them in
        start = [*([0] if rare else []), *range(rare, len(order))]
        o, e = np.add.reduceat(found[order], start), np.add.reduceat(wanted[order], start)
        o, e = o[e > 0.0], e[e > 0.0]
        statistic += float(((o - e) ** 2 / e).sum())
        freedom += len(e) - 1
    return float(chi2.sf(statistic, freedom)) if freedom else 1.0


def _z(weight: Vector, logged: Matrix, per_row: np.ndarray[Any, Any]) -> float:
    """Standard errors between the mean of 1[a = k] / p_k and 1, for the worst arm.   weight: (K,) sums of it."""
    possible = logged > 0.0
    wanted = (possible * per_row[:, None]).sum(axis=0)
    odds = np.divide(1.0 - logged, logged, out=np.zeros_like(logged), where=possible)
    error = np.sqrt((np.maximum(odds, 0.0) * per_row[:, None]).sum(axis=0))
    # An arm that is certain wherever it is possible has no error, and must be met to the last rounding.
    return float((np.abs(weight - wanted) / np.maximum(error, 1e-9 * np.maximum(wanted, 1.0))).max())


def path_equal(served: Mapping[str, Policy], config: DomainConfig, decisions: int, seed: int) -> bool:
    """Take `decisions` per policy the whole way; True if every stage holds the same bits as the router gave."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        with home.open_record() as record:
            given = list(decide(home, record, served, config, decisions, np.random.default_rng([seed, 99])))
            return all(stage == bits(given) for stage in stages(home, record, config, given)) and all(
                recomputed(home, record, config)
            )


def stages(home: Home, record: Record, config: DomainConfig, given: Sequence[Decision]) -> Iterator[Stage]:
    """What each stage behind the router holds of the decisions `given`, as bits."""
    now = given[-1].time + TICK_S
    yield bits(record.decision(decision.id, SCOPE.tenant) for decision in given)
    yield bits(entry for _, entry in rows(record) if isinstance(entry, Decision))
    warehouse.load(record, home.warehouse)
    with warehouse.opened(home.warehouse) as connection:
        found = connection.execute("SELECT id, probabilities, propensity FROM decisions").fetchall()
    yield {id_: (np.array(p).tobytes(), np.float64(propensity).tobytes()) for id_, p, propensity in found}
    for log in (
        feedback(rows(record), SCOPE, config, now),
        warehouse.read_feedback(home.warehouse, SCOPE, config, now),
    ):
        each = zip(log.ids, log.probabilities, log.propensities, strict=True)
        yield {id_: (p.tobytes(), propensity.tobytes()) for id_, p, propensity in each}


def decide(
    home: Home,
    record: Record,
    served: Mapping[str, Policy],
    domain: DomainConfig,
    decisions: int,
    rng: np.random.Generator,
) -> Iterator[Decision]:
    """Publish each policy in turn, let a server find it, and decide; every decision gets a quality and a cost."""
    ticks = itertools.count()
    config = Config(tenants={SCOPE.tenant: TenantConfig()}, domains={SCOPE.domain: domain})
    server = Server(home, config, SCOPE, record, rng, lambda: START_S + TICK_S * next(ticks))
    for policy in served.values():
        now = START_S + TICK_S * next(ticks)
        publish(
            home.snapshots,
            SCOPE,
            policy.freeze(),
            position=record.head(),
            parent=None,
            evidence={},
            created=now,
            expires=now + EXPIRES_S,
            key=signing_key(home.root),
        )
        if not server.refresh():
            raise server.last_error or RuntimeError("the server must take up what was published, but did not.")
        for i, context in enumerate(rng.normal(size=(decisions, FEATURES)).astype(np.float32)):
            if i % FOLLOW == 0:
                server.refresh()
            decision = server.router.decide(context)
            cost = float(PRICES[decision.action] * np.exp(rng.normal(0.0, 0.3)))
            quality = float(rng.random())
            server.router.report(Outcome(decision.id, decision.time, SCOPE, quality=quality, cost_usd=cost))
            yield decision


def recomputed(home: Home, record: Record, config: DomainConfig) -> Iterator[bool]:
    """For each decision of the record, whether snapshot and record give its probabilities again, bit for bit."""
    policies = Policies({SCOPE.domain: config}, home.snapshots, trusted_keys(home.root))
    decisions = [entry for _, entry in rows(record) if isinstance(entry, Decision)]
    for decision, policy in zip(decisions, policies.all(decisions, record), strict=True):
        yield policy is not None and replays(decision, policy)


def bits(decisions: Iterable[Decision]) -> Stage:
    """Decisions as a stage."""
    return {d.id: (d.probabilities.tobytes(), np.float64(d.propensity).tobytes()) for d in decisions}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read options, audit each policy and print its row, walk the whole path, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1_000_000, help="in all, shared among the policies")
    parser.add_argument("--decisions", type=int, default=4_000, help="that take the whole path, shared likewise")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if min(options.draws, options.decisions) < 5 or options.seed < 0:
        parser.error("--draws and --decisions must be at least 5, one a policy, and --seed not negative.")
    started, config = time.perf_counter(), domain()
    rng = np.random.default_rng([options.seed, 0])
    served = policies(config, rng)
    contexts = rng.normal(size=(CONTEXTS, FEATURES)).astype(np.float32)
    masks = rng.random((CONTEXTS, ARMS)) < 0.7
    masks[np.arange(CONTEXTS), rng.integers(ARMS, size=CONTEXTS)] = True  # at least one arm is allowed
    pressures = np.exp(rng.uniform(np.log(0.25), np.log(20.0), CONTEXTS))
    audits = []
    for index, (name, policy) in enumerate(served.items()):
        draws = options.draws // len(served) + (index < options.draws % len(served))
        logged = distributions(policy, contexts, masks, pressures)
        audits.append(audit(name, logged, draws, np.random.default_rng([options.seed, 1, index])))
        one = audits[-1]
        row = {"policy": name, "chi2_p": one.chi2_p, "max_sum_error": one.max_sum_error, "max_z": round(one.max_z, 4)}
        print(json.dumps(row), flush=True)
    print(f"{options.draws} draws in {time.perf_counter() - started:.1f} s", file=sys.stderr)
    equal = path_equal(served, config, -(-options.decisions // len(served)), options.seed)
    print(f"the whole path: {time.perf_counter() - started:.1f} s in all", file=sys.stderr)
    ok = all(one.ok for one in audits)
    summary = {"summary": True, "draws": options.draws, "ok": ok, "path_equal": equal, "met": ok and equal}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
