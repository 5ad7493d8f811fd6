"""How long does it take to forget a person, and is nothing left?

    python -m benchmarks.erasure --events 100000

A home of two tenants with as many decisions, each with its outcome, one in a hundred of them by the person; a warehouse
and a snapshot. Then the product's own erasure: rows, key, caches, learning anew. `left` counts the files in whose bytes
the person's context or pseudonym still stands, before and after. What would make it wrong: a search that finds nothing
before either (`left_before` must not be 0), or a home so small that nothing was learned (`learned` names the version).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bandits.config import Config, parse_config
from bandits.home import Home
from bandits.ids import IdRing
from bandits.privacy.erasing import erase, learned_from
from bandits.snapshots.keys import signing_key
from bandits.snapshots.publishing import publish
from bandits.testing.ports import sample_decision
from bandits.types import Entry, Outcome, Scope, new_id
from bandits.warehouse.loading import load

NOW = 1_790_000_000.0
BAR_S = 60.0
_PRICES = {"small": 1e-4, "middle": 1e-3, "large": 1e-2}
_BATCH = 2_000  # rows of one append
_WIDTH = 16


def config() -> Config:
    """Two tenants and one domain of sixteen numbers."""
    arms = [{"name": name, "model": name, "usd_per_request": usd} for name, usd in _PRICES.items()]
    domain = {"arms": arms, "budget_usd_per_request": 2e-3, "features": f"vector-{_WIDTH}"}
    return parse_config({"domains": {"own": domain}, "tenants": {"acme": {}, "rival": {}}}, "erasure")


def fill(home: Home, events: int, person: str, marked: np.ndarray, rng: np.random.Generator) -> None:
    """As many decisions by a uniform policy, each with its outcome; every hundredth by the person."""
    scopes = (Scope("acme", "main", "own"), Scope("rival", "main", "own"))
    batch: list[Entry] = []
    with home.open_record() as record:
        for i in range(events):
            hers = i % 100 == 0
            context = marked if hers else rng.normal(size=_WIDTH).astype(np.float32)
            action, id_ = int(rng.integers(3)), new_id(NOW, rng.bytes(10))
            scope = scopes[0] if hers else scopes[i % 2]
            shape = {"arms": tuple(_PRICES), "excluded": {}, "probabilities": np.full(3, 1 / 3), "propensity": 1 / 3}
            about = {"time": NOW, "policy": "uniform", "forced": False, "scope": scope, "schema": f"vector-{_WIDTH}"}
            user = person if hers else f"other-{i % 1000}"
            batch.append(sample_decision(id_, action=action, context=context, user=user, **shape, **about))
            quality = float(np.clip(0.5 + 0.2 * np.tanh(context[action]) + rng.normal(0.0, 0.1), 0.0, 1.0))
            usd = list(_PRICES.values())[action]
            batch.append(Outcome(id_, NOW, scope, quality=quality, cost_usd=usd))
            if len(batch) >= _BATCH or i + 1 == events:
                record.append(*batch)
                batch = []
        load(record, home.warehouse)


def left(home: Home, *marks: bytes) -> int:
    """Files of the home in whose bytes one of the marks stands."""
    contents = (path.read_bytes() for path in home.root.rglob("*") if path.is_file())
    return sum(any(mark in content for mark in marks) for content in contents)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill a home, erase, and print one row and the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000, help="decisions, each with an outcome")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.events < 2_000:
        parser.error("--events must be at least 2,000, or nothing is learned")
    settings, rng = config(), np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        home, scope = Home(Path(folder)), Scope("acme", "main", "own")
        person, marked = IdRing(home.root).pseudonym("acme", "Ada"), rng.normal(size=_WIDTH).astype(np.float32)
        print("filling ...", file=sys.stderr)
        fill(home, options.events, person, marked, rng)
        policy, position = learned_from(home, settings, scope, NOW)
        publish(
            home.snapshots, scope, policy.freeze(), position=position, parent=None, evidence={}, created=NOW,
            expires=NOW + 1e6, key=signing_key(home.root),
        )  # fmt: skip
        before = left(home, marked.tobytes(), person.encode())
        print("erasing ...", file=sys.stderr)
        began = time.monotonic()
        report = erase(home, settings, "acme", person, NOW)
        seconds = time.monotonic() - began
        row = {
            "events": options.events,
            "erased": report.decisions,
            "seconds": round(seconds, 2),
            "left_before": before,
            "left": left(home, marked.tobytes(), person.encode()),
            "learned": report.snapshots.get(str(scope)),
        }
    print(json.dumps(row), flush=True)
    met = seconds < BAR_S and row["left"] == 0 and before > 0 and row["learned"] is not None
    print(json.dumps({"summary": True, **row, "met": met}), flush=True)


if __name__ == "__main__":
    main()
