"""Does the gate err as seldom as it says, and does it see a real improvement? The same of A/B and of sample ratios.

    python -m benchmarks.gates --years 400

**False promotion.** A null year has 365 nights, each with a candidate that is worth *exactly* as much as the policy
that serves; the year counts as false when the gate lets one pass. `fresh`: another candidate's log every night, of
--nightly rounds. `growing`: one log for the whole year, judged whole each night, --growth rounds longer each time. Both
are judged without the refusal for too few effective rounds, which could only make a pass rarer. Two controls must err:
`unspent` gives every night the whole alpha, and `normal` asks a normal interval, also at the whole alpha.

`whole nights` (null_nights.py, --night-years): training, tuning, guard and all. `trial` and `picked_trial` as the night
judges them, `picked` the control that must err.

**Power.** The log is drawn by the policy that serves: five arms, each context has its own arm, the others have the
floor of .05. The candidate plays another arm in 60 % of contexts, which is better by enough to be worth .15 more.
`power`: share of logs of 2,000 rounds that the gate, with its support, lets pass, with all of alpha = .05 for one
candidate. `power_night_1_10_100`: the same with what a night may spend. `power_one_arm` is the harder case of one arm
against another of floor .05: 100 effective rounds, for which the gate holds (`one_arm_refused`); so it is measured
without the refusal. `two_sided` beside each: were alpha shared with the other side.

**A/A.** Experiments without effect of 20,000 units, looked at after each; a stop at any look counts.
**Sample ratio.** `srm_false`: shares of 5 and 95 % as planned, looked at after each of 20,000 units, alpha = .001.
`srm_found`: the 5 % gets 30 % more than it should. Beside it the chi-square test, looked at every 100 units.

Bars: every rate of error at most alpha + 2 sqrt(alpha (1 - alpha) / R); power and power_one_arm >= .70; a real
imbalance found in at least 95 % of runs; every control errs more often than its allowance (not in a small run).

What would make it wrong: few years; a candidate that is worth a little less; scores that the gate would not see; nights
that end when something passed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy.stats import chi2

from bandits.evaluation import dr
from bandits.evaluation.intervals import lower_bound
from bandits.evaluation.weights import support
from bandits.experiments import ab, srm
from bandits.night.gates import gate, spend
from bandits.types import Actions, LoggedFeedback, Matrix, Vector
from benchmarks import intervals
from benchmarks.null_nights import null_nights

ALPHA, NIGHTS, ROUNDS = 0.05, 365, 2000
ARMS, FLOOR, PARTS, PLAYED = 5, 0.05, 5, 3  # another arm in PLAYED of PARTS contexts
LATER = (1, 10, 100)
SHARE, EXCESS, FOUND = 0.05, 1.3, 0.95
Z = NormalDist().inv_cdf(1.0 - ALPHA)
_WHOLE = ALPHA / spend(1.0 - 1e-12, 1)  # of this the first night may spend ALPHA: all of it for one candidate


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Every round there can be, with its chance; a log is a draw of rows."""

    rounds: LoggedFeedback  # one row for each context, action and reward
    chances: Vector  # (rows,), sum 1
    candidate: Matrix  # (rows, K)

    @property
    def incumbent(self) -> Matrix:
        """The serving policy, which drew the log."""
        return self.rounds.probabilities

    def scores(self) -> tuple[Vector, Vector, float]:
        """DR scores of candidate and incumbent by row, (rows,) each, and the bound of their difference."""
        q_hat = np.full(self.candidate.shape, 0.5)
        policies = self.candidate, self.incumbent
        first, second = (dr.scores(self.rounds, probs, q_hat) for probs in policies)
        return first, second, dr.difference_bound(self.rounds, *policies)

    def draw(self, n: int, rng: np.random.Generator) -> Actions:
        """Rows of a log of n rounds, (n,)."""
        return np.minimum(np.searchsorted(self.chances.cumsum(), rng.random(n), side="right"), len(self.chances) - 1)


