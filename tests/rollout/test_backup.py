"""Orders lie in the record, and so in its backups."""

from __future__ import annotations

import sqlalchemy as sa

from bandits.backups.rows import seal_record
from bandits.privacy.people import People
from bandits.rollout.orders import LEASES, ORDERS
from tests.rollout.world import SCOPE


def test_a_backup_of_the_record_holds_its_orders(rolling, tmp_path):
    """Each with its signature: a restored home goes on from the highest."""
    world, *_ = rolling
    source, target = (sa.create_engine(f"sqlite:///{path}") for path in (world.home.record_file, tmp_path / "copy.db"))
    people = People(tmp_path / "people" / "people.db")
    with source.begin() as old, target.begin() as new:
        seal_record(old, new, people)
        for table in (ORDERS, LEASES):
            assert new.execute(sa.select(table)).all() == old.execute(sa.select(table)).all() != []
        assert new.execute(sa.select(ORDERS.c.scope)).scalar() == str(SCOPE)
