"""The search alone as a Prefect flow: it publishes nothing, and the next night's search begins with what it found."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from bandits.config import load_config
from bandits.home import Home
from bandits.scheduled import nights
from bandits.tuning.table import render
from flows.leaving import key_of, tell


@flow(name="tune", flow_run_name="tune-{tenant}-{workspace}-{domain}", validate_parameters=True)
def tune(
    tenant: str, workspace: str = "main", domain: str = "model_routing", now: float | None = None
) -> dict[str, Any]:
    """Search the settings of one scope's learner; publishes nothing. Resumes a search of the same log.

    Args:
        tenant: Whose log, as pilotage.toml names it.
        workspace: Which of the tenant's workspaces.
        domain: Which kind of decision, as pilotage.toml names it.
        now: UTC seconds since the epoch that the search believes it is; left out, the clock's.
    """
    config, place = load_config(), Home.here()
    scope = config.scope(tenant, workspace, domain)
    found = nights.search(place, config, scope, time.time() if now is None else now)
    create_markdown_artifact(render(scope, found), key=key_of("tune", scope))
    if found.front:
        create_table_artifact(table=[dict(one) for one in found.front], key=key_of("front", scope))
    tell("tune.ended", str(scope), adopted=found.adopted, reason=found.reason)
    return asdict(found)