def world(advantage: float) -> World:
    """Contexts (own arm, part); the candidate is worth `advantage` more than the incumbent."""
    grid = np.array([(h, u, a, r) for h in range(ARMS) for u in range(PARTS) for a in range(ARMS) for r in (0, 1)])
    home, part, action, reward = grid.T
    other = np.where(part < PLAYED, (home + 1) % ARMS, home)
    incumbent, candidate = preferring(home), preferring(other)
    moved = 1.0 - ARMS * FLOOR  # mass that goes from the own arm to the other
    lead = advantage * PARTS / PLAYED / moved
    expected = np.where((part < PLAYED) & (action == other), 0.5 + lead, 0.5)
    drawn = incumbent[np.arange(len(grid)), action]
    rounds = LoggedFeedback(
        arms=tuple(f"arm-{arm}" for arm in range(ARMS)),
        schema="vector-1",
        ids=tuple(map(str, range(len(grid)))),
        times=np.arange(len(grid), dtype=np.float64),
        contexts=np.zeros((len(grid), 1), dtype=np.float32),
        actions=action,
        propensities=drawn,
        probabilities=incumbent,
        rewards=reward.astype(np.float64),
        costs=np.full(len(grid), np.nan),
    )
    return World(rounds, drawn * np.where(reward == 1, expected, 1.0 - expected) / (ARMS * PARTS), candidate)


def preferring(arms: Actions) -> Matrix:
    """Rows, (n, K), that give each arm the floor and the rest to one arm each."""
    rows = np.full((len(arms), ARMS), FLOOR)
    rows[np.arange(len(arms)), arms] += 1.0 - ARMS * FLOOR
    return rows


def null_years(how: str, years: int, nights: int, rounds: int, seed: Sequence[int]) -> dict[str, Any]:
    """The row of `fresh` or `growing`: share of years in which a candidate of equal value passed."""
    candidate, incumbent, bound = (null := world(0.0)).scores()
    passed = {"gate": 0, "unspent": 0, "normal": 0}
    for year in range(years):
        rng = np.random.default_rng([*seed, year])
        log = null.draw(rounds * nights, rng)
        ever = dict.fromkeys(passed, False)
        for night in range(1, nights + 1):
            rows = log[: night * rounds] if how == "growing" else log[(night - 1) * rounds : night * rounds]
            one, two = candidate[rows], incumbent[rows]
            found = gate(one, two, alpha=ALPHA, night=night, bound=bound, ess=math.inf)
            ever["gate"] |= found.outcome == "pass"
            ever["normal"] |= _normal_passes(one - two)
            if how == "fresh" and not ever["unspent"]:
                whole = gate(one, two, alpha=_WHOLE, night=1, bound=bound, ess=math.inf)
                ever["unspent"] |= whole.outcome == "pass"
        for name, yes in ever.items():
            passed[name] += yes
        if not (year + 1) % 20:
            print(f"{how}: {year + 1} years, {passed}", file=sys.stderr)
    return {
        "measured": f"null years, {how}",
        "years": years,
        "nights": nights,
        "rounds": rounds,
        "false_promotion": passed["gate"] / years,
        "unspent": passed["unspent"] / years if how == "fresh" else None,
        "normal": passed["normal"] / years,
    }


def _normal_passes(differences: Vector) -> bool:
    error = float(differences.std()) / math.sqrt(len(differences))
    return bool(differences.mean() > Z * error)


def power(reps: int, n: int, seed: Sequence[int]) -> dict[str, Any]:
    """The row of a candidate worth .15 more, through the whole gate."""
    better = world(0.15)
    candidate, incumbent, bound = better.scores()
    single = two_sided = refused = 0
    later = dict.fromkeys(LATER, 0)
    for rep in range(reps):
        rows = better.draw(n, np.random.default_rng([*seed, rep]))
        log = logged(better.rounds, rows)
        ess = min(support(log, probs[rows]).evidence for probs in (better.candidate, better.incumbent))
        one, two = candidate[rows], incumbent[rows]
        found = gate(one, two, alpha=_WHOLE, night=1, bound=bound, ess=ess)
        single += found.outcome == "pass"
        refused += found.reason.startswith("not enough data")
        two_sided += gate(one, two, alpha=_WHOLE / 2.0, night=1, bound=bound, ess=ess).outcome == "pass"
        for night in LATER:
            later[night] += gate(one, two, alpha=ALPHA, night=night, bound=bound, ess=ess).outcome == "pass"
    return {
        "measured": "power +.15",
        "reps": reps,
        "n": n,
        "power": single / reps,
        "refused": refused / reps,
        "two_sided": two_sided / reps,
        "power_night_1_10_100": [later[night] / reps for night in LATER],
    }


