"""Record -> warehouse, as a Prefect flow; running it again loads nothing twice."""

from __future__ import annotations

from prefect import flow

from bandits.home import Home
from bandits.warehouse.loading import load as bring


@flow(name="load", retries=2, retry_delay_seconds=10)
def load() -> dict[str, int]:
    """Bring the warehouse up to date with the record; returns rows, quarantined rows, and the position reached."""
    place = Home.here()
    with place.open_record() as record:
        return bring(record, place.warehouse)._asdict()
