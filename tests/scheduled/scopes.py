"""A scope with ten days behind it, for the facts about whole nights."""

from __future__ import annotations

from bandits.config import Config, NightConfig, TenantConfig
from bandits.home import Home
from bandits.record.audit import Audit
from bandits.snapshots.keys import trusted_keys
from bandits.snapshots.loading import list_versions
from bandits.types import Decision, Outcome, Scope
from bandits.warehouse.loading import read_runs
from tests.logs import ARMS, domain
from tests.training.rounds import entries

SCOPE = Scope("acme", "main", "own")
START = 100 * 86_400.0
NOW = START + 10 * 86_400.0
BUDGET = 1.5e-3


def config_of(**settings) -> Config:
    """One tenant, one domain of three arms, a short search."""
    night = NightConfig(trials=3, learners=("linear",))
    return Config(tenants={"acme": TenantConfig()}, domains={"own": domain(BUDGET, **settings)}, night=night)


CONFIG = config_of()
ROWS = list(entries(600, SCOPE, "vector-2", ARMS, START))  # over five days, eight of nine with a reward


def filled(home: Home, rows: list[Decision | Outcome]) -> Home:
    """A home whose record holds these rows."""
    with home.open_record() as record:
        if rows:
            record.append(*rows)
    return home


def state(home: Home) -> dict[str, object]:
    """All that a night may change: snapshots, trials, audit, runs, searches."""
    files = [path for folder in (home.snapshots, home.trials) for path in sorted(folder.rglob("*")) if path.is_file()]
    with Audit(home.audit_url) as audit:
        head = audit.head()
    return {
        "files": {str(path): path.read_bytes() for path in files},
        "audit": head,
        "runs": [run["id"] for run in read_runs(home.warehouse)],
        "study": home.study.read_bytes() if home.study.exists() else b"",
    }


def versions(home: Home) -> list[str | None]:
    """Every snapshot of the scope, or its fault."""
    listed = list_versions(home.snapshots, SCOPE, trusted=trusted_keys(home.root), now=NOW)
    return [one.fault or one.version for one in listed]