def logged(rounds: LoggedFeedback, rows: Actions) -> LoggedFeedback:
    """These rows of `rounds`, with repeats, as a log of their own."""
    return replace(
        rounds,
        ids=tuple(map(str, range(len(rows)))),
        times=np.arange(len(rows), dtype=np.float64),
        contexts=rounds.contexts[rows],
        actions=rounds.actions[rows],
        propensities=rounds.propensities[rows],
        probabilities=rounds.probabilities[rows],
        rewards=rounds.rewards[rows],
        costs=rounds.costs[rows],
    )


def power_one_arm(reps: int, n: int, seed: Sequence[int]) -> dict[str, Any]:
    """The row of an arm worth .6 against one worth .45, in the log of benchmarks.intervals."""
    shown = two_sided = refused = 0
    for rep in range(reps):
        log = intervals.log(n, FLOOR, "stationary", np.random.default_rng([*seed, rep]))
        one, two = (np.tile(np.eye(ARMS)[arm], (n, 1)) for arm in (1, 0))
        q_hat = np.full((n, ARMS), 0.5)
        scores = dr.scores(log, one, q_hat), dr.scores(log, two, q_hat)
        bound = dr.difference_bound(log, one, two)
        found = gate(*scores, alpha=_WHOLE, night=1, bound=bound, ess=support(log, one).evidence)
        refused += found.reason.startswith("not enough data")
        shown += found.low is not None and found.low > 0.0
        two_sided += lower_bound(scores[0] - scores[1], ALPHA / 2.0, low=-bound, high=bound, horizon=n) > 0.0
    return {
        "measured": "power +.15, one arm",
        "reps": reps,
        "n": n,
        "power_one_arm": shown / reps,
        "one_arm_refused": refused / reps,
        "two_sided": two_sided / reps,
    }


def aa(reps: int, units: int, seed: Sequence[int]) -> dict[str, Any]:
    """The row of experiments without effect: a stop at any of the looks, by the sequence and by a z-test."""
    stops = control = 0
    for rep in range(reps):
        rng = np.random.default_rng([*seed, rep])
        treated, outcomes = rng.random(units) < 0.5, (rng.random(units) < 0.5).astype(np.float64)
        stops += ab.difference(treated, outcomes, 0.5, ALPHA, horizon=units).verdict != "hold"
        control += _z_ever(ab.scores(treated, outcomes, 0.5))
    return {"measured": "A/A", "reps": reps, "units": units, "aa_false_stop": stops / reps, "z_test": control / reps}


def _z_ever(x: Vector) -> bool:
    """Whether a z-test at ALPHA, looked at every 100 units, ever stopped."""
    n = np.arange(1, len(x) + 1)
    mean, square = x.cumsum() / n, (x * x).cumsum() / n
    error = np.sqrt(np.maximum(square - mean * mean, 1e-12) / n)
    return bool((np.abs(mean) > NormalDist().inv_cdf(1.0 - ALPHA / 2.0) * error)[99::100].any())


def sample_ratio(reps: int, units: int, excess: float, seed: Sequence[int]) -> dict[str, Any]:
    """The row of shares .05 and .95, the first too large by the factor `excess`: how often, and when, it is noticed."""
    planned = (SHARE, 1.0 - SHARE)
    looks: list[float] = []
    control = 0
    n = np.arange(1, units + 1)
    for rep in range(reps):
        first = (np.random.default_rng([*seed, rep]).random(units) < SHARE * excess).cumsum()
        evidence = srm.log_evidence(np.column_stack((first, n - first)), planned)
        at = np.flatnonzero(evidence >= -math.log(srm.ALPHA))
        looks += at[:1].tolist()
        z = (first - SHARE * n) ** 2 / (n * SHARE * (1.0 - SHARE))
        control += bool((z > chi2.isf(srm.ALPHA, 1))[99::100].any())
    return {
        "measured": f"sample ratio x {excess:g}",
        "reps": reps,
        "units": units,
        "noticed": len(looks) / reps,
        "median_units": float(np.median(looks)) + 1.0 if looks else None,
        "chi_square": control / reps,
    }


