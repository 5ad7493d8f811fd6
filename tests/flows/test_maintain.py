"""Facts about maintenance: it erases what is too old, then backs up what is left, to where the configuration says."""

from __future__ import annotations

from pathlib import Path

import pytest

from bandits.backups.restore import restore
from bandits.home import Home
from bandits.record.port import rows
from bandits.testing.ports import sample_decision
from bandits.types import Scope
from flows.maintain import maintain

ROOT = Path(__file__).parents[2]
NOW = 1_790_000_000.0


@pytest.mark.parametrize("folder", [True, False])
def test_maintenance_sweeps_and_backs_up(tmp_path, monkeypatch, folder):
    """Without a folder there is no backup; twice erases nothing twice."""
    extra = f'[backup]\nfolder = "{tmp_path / "backups"}"\nkeep_days = 3\n' if folder else ""
    text = (ROOT / "pilotage.toml").read_text().replace("[tenants.demo]", "[tenants.demo]\nretention_days = 1.0", 1)
    (tmp_path / "pilotage.toml").write_text(text + "\n" + extra)
    monkeypatch.setenv("PILOTAGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PILOTAGE_CONFIG", str(tmp_path / "pilotage.toml"))
    with Home(tmp_path / "home").open_record() as record:
        for name, days in (("old", 2.0), ("young", 0.5)):
            scope, time = Scope("demo", "main", "model_routing"), NOW - days * 86_400.0
            record.append(sample_decision(name, scope=scope, time=time))

    first, second, late = (maintain.fn(now=now) for now in (NOW, NOW + 1.0, NOW + 4 * 86_400.0))

    assert (first["erased"], second["erased"], late["erased"]) == ({"demo": 1}, {}, {"demo": 1})
    if not folder:
        assert (first["backup"], first["position"], late["removed"]) == (None, None, [])
        return
    assert first["position"] == 2
    assert sorted(late["removed"]) == sorted(Path(one["backup"]).name for one in (first, second))
    restore(Path(late["backup"]), tmp_path / "new", NOW + 4 * 86_400.0)
    with Home(tmp_path / "new").open_record() as record:
        assert (list(rows(record)), record.head()) == ([], 2)
