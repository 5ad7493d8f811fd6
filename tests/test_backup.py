"""Facts about backups: the home comes back to the last bit, and whoever was erased stays erased in every backup."""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import signal
import sqlite3
import tarfile
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bandits import privacy
from bandits.audit import Audit
from bandits.audited import broken_links
from bandits.backup import FORMAT, Backup, backup, sealed_manifest
from bandits.backup_rows import SEALED
from bandits.config import Config, load_config
from bandits.errors import BackupError, KeyFileError, PilotageError
from bandits.ids import IdRing
from bandits.keys import signing_key, trusted_keys
from bandits.ledger import Ledger
from bandits.people import People, unseal
from bandits.prompts import Prompts
from bandits.record import rows
from bandits.record_tables import DECISIONS, EPOCHS, HEAD, META, OUTCOMES, TOMBSTONES
from bandits.restore import check, restore
from bandits.rewards import feedback
from bandits.serving import Home
from bandits.snapshots import content_hash, load, publish
from bandits.testing import sample_decision
from bandits.types import Decision, Outcome, Scope, new_id
from bandits.warehouse import load as load_warehouse
from bandits.warehouse import read_runs, write_run
from tests.golden.make_backup import told
from tests.logs import truth

GOLDEN = Path(__file__).parent / "golden"

TOML = """
[tenants.acme]
store_prompts = true
[tenants.acme.caps]
usd_per_user_day = 1.0
[tenants.rival]
[night]
min_rounds = 20
learners = ["linear"]
[domains.own]
features = "vector-2"
budget_usd_per_request = 6e-4
[[domains.own.arms]]
name = "cheap"
model = "cheap"
usd_per_request = 1e-4
[[domains.own.arms]]
name = "dear"
model = "dear"
usd_per_request = 1e-3
"""
HERE, THERE = Scope("acme", "main", "own"), Scope("rival", "main", "own")
NOW, DAY = 1_790_000_000.0, 86_400.0
MARK = np.array([0.123456789, -0.987654321], np.float32)  # the context of one person, and of no other
ASKED = "what shall I do about my knee"
RUN = {"id": "run-1", "scope": str(HERE), "time": 1.0, "verdict": "kept", "report": {"n": 0.1}}
STEPS = ("begun", "record", "files", "people", "manifest", "renamed", "old")


def person(home: Home) -> str:
    return IdRing(home.root).pseudonym("acme", "Ada Lovelace")


