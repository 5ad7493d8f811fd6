"""Daily, weekly and monthly figures as a Prefect flow."""

from __future__ import annotations

import time
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from bandits.config import load_config
from bandits.home import Home
from bandits.monitoring.kpis import Period
from bandits.scheduled import looks
from flows.leaving import key_of, tell


@flow(name="report", flow_run_name="report-{period}", validate_parameters=True)
def report(period: Period = "daily", scopes: list[str] | None = None, now: float | None = None) -> list[dict[str, Any]]:
    """Reward, cost, latency, errors and satisfaction of the last whole day, week or month, each with its interval.

    Args:
        period: daily, weekly (from Monday) or monthly.
        scopes: Only these, each tenant/workspace/domain as pilotage.toml names it; left out, every configured one.
        now: UTC seconds since the epoch that the report believes it is; left out, the clock's.
    """
    config, place = load_config(), Home.here()
    at, found = time.time() if now is None else now, []
    for scope in looks.named(config, scopes):
        run = looks.report_of(place, config, scope, period, at)
        create_markdown_artifact(run["report"]["markdown"], key=key_of(period, scope))
        if not run["report"]["decisions"]:
            tell("report.no_data", str(scope), period=period)
        found.append(dict(run))
    return found
