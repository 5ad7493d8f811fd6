"""Facts about backups: the home comes back to the last bit, and whoever was erased stays erased in every backup."""

from __future__ import annotations

import itertools
import json
import sqlite3
import tarfile
import threading
from contextlib import closing

import numpy as np
import pytest

from bandits.backups.backup import FORMAT
from bandits.backups.restore import restore
from bandits.backups.rows import SEALED
from bandits.errors import KeyFileError, PilotageError
from bandits.explaining.audited import broken_links
from bandits.home import Home
from bandits.privacy import erasing as privacy
from bandits.privacy.people import People, unseal
from bandits.privacy.prompts import Prompts
from bandits.record.audit import Audit
from bandits.record.port import rows
from bandits.record.tables import DECISIONS, EPOCHS, HEAD, META, OUTCOMES, TOMBSTONES
from bandits.rewards import feedback
from bandits.snapshots.keys import trusted_keys
from bandits.snapshots.loading import load
from bandits.snapshots.manifest import content_hash
from bandits.types import Decision
from bandits.warehouse.loading import read_runs
from tests.backups.home import (
    ASKED,
    DAY,
    GOLDEN,
    HERE,
    MARK,
    NOW,
    RUN,
    TOML,
    back_up,
    config_of,
    drawn,
    known,
    person,
    table_rows,
    tree,
    whole,
)
from tests.golden.make_backup import told


def test_a_restored_home_is_the_one_that_was_backed_up(home, tmp_path):
    """Rows and snapshots to the last bit, keys, prompts, money, reports, audit; the fold gives the same hash."""
    found = back_up(home, tmp_path / "backups")

    restored = restore(found.path, tmp_path / "new", NOW)

    again = Home(tmp_path / "new")
    with home.open_record() as record:
        assert (restored.position, restored.erased) == (record.head(), 0)
        assert restored.rows == found.rows == len(list(rows(record)))
        assert restored.epoch == record.epoch().number == 2
    assert table_rows(again) == table_rows(home)
    assert tree(again.snapshots) == tree(home.snapshots) != {}
    theirs, ours = tree(again.people.parent), tree(home.people.parent)
    assert theirs.pop("people.db")
    assert ours.pop("people.db")
    assert theirs == ours
    assert People(again.people).numbered() == People(home.people).numbered()
    assert (again.root / "pilotage.toml").read_text() == TOML
    assert read_runs(again.warehouse) == [RUN]
    hashes = [privacy.learned_from(one, config_of(home), HERE, NOW) for one in (home, again)]
    assert len({content_hash(policy.freeze().arrays) for policy, _ in hashes}) == 1
    assert load(again.snapshots, HERE, trusted=trusted_keys(again.root), now=NOW).manifest.version == "000001"
    with again.open_record() as record:
        hers = next(e for _, e in rows(record) if isinstance(e, Decision) and e.user == person(again))
    assert Prompts(again.prompts, People(again.people)).get(hers) == ASKED
    assert broken_links(again) == []
    assert [row.action for row in Audit(again.audit_url).rows()] == ["erasure", "restore"]
    assert [row.action for row in Audit(home.audit_url).rows()] == ["erasure", "backup"]
    assert privacy.backup_folders(again) == [str(tmp_path / "backups")]


