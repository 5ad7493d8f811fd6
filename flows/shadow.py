"""The candidate on trial as a Prefect flow: what it would have drawn on the contexts logged since, and its value."""

from __future__ import annotations

import time
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from bandits.config import load_config
from bandits.home import Home
from bandits.scheduled import looks
from flows.leaving import key_of


@flow(name="shadow", validate_parameters=True)
def shadow(scopes: list[str] | None = None, now: float | None = None) -> list[dict[str, Any]]:
    """Report what each candidate on trial would have been worth so far, by the record alone.

    Args:
        scopes: Only these, each tenant/workspace/domain as pilotage.toml names it; left out, every configured one.
        now: UTC seconds since the epoch that the report believes it is; left out, the clock's.
    """
    config, place = load_config(), Home.here()
    at, found = time.time() if now is None else now, []
    for scope in looks.named(config, scopes):
        one = looks.shadow_of(place, config, scope, at)
        create_markdown_artifact(one.render(), key=key_of("shadow", scope))
        found.append(one.as_dict())
    return found