def drawn(rng: np.random.Generator, i: int, ada: str) -> tuple[Decision, Outcome]:
    """The i-th decision and what came back: every sixth Ada's, every third nobody's, the others each somebody's."""
    scope = (HERE, THERE)[i % 2]
    user = ada if i % 6 == 0 else "" if i % 3 == 0 else f"{i % 7:032x}"
    context = MARK if user == ada else rng.normal(size=2).astype(np.float32)
    action = int(rng.random() < 0.4)
    quality = float(np.clip(truth(context[None, :])[0, 2 * action] + rng.normal(0, 0.1), 0, 1))
    decision = sample_decision(
        new_id(NOW - 100.0 + i / 10, rng.bytes(10)), time=NOW - 100.0 + i / 10, scope=scope, schema="vector-2",
        context=context, arms=("cheap", "dear"), probabilities=np.array([0.6, 0.4]), action=action,
        propensity=(0.6, 0.4)[action], user=user, excluded={}, forced=False,
    )  # fmt: skip
    return decision, Outcome(decision.id, decision.time + 1.0, scope, quality=quality, cost_usd=(1e-4, 1e-3)[action])


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A home with two tenants, people, a published policy, prompts, money, a report, an audit row and an erasure."""
    folder = tmp_path_factory.mktemp("made")
    home, config = Home(folder / "home"), folder / "pilotage.toml"
    config.write_text(TOML)
    settings = load_config(config)
    rng, ada = np.random.default_rng(0), person(home)
    with home.open_record() as record:
        record.append(*itertools.chain(*(drawn(rng, i, ada) for i in range(120))))
        (hers, *_) = [e for _, e in rows(record) if isinstance(e, Decision) and e.user == ada]
        load_warehouse(record, home.warehouse)
    Prompts(home.prompts, People(home.people)).put(hers, ASKED)
    with Ledger(home.record_url, {name: one.caps for name, one in settings.tenants.items()}) as ledger:
        for user, spent in ((ada, 250_000_000), ("", 500_000_000)):
            ledger.reserve("acme", user, spent, NOW)
    privacy.erase(home, settings, "rival", f"{1:032x}", NOW)
    policy, position = privacy.learned_from(home, settings, HERE, NOW)
    publish(
        home.snapshots, HERE, policy.freeze(), position=position, parent=None, evidence={}, created=NOW,
        expires=NOW + 1e7, key=signing_key(home.root),
    )  # fmt: skip
    write_run(home.warehouse, RUN)
    return folder


@pytest.fixture
def home(made, tmp_path) -> Home:
    """A copy of it."""
    shutil.copytree(made, tmp_path / "made")
    return Home(tmp_path / "made" / "home")


@pytest.fixture(scope="module")
def backed_up(made) -> Path:
    """Where it was backed up to, once."""
    home = made.parent / "backed-up" / "home"
    shutil.copytree(made, home.parent)
    return back_up(Home(home), made.parent / "root").path


@pytest.fixture
def folder(backed_up, tmp_path) -> Path:
    """A copy of that backup, and of the keys beside it."""
    shutil.copytree(backed_up.parent, tmp_path / "backups")
    return tmp_path / "backups" / backed_up.name


def config_of(home: Home) -> Config:
    return load_config(home.root.parent / "pilotage.toml")


def back_up(home: Home, root: Path, now: float = NOW, **settings: object) -> Backup:
    return backup(home, home.root.parent / "pilotage.toml", root, now, **settings)


def table_rows(home: Home) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table of the record, as SQLite has it."""
    with closing(sqlite3.connect(home.root / "record.db")) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: sorted(connection.execute(f"SELECT * FROM {name}"), key=repr) for name in names}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def whole(root: Path) -> list[Path]:
    """The backups there; nothing else but the keys of people may be."""
    found = sorted(path for path in root.iterdir() if path.is_dir())
    assert [path.name for path in root.iterdir() if path.name.startswith(".")] == []
    return found


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


@pytest.mark.parametrize("step", STEPS)
def test_a_backup_that_is_killed_is_made_by_the_next_run(home, tmp_path, step):
    """SIGKILL behind each step: no half of one is ever under a name, and nothing is left lying about."""
    root = tmp_path / "backups"
    first = back_up(home, root, NOW - 40 * DAY)
    assert in_a_child(lambda: back_up(home, root, NOW, done=killer(step))) == -signal.SIGKILL
    for path in root.glob("2*"):
        check(path)

    second = back_up(home, root, NOW + 1.0)

    assert second.path in whole(root)
    assert first.path not in whole(root)
    assert check(second.path)["rows"] == second.rows


@pytest.mark.parametrize("step", ["files", "record", "warehouse", "snapshots", "renamed"])
def test_a_restore_that_is_killed_leaves_no_half_home(home, tmp_path, step):
    """Behind each step there is either no home, and the next run makes it, or a whole one."""
    folder = back_up(home, tmp_path / "backups").path
    target = tmp_path / "there" / "new"
    assert in_a_child(lambda: restore(folder, target, NOW, killer(step))) == -signal.SIGKILL

    if step != "renamed":
        assert not target.exists()
        restore(folder, target, NOW)
    assert table_rows(Home(target)) == table_rows(home)
    assert [path.name for path in target.parent.iterdir()] == ["new"]


def test_a_full_disk_is_told_and_harms_no_older_backup(home, tmp_path):
    """No file may grow beyond 8 KiB: the record does not fit."""
    root = tmp_path / "backups"
    first = back_up(home, root, NOW - 40 * DAY)
    before, said = tree(first.path), tmp_path / "said"
    said.write_bytes(b"")

    def fill() -> None:
        descriptor = os.open(said, os.O_WRONLY)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, resource.RLIM_INFINITY))
        try:
            back_up(home, root, NOW)
        except BackupError as error:
            os.write(descriptor, str(error).encode())

    assert in_a_child(fill) == 0
    assert "check free space" in said.read_text()
    assert str(root) in said.read_text()
    assert whole(root) == [first.path]
    assert tree(first.path) == before


