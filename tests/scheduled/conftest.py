"""What the tests of whole nights share: a home with some days in its record."""

from __future__ import annotations

import pytest

from bandits.home import Home
from tests.scheduled.scopes import ROWS, filled


@pytest.fixture
def home(tmp_path) -> Home:
    """A home with 600 decisions over five days, eight of nine with a reward."""
    return filled(Home(tmp_path / "home"), ROWS)