def test_a_backup_under_load_holds_exactly_the_record_up_to_its_position(home, tmp_path):
    """A thread decides 200 times a second meanwhile; what it decided before is there, what after is not."""
    stop, grown, failed = threading.Event(), threading.Condition(), []
    rng, ada = np.random.default_rng(1), person(home)
    with home.open_record() as record:

        def serve() -> None:
            for i in itertools.count():
                try:
                    with grown:
                        record.append(*drawn(rng, i, ada))
                        grown.notify_all()
                except PilotageError as error:
                    failed.append(error)
                if stop.wait(0.005):
                    return

        def wait_for_more(_: str) -> None:
            with grown:
                until = record.head() + 20
                assert grown.wait_for(lambda: record.head() >= until, timeout=60)

        started = record.head()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            found = back_up(home, tmp_path / "backups", done=wait_for_more)
        finally:
            stop.set()
            thread.join()
        assert failed == []
        assert (
            started + 20 <= found.position <= record.head() - 5 * 20
        )  # rows came before the backup began, and behind its position
        before = [row for row in rows(record) if row.position <= found.position]
        restore(found.path, tmp_path / "new", NOW)
        again = Home(tmp_path / "new")
        with again.open_record() as other:
            assert other.head() == found.position
            assert [repr(row) for row in rows(other)] == [repr(row) for row in before]
    config, domain = config_of(home), config_of(home).domains["own"]
    settings = config.night.model_copy(update={"trials": 1})
    learned = privacy.night.learn(feedback(before, HERE, domain, NOW), domain, settings)
    judged = privacy.night.judge(learned, settings)
    policy, _ = privacy.learned_from(again, config, HERE, NOW)
    assert content_hash(policy.freeze().arrays) == content_hash(judged.policies[judged.guard.chosen].freeze().arrays)


def test_nothing_of_a_person_can_be_read_in_a_backup_once_the_key_is_gone(home, tmp_path):
    """No plaintext before either; and after an erasure no key that is left opens a row of hers."""
    ada = person(home)
    with home.open_record() as record:
        hers = [entry.id for _, entry in rows(record) if isinstance(entry, Decision) and entry.user == ada]
    number = People(home.people).number("acme", ada)
    folder = back_up(home, tmp_path / "backups").path
    opened = People(tmp_path / "backups" / "people.db").numbered()
    stored = b"".join(tree(folder).values())
    for secret in (MARK.tobytes(), ada.encode(), ASKED.encode(), *(one.encode() for one in hers)):
        assert secret not in stored
    with closing(sqlite3.connect(folder / "record.db")) as connection:
        sealed = [content for (content,) in connection.execute("SELECT content FROM sealed WHERE person=?", [number])]
    assert len(sealed) == 2 * len(hers) + 2  # and what she spent: today's sum, and a line
    assert ada.encode() in unseal(opened[number], sealed[0])

    privacy.erase(home, config_of(home), "acme", ada, NOW)

    left = People(tmp_path / "backups" / "people.db").numbered() | People(home.people).numbered()
    assert left.keys() == opened.keys() - {number}
    for key, content in itertools.product(left.values(), sealed):
        with pytest.raises(KeyFileError):
            unseal(key, content)
    everywhere = b"".join(tree(tmp_path).values())
    for secret in (opened[number], MARK.tobytes(), ada.encode(), ASKED.encode()):
        assert secret not in everywhere


def test_whoever_was_erased_since_the_backup_stays_erased(home, tmp_path):
    """Tombstones at the same positions, nobody else misses a row, and the policy never saw the person."""
    folder = back_up(home, tmp_path / "backups").path
    ada, config = person(home), config_of(home)
    report = privacy.erase(home, config, "acme", ada, NOW)

    restored = restore(folder, tmp_path / "new", NOW)

    again = Home(tmp_path / "new")
    assert restored.erased == report.decisions + report.outcomes == 40
    assert restored.epoch == report.epoch == 3
    before, after = table_rows(home), table_rows(again)
    for table in (DECISIONS, OUTCOMES, TOMBSTONES, EPOCHS, HEAD, META):
        assert after[table.name] == before[table.name]
    assert after["budget_sums"] == before["budget_sums"]
    assert (after["budget_tenants"], SEALED.name in after) == (before["budget_tenants"], False)
    found = [load(one.snapshots, HERE, trusted=trusted_keys(one.root), now=NOW).manifest for one in (home, again)]
    assert found[0].content == found[1].content
    assert [one.version for one in found] == ["000002", "000002"]
    assert restored.snapshots == {str(HERE): "000002"}
    assert sorted(path.name for path in (again.snapshots / str(HERE)).iterdir()) == ["000002"]
    with closing(sqlite3.connect(again.prompts)) as connection:
        assert connection.execute("SELECT count(*) FROM prompts").fetchone() == (0,)
    everything = b"".join(tree(again.root).values())
    for secret in (ada.encode(), MARK.tobytes(), ASKED.encode()):
        assert secret not in everything
    assert broken_links(again) == []
    assert "40 rows that were erased" in restored.render()


def test_what_is_older_than_its_tenant_keeps_does_not_come_back(home, tmp_path):
    """The tenant wanted it erased, whatever backup still has it."""
    path = home.root.parent / "pilotage.toml"
    path.write_text(TOML.replace("[tenants.rival]", "[tenants.rival]\nretention_days = 1.0"))
    folder = back_up(home, tmp_path / "backups").path

    restored = restore(folder, tmp_path / "new", NOW + 2 * DAY)

    with Home(tmp_path / "new").open_record() as record:
        assert {entry.scope.tenant for _, entry in rows(record)} == {"acme"}
        assert restored.rows == len(list(rows(record)))


def test_each_backup_brings_the_keys_up_to_date(home, tmp_path):
    """Who came since the last one can be opened; who was erased where nobody reached is not brought back."""
    root = tmp_path / "backups"
    back_up(home, root)
    ada = person(home)
    home.backups.unlink()  # an erasure does not find the folder
    privacy.erase(home, config_of(home), "acme", ada, NOW)
    assert People(root / "people.db").number("acme", ada) is not None
    with home.open_record() as record:
        record.append(*drawn(np.random.default_rng(5), 0, "f" * 32))

    second = back_up(home, root, NOW + 1.0)

    assert People(root / "people.db").number("acme", ada) is None
    for private in (root, second.path, root / "people.db", second.path / "record.db"):
        assert private.stat().st_mode & 0o077 == 0
    assert restore(second.path, tmp_path / "new", NOW + 1.0).erased == 0
    assert table_rows(Home(tmp_path / "new")) == table_rows(home)


def test_older_backups_go_once_the_new_one_is_whole(home, tmp_path):
    """keep_days: 30, and nothing else in the folder is touched."""
    root = tmp_path / "backups"
    old, young = (back_up(home, root, NOW - days * DAY) for days in (31, 29))
    (root / "notes").mkdir()

    new = back_up(home, root, NOW)

    assert new.removed == (old.path.name,)
    assert whole(root) == sorted([young.path, new.path, root / "notes"])


def test_a_backup_of_each_older_format_comes_back(tmp_path):
    """The golden files, made by golden/make_backup.py."""
    for number in range(1, FORMAT + 1):
        with tarfile.open(GOLDEN / f"backup-{number}.tar.gz") as archive:
            archive.extractall(tmp_path / str(number), filter="data")
        (folder,) = (tmp_path / str(number) / "backups").glob("2*")

        restore(folder, tmp_path / f"new-{number}", NOW)

        again = Home(tmp_path / f"new-{number}")
        with again.open_record() as record:
            assert known(told(record)) == known(json.loads((GOLDEN / f"backup-{number}.json").read_text()))
            asked = record.decision("a", "acme")
        assert Prompts(again.prompts, People(again.people)).get(asked) == "about my knee"


def test_a_home_that_nothing_happened_in_can_be_backed_up(tmp_path):
    """An empty record, no audit, no snapshot."""
    (tmp_path / "pilotage.toml").write_text(TOML)
    found = back_up(Home(tmp_path / "home"), tmp_path / "backups")

    assert (found.position, found.rows) == (0, 0)
    assert restore(found.path, tmp_path / "new", NOW).rows == 0


def test_a_record_on_a_server_is_backed_up_into_a_file(made, postgres_url, tmp_path):
    """The same rows come back in SQLite."""
    elsewhere = Home(tmp_path / "home", postgres_url)
    (tmp_path / "pilotage.toml").write_text(TOML)
    rng = np.random.default_rng(3)
    with elsewhere.open_record() as record:
        record.append(*itertools.chain(*(drawn(rng, i, person(elsewhere)) for i in range(60))))
        expected = [repr(row) for row in rows(record)]

    restore(back_up(elsewhere, tmp_path / "backups").path, tmp_path / "new", NOW)

    with Home(tmp_path / "new").open_record() as record:
        assert [repr(row) for row in rows(record)] == expected
