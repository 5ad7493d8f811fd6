"""Record what the Open Bandit Pipeline says of feedback that anyone can rebuild.

    python make_obp.py > obp.json

It needs `sb-obp` (and its torch) in an environment of its own, not this project's, and nothing of Pilotage.
`feedback` takes its chance from Python's own generator, whose sequence for a seed is promised for ever, and only adds,
multiplies and divides: so every machine rebuilds the same numbers.
"""

from __future__ import annotations

import json
import math
import platform
import random
import sys
from importlib.metadata import version
from typing import Any

# name -> seed, rounds, arms, least of a logging row's numbers before they are made to sum to 1
CASES = {
    "two arms": (20261122, 60, 2, 0.5),
    "mild": (7, 400, 4, 0.3),
    "heavy weights": (11, 1500, 6, 0.002),
}
TAUS = (0.8, 1.5, 4.0)  # thresholds of SWITCH


def feedback(seed: int, n: int, k: int, least: float) -> dict[str, list[Any]]:
    """Lists of one entry a round: probabilities, target and q_hat (k each), action, reward."""
    chance = random.Random(seed)
    rows: dict[str, list[Any]] = {name: [] for name in ("probabilities", "target", "q_hat", "action", "reward")}
    for _ in range(n):
        logging, target = ([low + chance.random() ** 2 for _ in range(k)] for low in (least, 0.05))
        logging, target = ([x / math.fsum(row) for x in row] for row in (logging, target))
        point, action = chance.random(), 0
        while action < k - 1 and point >= logging[action]:
            point -= logging[action]
            action += 1
        expected = (action + 1.0) / (k + 1.0)
        rows["probabilities"].append(logging)
        rows["target"].append(target)
        rows["q_hat"].append([0.25 + 0.5 * chance.random() for _ in range(k)])
        rows["action"].append(action)
        rows["reward"].append(0.5 * (chance.random() < expected) + 0.5 * chance.random())  # graded, in [0, 1)
    return rows


def values(rows: dict[str, list[Any]]) -> dict[str, float]:
    """Estimated value of the target by each of obp's estimators."""
    import numpy as np
    from obp import ope

    probabilities, action = np.array(rows["probabilities"]), np.array(rows["action"])
    n = len(action)
    given = {
        "reward": np.array(rows["reward"]),
        "action": action,
        "pscore": probabilities[np.arange(n), action],
        "action_dist": np.array(rows["target"])[:, :, None],
        "position": np.zeros(n, dtype=int),
        "estimated_rewards_by_reg_model": np.array(rows["q_hat"])[:, :, None],
    }
    estimators = {
        "ips": ope.InverseProbabilityWeighting(),
        "snips": ope.SelfNormalizedInverseProbabilityWeighting(),
        "dm": ope.DirectMethod(),
        "dr": ope.DoublyRobust(),
        "sndr": ope.SelfNormalizedDoublyRobust(),
        **{f"switch {tau:g}": ope.SwitchDoublyRobust(lambda_=tau) for tau in TAUS},
    }
    return {name: float(one.estimate_policy_value(**given)) for name, one in estimators.items()}


if __name__ == "__main__":
    made_by = {"sb-obp": version("sb-obp"), "numpy": version("numpy"), "python": platform.python_version()}
    found = {name: values(feedback(*case)) for name, case in CASES.items()}
    sys.stdout.write(json.dumps({"made_by": made_by, "values": found}, indent=1) + "\n")
