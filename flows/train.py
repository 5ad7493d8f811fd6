"""The fold of a log of any size as a Prefect flow: in this process, or on the Dask cluster that is configured.

Each pass is mapped over parts of the log (whole days), and the parts' exact sums are added: the policy is the same to
the last bit, whatever the workers. Workers must see $PILOTAGE_HOME under the same path.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from importlib import import_module
from typing import Any

from prefect import flow, task, unmapped
from prefect.cache_policies import NO_CACHE

from bandits.config import Config, load_config
from bandits.errors import ConfigError
from bandits.home import Home
from bandits.learners.doubly_robust import Parameters
from bandits.snapshots.manifest import content_hash
from bandits.training.fold import PART, Logged, Map, in_turn
from bandits.training.training import train_log
from bandits.types import Scope
from bandits.warehouse.loading import load as load_warehouse


@task(name="fold", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[5, 30])
def fold(function: Callable[[Any], Any], part: Any) -> Any:  # noqa: ANN401 - any pass over any part
    """One pass over one part of the log."""
    return function(part)


@flow(name="train", validate_parameters=True)
def train(
    tenant: str,
    workspace: str = "main",
    domain: str = "model_routing",
    now: float | None = None,
    part: int = PART,
) -> dict[str, Any]:
    """Learn the policy of one scope from its whole log, in bounded memory; publishes nothing.

    Args:
        tenant: Whose log, as pilotage.toml names it.
        workspace: Which of the tenant's workspaces.
        domain: Which kind of decision, as pilotage.toml names it.
        now: UTC seconds since the epoch that the fold believes it is; left out, the clock's.
        part: Decisions of a part at least; a part is whole days.
    """
    config, place = load_config(), Home.here()
    scope = config.scope(tenant, workspace, domain)
    with place.open_record() as record:
        load_warehouse(record, place.warehouse)
    now = time.time() if now is None else now
    if config.night.cluster is None:
        return _train(place, config, scope, now, part, in_turn)
    return on_cluster(config.night.cluster)(place, config, scope, now, part)


def on_cluster(address: str) -> Callable[[Home, Config, Scope, float, int], dict[str, Any]]:
    """The fold as a flow whose tasks run on the Dask cluster at `address`; raises ConfigError without prefect-dask."""
    try:
        runner = import_module("prefect_dask").DaskTaskRunner(address=address)
    except ImportError:
        raise ConfigError(
            f"night.cluster = {address!r} needs prefect-dask, which is not installed; "
            "pip install 'pilotage[distributed]', or leave the setting out to fold in this process."
        ) from None

    @flow(name="train-parts", task_runner=runner, validate_parameters=False)
    def train_parts(place: Home, config: Config, scope: Scope, now: float, part: int) -> dict[str, Any]:
        return _train(place, config, scope, now, part, _over_tasks)

    return train_parts


def _over_tasks(function: Callable[[Any], Any], parts: Iterable[Any]) -> Iterable[Any]:
    return fold.map(unmapped(function), list(parts)).result()


def _train(place: Home, config: Config, scope: Scope, now: float, part: int, over: Map) -> dict[str, Any]:
    log = Logged(place.warehouse, scope, config.domains[scope.domain], now)
    folder = place.checkpoints / "fold" / scope.tenant / scope.workspace / scope.domain
    least, share = config.night.min_rounds, config.night.user_share
    found = train_log(log, least, Parameters(), folder, part=part, over=over, user_share=share)
    return {
        "scope": str(scope),
        "rounds": found.rounds,
        "missing": found.missing,
        "left_out": asdict(found.left_out),
        "position": found.position,
        "content": content_hash(found.policy.freeze().arrays),
    }
