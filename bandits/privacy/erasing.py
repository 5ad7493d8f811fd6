"""What is kept of a person, and how all of it is taken away.

An erasure is a list of steps, each of which may be done again: whoever kills it in the middle finds it completed by
the next run, since a file in home/erasures names what is still to do until the last step is done. In order:

    record     rows deleted, tombstones at their positions, a new epoch; free pages and log overwritten
    key        prompts deleted; the person's key destroyed, here and beside the backups: what they hold stays shut
    caches     warehouse built anew; checkpoints deleted
    snapshots  of the scopes concerned: learned anew from what is left, published, and all earlier versions deleted
    audit      one row that says that something was erased, and nothing of whom
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bandits.config import Config
from bandits.durable import locked, make_folder, write_new
from bandits.errors import NotEnoughDataError, PilotageError, WarehouseError
from bandits.home import Home
from bandits.money import tables as ledger_tables
from bandits.night import night
from bandits.policy import Policy
from bandits.privacy.people import People
from bandits.privacy.prompts import Prompts
from bandits.record.audit import Audit
from bandits.record.database import open_database
from bandits.record.sql import BUSY_S, SqlRecord
from bandits.record.tables import DECISIONS
from bandits.rollout.giving import replace_all
from bandits.served import first_policy
from bandits.snapshots.keys import signing_key
from bandits.snapshots.loading import latest
from bandits.snapshots.publishing import publish
from bandits.types import Decision, Outcome, Scope
from bandits.warehouse.loading import load, read_feedback, read_runs, write_run

Step = Callable[[str], None]  # told the name of each step when it is done


@dataclass(frozen=True, slots=True)
class Erasure:
    """What is to be erased: a person's rows (`user`, a pseudonym) or a tenant's before a time."""

    tenant: str
    time: float  # of the wish, UTC, seconds since the epoch
    user: str = ""
    before: float | None = None
    scopes: tuple[str, ...] = ()  # whose policies learned from it
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, slots=True)
class Report:
    """What an erasure did."""

    decisions: int
    outcomes: int
    epoch: int
    snapshots: dict[str, str]  # scope -> version that replaced all earlier ones

    def render(self) -> str:
        """For a terminal."""
        if not self.decisions:
            return "nothing was found: either never here, or erased before."
        lines = [f"erased {self.decisions} decisions and {self.outcomes} outcomes; epoch {self.epoch} begins."]
        return "\n".join([*lines, *(f"  {scope}: learned anew as {name}" for scope, name in self.snapshots.items())])


def export(record: SqlRecord, tenant: str, user: str, prompts: Prompts | None = None) -> Iterator[dict[str, Any]]:
    """Everything that is kept of a person: each decision with its outcomes, and its prompt if kept, as plain JSON.

    user: the pseudonym (ids.py). Nothing else names a person: warehouse and snapshots follow from the record.
    """
    query = sa.select(DECISIONS.c.id).where(DECISIONS.c.tenant == tenant, DECISIONS.c.user == user)
    with record.reading() as connection:
        ids = connection.execute(query.order_by(DECISIONS.c.position)).scalars().all()
    for decision_id in ids:
        decision = record.decision(decision_id, tenant)
        prompt = None if prompts is None else prompts.get(decision)
        outcomes = {"outcomes": [_plain(outcome) for outcome in record.outcomes(decision_id)]}
        yield _plain(decision) | outcomes | ({} if prompt is None else {"prompt": prompt})


def erase(home: Home, config: Config, tenant: str, user: str, now: float, done: Step = lambda step: None) -> Report:
    """Take away all that is kept of a person (`user`, a pseudonym). Twice is once. Raises what its steps raise."""
    if not user:
        raise PilotageError("an erasure must name a person, but got nobody; say whom as the app names them.")
    return _begin(home, config, Erasure(tenant, now, user=user, scopes=_scopes(home, tenant, user, None)), done)


def sweep(home: Home, config: Config, now: float, done: Step = lambda step: None) -> dict[str, Report]:
    """Erase what is older than each tenant wants it kept (retention_days); by tenant."""
    found = {}
    for tenant, settings in config.tenants.items():
        if settings.retention_days is not None:
            before = now - settings.retention_days * 86_400.0
            scopes = _scopes(home, tenant, None, before)
            if scopes:
                found[tenant] = _begin(home, config, Erasure(tenant, now, before=before, scopes=scopes), done)
    return found


def complete(home: Home, config: Config) -> list[Report]:
    """Finish the erasures that were interrupted. Cheap where there is none: called before each night and erasure."""
    reports = []
    for path in sorted(home.erasures.glob("*.json")):
        with suppress(FileNotFoundError):  # whoever began it is alive, and has just finished it
            wish = Erasure(**json.loads(path.read_text()))
            reports.append(_run(home, config, wish, path, lambda step: None))
    return reports


def _begin(home: Home, config: Config, wish: Erasure, done: Step) -> Report:
    complete(home, config)
    make_folder(home.erasures)
    path = home.erasures / f"{wish.id}.json"
    write_new(path, json.dumps(asdict(wish)).encode(), 0o600)
    return _run(home, config, wish, path, done)


def _run(home: Home, config: Config, wish: Erasure, path: Path, done: Step) -> Report:
    with locked(home.publishing):
        with home.open_record() as record:
            erased = record.erase(wish.tenant, wish.user or None, wish.before)
            _forget_money(home, wish)
            record.scrub()
            done("record")
            _forget_prompts(home, wish)
            if wish.user:
                _destroy_key(home, wish)
            done("key")
            _rebuild(home, record)
            done("caches")
        scopes = leaning(config, {*map(str, erased.scopes), *wish.scopes})
        published = {scope: learn_anew(home, config, Scope.parse(scope), wish.time) for scope in scopes}
        done("snapshots")
        _seal(home, wish, erased.epoch)
        done("audit")
    path.unlink(missing_ok=True)
    return Report(erased.decisions, erased.outcomes, erased.epoch, {k: v for k, v in published.items() if v})


def leaning(config: Config, scopes: Set[str]) -> list[str]:
    """These scopes, and those whose policies may have leaned on them."""
    return sorted({*scopes, *(str(one) for scope in scopes for one in config.siblings(Scope.parse(scope)))})


def _scopes(home: Home, tenant: str, user: str | None, before: float | None) -> tuple[str, ...]:
    query = sa.select(DECISIONS.c.workspace, DECISIONS.c.domain).where(DECISIONS.c.tenant == tenant).distinct()
    query = query if user is None else query.where(DECISIONS.c.user == user)
    query = query if before is None else query.where(DECISIONS.c.time < before)
    with home.open_record() as record, record.reading() as connection:
        return tuple(sorted(f"{tenant}/{row.workspace}/{row.domain}" for row in connection.execute(query)))


def _forget_money(home: Home, wish: Erasure) -> None:
    database = open_database(home.record_url, BUSY_S)
    try:
        with database.writing.begin() as connection:
            if wish.user and sa.inspect(connection).has_table(ledger_tables.LINES.name):
                ledger_tables.forget(connection, wish.tenant, wish.user)
    finally:
        database.writing.dispose()


def _forget_prompts(home: Home, wish: Erasure) -> None:
    if home.prompts.exists():
        prompts = Prompts(home.prompts, People(home.people))
        if wish.user:
            prompts.forget(wish.tenant, wish.user)
        if wish.before is not None:
            prompts.forget_before(wish.tenant, wish.before)


def _destroy_key(home: Home, wish: Erasure) -> None:
    for path in [home.people, *(Path(folder) / home.people.name for folder in backup_folders(home))]:
        if path.exists():
            People(path).destroy(wish.tenant, wish.user)


def backup_folders(home: Home) -> list[str]:
    """Where this home was ever backed up to."""
    with suppress(FileNotFoundError):
        return list(json.loads(home.backups.read_text()))
    return []


def _rebuild(home: Home, record: SqlRecord) -> None:
    """The warehouse again from the record; the copies of nightly reports, which name nobody, are carried over."""
    shutil.rmtree(home.checkpoints, ignore_errors=True)
    if not home.warehouse.exists():
        return
    try:
        runs = read_runs(home.warehouse)
    except WarehouseError:  # damaged: it is deleted all the same
        runs = []
    fresh = home.warehouse.with_name(f".{home.warehouse.name}-{uuid.uuid4().hex}")
    try:
        load(record, fresh)
        for run in runs:
            write_run(fresh, run)
        home.warehouse.with_name(home.warehouse.name + ".wal").unlink(missing_ok=True)
        os.replace(fresh, home.warehouse)
    finally:
        for left in home.root.glob(f"{fresh.name}*"):
            left.unlink()


def learn_anew(home: Home, config: Config, scope: Scope, now: float) -> str | None:
    """Publish what is learned from what is left, and delete all earlier versions; None if none was ever published."""
    shutil.rmtree(home.trials / str(scope), ignore_errors=True)
    before = latest(home.snapshots, scope)
    if before is None or scope.domain not in config.domains:
        shutil.rmtree(home.snapshots / str(scope), ignore_errors=True)
        return None
    policy, position = learned_from(home, config, scope, now)
    manifest = publish(
        home.snapshots,
        scope,
        policy.freeze(),
        position=position,
        parent=None,
        evidence={"reason": "an erasure began a new epoch; learned anew from what is left"},
        created=now,
        expires=now + config.night.expires_days * 86_400.0,
        key=signing_key(home.root),
    )
    why = "an erasure began a new epoch: all that was learned before is deleted"
    replace_all(home, scope, manifest.version, signing_key(home.root), now, why)
    for folder in (home.snapshots / str(scope)).iterdir():
        if folder.name != manifest.version:
            shutil.rmtree(folder)
    return manifest.version


def learned_from(home: Home, config: Config, scope: Scope, now: float) -> tuple[Policy, int]:
    """What the guard chooses from the log of a scope, and the log's position. No search: same log, same hash."""
    domain = config.domains[scope.domain]
    with home.open_record() as record:
        load(record, home.warehouse)
    feedback = read_feedback(home.warehouse, scope, domain, now)
    settings = config.night.model_copy(update={"trials": 1})
    try:
        judged = night.judge(night.learn(feedback, domain, settings), settings)
    except NotEnoughDataError:
        return first_policy(domain).policy, feedback.position
    return judged.policies[judged.guard.chosen], feedback.position


def _seal(home: Home, wish: Erasure, epoch: int) -> None:
    what = "a person" if wish.user else "what was older than the tenant keeps"
    with Audit(home.audit_url) as audit:
        if any(row.content and row.content["evidence"].get("erasure") == wish.id for row in audit.rows(wish.tenant)):
            return
        evidence = {"erasure": wish.id, "epoch": epoch}
        audit.append(
            "erasure", tenant=wish.tenant, who="privacy", why=f"erased {what}", evidence=evidence, time=wish.time
        )


def _plain(entry: Decision | Outcome) -> dict[str, Any]:
    found = {name: getattr(entry, name) for name in entry.__slots__} | {"scope": str(entry.scope)}
    if isinstance(entry, Decision):
        found |= {"context": entry.context.tolist(), "probabilities": entry.probabilities.tolist()}
        found |= {"excluded": dict(entry.excluded), "slot": str(entry.slot)}
    return found