def test_older_backups_go_once_the_new_one_is_whole(home, tmp_path):
    """keep_days: 30, and nothing else in the folder is touched."""
    root = tmp_path / "backups"
    old, young = (back_up(home, root, NOW - days * DAY) for days in (31, 29))
    (root / "notes").mkdir()

    new = back_up(home, root, NOW)

    assert new.removed == (old.path.name,)
    assert whole(root) == sorted([young.path, new.path, root / "notes"])


@pytest.mark.parametrize("name", ["record.db", "audit.db", "pilotage.toml", "keys/signing.key", "manifest.json"])
def test_a_changed_byte_is_refused(folder, tmp_path, name):
    """In any file; nothing is built."""
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(BackupError, match=r"sha256|changed|must be JSON"):
        restore(folder, tmp_path / "new", NOW)
    assert not (tmp_path / "new").exists()


def test_a_changed_manifest_is_refused(folder, tmp_path):
    """It vouches for itself, too: a position that somebody corrected is no position that was written."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"position": 1}))

    with pytest.raises(BackupError, match="must have the sha256 that stands in it"):
        restore(path.parent, tmp_path / "new", NOW)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": 2}, "format must be 1, but is 2"),
        ({"format": None}, "format must be 1, but is None"),
        ({"record": 99}, "version 3 or an older one, but has 99"),
        ({"people": 10_000}, "as new as it"),
    ],
)
def test_a_backup_of_a_foreign_version_is_refused(folder, tmp_path, change, match):
    """Before anything of it is read."""
    content = json.loads((folder / "manifest.json").read_text()) | change
    (folder / "manifest.json").write_bytes(sealed_manifest(content))

    with pytest.raises(BackupError, match=match):
        restore(folder, tmp_path / "new", NOW)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_no_whole_backup_is_refused(folder, tmp_path):
    """Missing, with a file too many, or without the keys of people beside it."""
    with pytest.raises(BackupError, match=r"manifest.json must be there"):
        restore(tmp_path / "backups", tmp_path / "new", NOW)
    (folder / "keys" / "extra.pub").write_text("")
    with pytest.raises(BackupError, match=r"keys/extra\.pub"):
        restore(folder, tmp_path / "new", NOW)
    (folder / "keys" / "extra.pub").unlink()
    (tmp_path / "backups" / "people.db").unlink()
    with pytest.raises(BackupError, match="keys of people must be beside it"):
        restore(folder, tmp_path / "new", NOW)
    assert not (tmp_path / "new").exists()


def known(said):
    """What is told, without the fields that hold nothing: an older format did not know them."""
    entries = [{k: v for k, v in entry.items() if v not in ("", None)} for entry in said["entries"]]
    return said | {"entries": entries}


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


def test_a_home_in_use_is_left_alone(home, tmp_path):
    """Restoring never overwrites."""
    folder = back_up(home, tmp_path / "backups").path
    before = tree(home.root)

    with pytest.raises(BackupError, match="empty home"):
        restore(folder, home.root, NOW)
    assert tree(home.root) == before


def test_two_homes_do_not_share_a_folder(home, tmp_path):
    """One would overwrite the other's keys of people; but the home that was restored from there goes on."""
    found = back_up(home, tmp_path / "backups")
    config = home.root.parent / "pilotage.toml"
    with pytest.raises(BackupError, match="backups of one home"):
        backup(Home(tmp_path / "stranger"), config, tmp_path / "backups", NOW)

    restore(found.path, tmp_path / "new", NOW)
    assert backup(Home(tmp_path / "new"), config, tmp_path / "backups", NOW + 1.0).rows == found.rows


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


def in_a_child(work) -> int:
    """The exit code of a fork that does the work; minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killer(step: str):
    def kill(done: str) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill
