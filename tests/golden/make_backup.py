"""Writes the golden file of a backup, as this version stores it: backup-<format>.tar.gz and the rows it must give.

Run it once per format, `python -m tests.golden.make_backup`, and commit what it writes. Its keys guard nothing.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from pathlib import Path

from bandits.backups.backup import FORMAT, backup
from bandits.home import Home
from bandits.privacy.people import People
from bandits.privacy.prompts import Prompts
from bandits.record.sql import SqlRecord
from bandits.testing.ports import plain, sample_decision, sample_outcome

HERE = Path(__file__).parent
TOML = """
[tenants.acme]
[domains.model_routing]
budget_usd_per_request = 1e-3
arms = [{name = "a", model = "a", usd_per_request = 1e-4}, {name = "b", model = "b", usd_per_request = 1e-4}]
"""


def main() -> None:
    """Make it in a scratch folder, then put it in place unless it is there."""
    target = HERE / f"backup-{FORMAT}.tar.gz"
    if target.exists():
        return
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        home = Home(base / "home")
        (base / "pilotage.toml").write_text(TOML)
        with home.open_record() as record:
            for name, user in (("a", "ada"), ("b", ""), ("c", "eve")):
                record.append(sample_decision(name, user=user), sample_outcome(name))
            record.erase("acme", "eve")
            Prompts(home.prompts, People(home.people)).put(record.decision("a", "acme"), "about my knee")
            (HERE / f"backup-{FORMAT}.json").write_text(json.dumps(told(record), indent=1) + "\n")
        backup(home, base / "pilotage.toml", base / "backups", 1_790_000_000.0)
        with tarfile.open(target, "w:gz") as archive:
            archive.add(base / "backups", "backups")


def told(record: SqlRecord) -> dict[str, object]:
    """All that a record says, as JSON can say it."""
    entries = [{"position": position, **plain(entry)} for position, entry in record.read()]
    return {"entries": entries, "erased": sorted(record.erased(0, record.head())), "epoch": list(record.epoch())}


if __name__ == "__main__":
    main()
