"""Looks at scopes that change nothing but the warehouse: the candidate on trial, and the figures of a period."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bandits.config import Config
from bandits.home import Home
from bandits.monitoring.kpis import Period, kpis
from bandits.night import changes
from bandits.record.audit import Audit
from bandits.scheduled.nights import PATIENCE_S, read_log
from bandits.scheduled.shadow import Shadow, shadow
from bandits.types import Scope, new_id
from bandits.warehouse.loading import Run, load, write_run


def named(config: Config, scopes: Sequence[str] | None) -> list[Scope]:
    """These scopes, tenant/workspace/domain each, or every configured one. Raises ConfigError, InvalidNameError."""
    if not scopes:
        return config.scopes()
    return [config.scope(one.tenant, one.workspace, one.domain) for one in map(Scope.parse, scopes)]


def shadow_of(home: Home, config: Config, scope: Scope, now: float) -> Shadow:
    """What the scope's candidate on trial would have been worth by now, UTC seconds. Raises as nights.read_log."""
    with Audit(home.audit_url) as audit:
        changed = changes.changed(audit.rows(), scope.domain)
    feedback, _ = read_log(home, config, scope, now, changed)
    return shadow(home, scope, config.domains[scope.domain], config.night, feedback, now)


def report_of(home: Home, config: Config, scope: Scope, period: Period, now: float) -> Run:
    """The figures of the last whole period before `now`, UTC seconds, stored in the warehouse as a run."""
    with home.open_record() as record:
        load(record, home.warehouse, patience_s=PATIENCE_S)
    found = kpis(home.warehouse, scope, config.domains[scope.domain], period, now)
    run = found.run(new_id(time.time()), now)
    write_run(home.warehouse, run, patience_s=PATIENCE_S)
    return run
