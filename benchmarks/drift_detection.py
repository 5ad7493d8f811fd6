"""How soon is a drop found, and how often one that is none?

    python -m benchmarks.drift_detection --runs 1000

A stream of 0 and 1, or of graded values, with a mean of .78 for `--events` values: any alarm in it is false. Then, in
streams of their own, a mean of .78 for 1,000 values and .60 from there: the delay is the number of values from the
change to the alarm. A stream whose detector had cried before the change starts it anew there, like the product's.
`gradual` falls from .78 to .60 evenly over 500 values.

Read it: `false_per_5000` is the share of stationary streams with an alarm in 5,000 values, `delay_p50` and
`delay_p95` in values (missed ones count as the longest), `missed` the share with no alarm in 2,000 values after the
change. Bars, of `ecusum` on 0 and 1: false_per_5000 <= .01 (beyond chance over the runs), delay_p95 <= 281. `always`
is an alarm that goes off at once, `never` one that does not: what a bar is worth is seen next to them. Where the
package `river` is installed its ADWIN, at its own defaults, gives a second opinion under `adwin`; no bar speaks of it.

What would make it wrong: few runs; a drop that begins where the detector was started; a mean told to the detector.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from bandits.monitoring.ecusum import Drop
from bandits.types import Vector

BEFORE, AFTER = 0.78, 0.60
QUIET, WAIT = 1000, 2000  # values before the change, and values in which it must be found
FALSE, DELAY = 0.01, 281
GRADES = 7.0  # graded values are Beta with this many pseudo-counts: a standard deviation near .15


class Detector(Protocol):
    """Sees one value after the other; True is an alarm."""

    def see(self, value: float) -> bool:
        """Take in the next value."""
        ...


class Constant:
    """The dummy: an alarm at every value, or at none."""

    def __init__(self, alarm: bool) -> None:
        self.alarm = alarm

    def see(self, value: float) -> bool:
        """Whatever the value."""
        return self.alarm


class Adwin:
    """river's ADWIN: it compares the means of every older and newer part of a window (Bifet, Gavalda 2007)."""

    def __init__(self) -> None:
        self._adwin = importlib.import_module("river.drift").ADWIN()

    def see(self, value: float) -> bool:
        """Take in the next value; a rise is an alarm too."""
        self._adwin.update(value)
        return bool(self._adwin.drift_detected)


DETECTORS: dict[str, Callable[[], Detector]] = {
    "ecusum": Drop,
    "always": lambda: Constant(True),
    "never": lambda: Constant(False),
    **({"adwin": Adwin} if importlib.util.find_spec("river") else {}),
}


def stream(means: Vector, kind: str, rng: np.random.Generator) -> Vector:
    """Values in [0, 1] with these means, (n,): 0 or 1 (`binary`), or spread around them (`graded`)."""
    if kind == "binary":
        return (rng.random(len(means)) < means).astype(np.float64)
    return rng.beta(GRADES * means, GRADES * (1.0 - means))


def falls(kind: str) -> Vector:
    """Means around a change, (QUIET + WAIT,): at once, or evenly over 500 values."""
    after = np.full(WAIT, AFTER)
    if kind == "gradual":
        after[:500] = np.linspace(BEFORE, AFTER, 500)
    return np.concatenate((np.full(QUIET, BEFORE), after))


def first_alarm(detector: Detector, values: Vector, start: int = 0) -> int | None:
    """Index of the first alarm at or after `start`; earlier ones are let go by."""
    for i, value in enumerate(values.tolist()):
        if detector.see(value) and i >= start:
            return i
    return None


def measure(name: str, kind: str, runs: int, events: int, seed: int) -> dict[str, Any]:
    """The row of one detector on one kind of stream."""
    make, values = DETECTORS[name], "graded" if kind == "graded" else "binary"
    false = 0
    delays, missed = [], 0
    for run in range(runs):
        rng = np.random.default_rng([seed, run])
        false += first_alarm(make(), stream(np.full(events, BEFORE), values, rng)) is not None
        found = first_alarm(make(), stream(falls(kind), values, rng), QUIET)
        missed += found is None
        delays.append(WAIT if found is None else found - QUIET + 1)
    return {
        "detector": name,
        "stream": kind,
        "false_per_5000": round(1.0 - (1.0 - false / runs) ** (5000 / events), 5),
        "delay_p50": float(np.quantile(delays, 0.5, method="higher")),
        "delay_p95": float(np.quantile(delays, 0.95, method="higher")),
        "missed": missed / runs,
    }


def verdict(rows: Sequence[dict[str, Any]], runs: int) -> dict[str, Any]:
    """The figures that a bar names, and whether they are met; the dummies must not meet them."""
    allowance = FALSE + 2.0 * math.sqrt(FALSE * (1.0 - FALSE) / runs)

    def good(row: dict[str, Any]) -> bool:
        return bool(row["false_per_5000"] <= allowance and row["delay_p95"] <= DELAY and row["missed"] == 0.0)

    by = {(row["detector"], row["stream"]): row for row in rows}
    ours = by["ecusum", "binary"]
    bars = {
        "false_per_5000": ours["false_per_5000"] <= allowance,
        "delay_p95": ours["delay_p95"] <= DELAY,
        "missed": ours["missed"] == 0.0,
        "control": not any(good(by[name, "binary"]) for name in ("always", "never")),
    }
    return {"runs": runs, "allowance": round(allowance, 5), **ours, "bars": bars, "met": all(bars.values())}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read options, print a row for each detector and kind of stream, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400, help="streams of each kind")
    parser.add_argument("--events", type=int, default=5000, help="values of a stationary stream; the bar says 5,000")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.runs < 2 or options.events < 200 or options.seed < 0:
        parser.error("--runs must be at least 2, --events at least 200 and --seed not negative.")
    rows = []
    for name in DETECTORS:
        for kind in ("binary", "graded", "gradual"):
            print(f"{name}, {kind}", file=sys.stderr)
            rows.append(measure(name, kind, options.runs, options.events, options.seed))
            print(json.dumps(rows[-1]), flush=True)
    print(json.dumps({"summary": True, **verdict(rows, options.runs)}))


if __name__ == "__main__":
    main()
