"""What a home needs each night, as a Prefect flow: erase what is too old to keep, then back the rest up."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from prefect import flow

from bandits.backups.backup import backup
from bandits.config import config_path, load_config
from bandits.home import Home
from bandits.privacy.erasing import complete, sweep


@flow(name="maintain", retries=1, retry_delay_seconds=60, validate_parameters=True)
def maintain(now: float | None = None) -> dict[str, Any]:
    """Finish what was interrupted, erase what is older than its tenant keeps, and back the home up.

    Running it again erases nothing twice, and makes one more backup.

    Args:
        now: UTC seconds since the epoch that it believes it is; left out, the clock's.
    """
    config, place = load_config(), Home.here()
    now = time.time() if now is None else now
    complete(place, config)
    swept = sweep(place, config, now)
    with place.open_ledger(config) or nullcontext() as ledger:
        if ledger is not None:
            ledger.forget(now)  # of months that are closed
    folder, made = config.backup.folder, None
    if folder is not None:
        made = backup(place, config_path(), Path(folder), now, config.backup.keep_days)
    return {
        "erased": {tenant: report.decisions + report.outcomes for tenant, report in swept.items()},
        "backup": None if made is None else str(made.path),
        "position": None if made is None else made.position,
        "removed": [] if made is None else list(made.removed),
    }