def verdict(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Every figure that a bar names, and whether it is met."""
    fresh, growing, whole, arm, same, null, real, nights = rows
    false = max(fresh["false_promotion"], growing["false_promotion"])
    figures: dict[str, Any] = {
        "alpha": ALPHA,
        "years": fresh["years"],
        "false_promotion": false,
        "power": whole["power"],
        "power_night_1_10_100": whole["power_night_1_10_100"],
        "power_one_arm": arm["power_one_arm"],
        "one_arm_refused": arm["one_arm_refused"],
        "aa_alpha": ALPHA,
        "aa_false_stop": same["aa_false_stop"],
        "srm_alpha": srm.ALPHA,
        "srm_false": null["noticed"],
        "srm_found": real["noticed"],
        "srm_found_after": real["median_units"],
        "night_years": nights["years"],
        "false_promotion_night": max(nights["trial"], nights["picked_trial"]),
    }
    years = _allowance(ALPHA, fresh["years"])
    looks = _allowance(ALPHA, same["reps"])
    ratios = _allowance(srm.ALPHA, null["reps"])
    bars = {
        "false_promotion": false <= years,
        "false_promotion_night": figures["false_promotion_night"] <= _allowance(ALPHA, nights["years"]),
        "power": whole["power"] >= 0.70,
        "power_one_arm": arm["power_one_arm"] >= 0.70,
        "aa_false_stop": same["aa_false_stop"] <= looks,
        "srm_false": null["noticed"] <= ratios,
        "srm_found": real["noticed"] >= FOUND,
        "controls": min(fresh["normal"], growing["normal"], fresh["unspent"]) > years
        and same["z_test"] > looks
        and null["chi_square"] > ratios
        and nights["picked"] > _allowance(ALPHA, nights["years"]),
    }
    return {**figures, "bars": bars, "met": all(bars.values())}


def _allowance(alpha: float, reps: int) -> float:
    return alpha + 2.0 * math.sqrt(alpha * (1.0 - alpha) / reps)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read options, print a row for each question as it is answered, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--years", type=int, default=400, help="null years of each kind")
    parser.add_argument("--nights", type=int, default=NIGHTS)
    parser.add_argument("--nightly", type=int, default=500, help="rounds a night that judge a fresh candidate")
    parser.add_argument("--night-years", type=int, default=40, help="null years of whole nights")
    parser.add_argument("--growth", type=int, default=10, help="rounds a night by which the growing log grows")
    parser.add_argument("--n", type=int, default=ROUNDS, help="rounds of a log whose power is measured")
    parser.add_argument("--reps", type=int, default=500, help="logs whose power is measured")
    parser.add_argument("--looks", type=int, default=20_000, help="units of an experiment, each looked at")
    parser.add_argument("--experiments", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    counts = ("years", "night_years", "nights", "growth", "reps", "experiments")
    if min(getattr(options, name) for name in counts) < 1 or options.seed < 0:
        parser.error("counts of years, nights, logs and experiments must be at least 1, --seed not negative.")
    if min(options.nightly, options.n, options.looks) < 100:
        parser.error("--nightly, --n and --looks must be at least 100.")
    seed = options.seed
    measures: list[Callable[[], dict[str, Any]]] = [
        lambda: null_years("fresh", options.years, options.nights, options.nightly, [seed, 0]),
        lambda: null_years("growing", options.years, options.nights, options.growth, [seed, 1]),
        lambda: power(options.reps, options.n, [seed, 2]),
        lambda: power_one_arm(options.reps, options.n, [seed, 3]),
        lambda: aa(options.experiments, options.looks, [seed, 4]),
        lambda: sample_ratio(options.experiments, options.looks, 1.0, [seed, 5]),
        lambda: sample_ratio(options.experiments, options.looks, EXCESS, [seed, 6]),
        lambda: null_nights(options.night_years, options.nights, ROUNDS // 20, [seed, 7]),
    ]
    rows = []
    for measure in measures:
        rows.append(measure())
        print(json.dumps(rows[-1]), flush=True)
    print(json.dumps({"summary": True, **verdict(rows)}))


if __name__ == "__main__":
    main()
