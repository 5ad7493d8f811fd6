"""Does a log of uniform draws tell what another policy really earned? The Open Bandit logs say.

    python -m benchmarks.open_bandit --data DIR

DIR holds obd_random_{campaign}.parquet and obd_bts_{campaign}.parquet: impressions of a fashion shop, one log drawn
uniformly, one by Thompson sampling, with columns timestamp, item_id, position, click, propensity_score. The target is
what Thompson sampling did on average: how often it showed each item at each position, counted in its own log. Its value
is estimated from the *uniform* log alone, with the product's own estimators; the context is the position, the reward
model the one of benchmarks/ope.py. What is to be met is the click rate that the Thompson log itself records.

Read it: `value`, `low` and `high` in clicks per impression, by the normal interval; `bootstrap` resampled; `sequence`
valid at every look (for ips and dr), and wider. `covered` says whether the normal interval holds the recorded rate. A
uniform log of 10,000 impressions has 46 clicks: the intervals are wide, so covering is a check of sanity and no feat;
`clicks` and `ess` stand beside each value, and `relative_width` says how wide.

What would make it wrong: users or items that differed between the logs; a Thompson policy that changed much over its
log (its average is judged); target probabilities counted from few impressions, whose own error no interval here holds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from bandits.evaluation import dr, ips, sequences
from bandits.evaluation.intervals import bootstrap
from bandits.evaluation.moments import moments
from bandits.evaluation.report import evaluate
from bandits.types import Actions, LoggedFeedback, Matrix, Vector
from benchmarks.ope import reward_model

ALPHA = 0.05
COLUMNS = ("timestamp", "item_id", "position", "click", "propensity_score")


class Impressions(NamedTuple):
    """One log, (n,) each, in order of time.   positions: 0, 1, ...   times: UTC seconds."""

    times: Vector
    items: Actions
    positions: Actions
    clicks: Vector
    propensities: Vector


def read(path: Path) -> Impressions:
    """One log of the data set."""
    columns = {name: pq.read_table(path, columns=[name])[name].to_numpy() for name in COLUMNS}
    order = np.argsort(columns["timestamp"], kind="stable")
    return Impressions(
        columns["timestamp"][order].astype("datetime64[us]").astype(np.int64) / 1e6,
        columns["item_id"][order].astype(np.int64),
        columns["position"][order].astype(np.int64) - int(columns["position"].min()),
        columns["click"][order].astype(np.float64),
        columns["propensity_score"][order].astype(np.float64),
    )


def uniform_log(found: Impressions, k: int) -> LoggedFeedback:
    """The uniform log as the product reads it; the context says which position, one number for each.

    Raises ValueError unless every propensity is 1 / k: of no other policy is the whole distribution known.
    """
    if not np.allclose(found.propensities, 1.0 / k, rtol=1e-6):
        raise ValueError(
            f"a uniform log over {k} items must have propensities 1/{k}, but they go from "
            f"{found.propensities.min()!r} to {found.propensities.max()!r}; name the log of the random policy."
        )
    n = len(found.items)
    probabilities = np.full((n, k), 1.0 / k)
    return LoggedFeedback(
        arms=tuple(f"item-{item}" for item in range(k)),
        schema="position-1",
        ids=tuple(map(str, range(n))),
        times=found.times,
        contexts=np.eye(found.positions.max() + 1, dtype=np.float32)[found.positions],
        actions=found.items,
        propensities=probabilities[:, 0].copy(),
        probabilities=probabilities,
        rewards=found.clicks,
        costs=np.full(n, np.nan),
    )


def shares(found: Impressions, k: int) -> Matrix:
    """How often each item was shown at each position, (positions, k); rows sum to 1."""
    counts = np.zeros((found.positions.max() + 1, k))
    np.add.at(counts, (found.positions, found.items), 1.0)
    return counts / counts.sum(axis=1, keepdims=True)


def campaign(name: str, data: Path, seed: int) -> list[dict[str, Any]]:
    """The rows of one campaign, one an estimator."""
    drawn, thompson = (read(data / f"obd_{policy}_{name}.parquet") for policy in ("random", "bts"))
    k = int(max(drawn.items.max(), thompson.items.max())) + 1
    log = uniform_log(drawn, k)
    target = shares(thompson, k)[drawn.positions]
    q_hat = reward_model(log)
    rate, rng = float(thompson.clicks.mean()), np.random.default_rng(seed)
    always = {
        "ips": (sequences.value(log, target, None, ALPHA, horizon=len(log)), ips.scores(log, target)),
        "dr": (sequences.value(log, target, q_hat, ALPHA, horizon=len(log)), dr.scores(log, target, q_hat)),
    }
    rows = []
    for row in evaluate(log, {"thompson": target}, q_hat, ALPHA):
        sequence, scores = always.get(row.estimator, (None, None))
        rows.append(
            {
                "campaign": name,
                "estimator": row.estimator,
                "value": _round(row.value),
                "low": _round(row.low),
                "high": _round(row.high),
                "bootstrap": None if scores is None else [_round(x) for x in bootstrap(scores, ALPHA, rng)],
                "sequence": None if sequence is None else [_round(x) for x in sequence],
                "recorded": _round(rate),
                "recorded_error": _round(moments(thompson.clicks).standard_error),
                "covered": row.low <= rate <= row.high,
                "relative_width": _round((row.high - row.low) / rate),
                "n": row.n,
                "clicks": int(log.rewards.sum()),
                "ess": round(row.ess),
                "max_weight": _round(row.max_weight),
                "mean_weight": _round(row.mean_weight),
                "verdict": row.verdict,
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Read options, estimate each campaign, print rows, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the Open Bandit logs as Parquet")
    parser.add_argument("--campaigns", nargs="+", default=["men", "women"])
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    options = parser.parse_args(arguments)
    files = [
        options.data / f"obd_{policy}_{name}.parquet" for name in options.campaigns for policy in ("random", "bts")
    ]
    missing = [str(path) for path in files if not path.is_file()]
    if missing or options.seed < 0:
        parser.error(f"--data must hold {', '.join(missing)}." if missing else "--seed must not be negative.")
    rows = []
    for name in options.campaigns:
        print(name, file=sys.stderr)
        rows += campaign(name, options.data, options.seed)
    for row in rows:
        print(json.dumps(row), flush=True)
    print(json.dumps({"summary": True, **verdict(rows)}))


def verdict(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Whether the doubly robust interval holds the recorded click rate in every campaign."""
    by = {row["campaign"]: row for row in rows if row["estimator"] == "dr"}
    return {
        "alpha": ALPHA,
        "covered": {name: row["covered"] for name, row in by.items()},
        "sequence_covered": {
            name: row["sequence"][0] <= row["recorded"] <= row["sequence"][1] for name, row in by.items()
        },
        "met": all(row["covered"] for row in by.values()),
    }


def _round(x: float) -> float:
    return float(f"{x:.4g}")


if __name__ == "__main__":
    main()
