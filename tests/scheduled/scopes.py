"""A scope with ten days behind it, for the facts about whole nights."""

from __future__ import annotations

from dataclasses import replace

import optuna

from bandits.config import Config, NightConfig, TenantConfig
from bandits.home import Home
from bandits.record.audit import Audit
from bandits.settings.rollout import RolloutConfig
from bandits.snapshots.keys import trusted_keys
from bandits.snapshots.loading import list_versions, load
from bandits.types import Decision, Outcome, Scope
from bandits.warehouse.loading import read_runs
from tests.logs import ARMS, domain
from tests.training.rounds import entries

SCOPE, SIDE = Scope("acme", "main", "own"), Scope("acme", "side", "own")
START = 100 * 86_400.0
NOW = START + 10 * 86_400.0
BUDGET = 1.5e-3


def config_of(**settings) -> Config:
    """One tenant, one domain of three arms, a short search; a first snapshot serves at once, so that nights go on."""
    night, rollout = NightConfig(trials=3, learners=("linear",)), RolloutConfig(first_share=1.0)
    domains = {"own": domain(BUDGET, **settings)}
    return Config(tenants={"acme": TenantConfig()}, domains=domains, night=night, rollout=rollout)


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


def two_scopes() -> Config:
    """The tenant of the tests with a second workspace."""
    night = CONFIG.night.model_copy(update={"trials": 2})
    return CONFIG.model_copy(update={"tenants": {"acme": TenantConfig(workspaces=("main", "side"))}, "night": night})


def rows_of(scopes: list[Scope], n: int) -> list[Decision | Outcome]:
    """n rounds of each scope; those of the second are worth something else."""
    found: list[Decision | Outcome] = []
    for i, scope in enumerate(scopes):
        for row in entries(n, scope, "vector-2", ARMS, START):
            if isinstance(row, Decision):
                found.append(replace(row, id=f"{i}-{row.id}"))
            else:
                found.append(replace(row, decision_id=f"{i}-{row.decision_id}", quality=row.quality ** (1 + i)))
    return found


def contents(home: Home, scopes: list[Scope]) -> list[str]:
    """The hash of what serves each scope."""
    trusted = trusted_keys(home.root)
    return [load(home.snapshots, scope, trusted=trusted, now=NOW).manifest.content for scope in scopes]


def assert_spent_once(home: Home, config: Config, scopes: list[Scope]) -> None:
    """One snapshot, one run and one search of each scope, with as many trials as it is allowed."""
    for scope in scopes:
        listed = list_versions(home.snapshots, scope, trusted=trusted_keys(home.root), now=NOW)
        assert [one.version for one in listed] == ["000001"]
        assert len(read_runs(home.warehouse, scope)) == 1
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(home.study)))
    studies = optuna.get_all_study_summaries(storage)
    assert sorted(study.study_name.partition("@")[0] for study in studies) == sorted(map(str, scopes))
    assert [study.n_trials for study in studies] == [config.night.trials] * len(scopes)
