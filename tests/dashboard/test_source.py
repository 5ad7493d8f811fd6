"""Facts about what the pages read: one scope, one day, and who may earn a reward."""

from datetime import UTC, datetime

import numpy as np
import pytest

from bandits.record.memory import MemoryRecord
from bandits.testing.ports import ELSEWHERE, HERE, sample_decision, sample_outcome
from bandits.types import Slot
from bandits.warehouse.loading import load
from dashboard import source
from dashboard.figures import DAY_S
from tests.dashboard.worlds import DOMAIN

DAY = datetime(2026, 11, 20, tzinfo=UTC)
START = DAY.timestamp()
TEXT = DOMAIN.model_copy(update={"features": "text-1"})


@pytest.fixture
def path(tmp_path):
    """Six decisions of HERE around one day, and one of a neighbour."""
    record = MemoryRecord()
    several = {
        "drawn": {},
        "forced": {"forced": True},
        "shadow": {"slot": Slot.SHADOW},
        "other": {"schema": "text-0"},
        "early": {"time": START - 0.5},
        "late": {"time": START + DAY_S},
    }
    for name, changes in several.items():
        record.append(sample_decision(name, **{"forced": False, "time": START, **changes}))
    record.append(sample_decision("foreign", forced=False, time=START, scope=ELSEWHERE))
    record.append(sample_outcome("drawn", cost_usd=2.0), sample_outcome("drawn", cost_usd=3.0))
    record.append(sample_outcome("forced", cost_usd=None), sample_outcome("foreign", scope=ELSEWHERE, cost_usd=9.0))
    load(record, tmp_path / "warehouse.duckdb")
    return tmp_path / "warehouse.duckdb"


def test_a_day_is_one_scope_from_midnight_to_midnight(path):
    """All costs of a decision add up, and one that is not known stays so; only what was drawn may earn a reward."""
    found = source.draws(path, HERE, TEXT, DAY.date())
    assert found.start == START
    assert found.drawn.tolist() == [True, False, False, False]
    assert found.costs[0] == 5.0
    assert np.isnan(found.costs[1:]).all()
    assert found.arms == ["middle"] * 4
    assert found.times.tolist() == [START] * 4


def test_days_are_listed_by_scope(path):
    """In order, each once, neighbours apart."""
    found = source.days(path)
    assert [day.isoformat() for day in found[HERE]] == ["2026-11-19", "2026-11-20", "2026-11-21"]
    assert [day.isoformat() for day in found[ELSEWHERE]] == ["2026-11-20"]
