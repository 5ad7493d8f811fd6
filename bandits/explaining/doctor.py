"""Is this installation well? One check a part, each naming its fault and the mend."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from typing import NamedTuple

from bandits.config import load_config
from bandits.errors import AuditError, ConfigError, PilotageError
from bandits.explaining.audited import broken_links
from bandits.home import Home
from bandits.monitoring.recommend import look, recommend
from bandits.monitoring.trend import DAY
from bandits.rollout.giving import standing
from bandits.settings.catalogue import key_of
from bandits.snapshots.keys import trusted_keys
from bandits.snapshots.reader import SnapshotReader
from bandits.warehouse.loading import opened
from bandits.what_if.counterfactual import read

ADVICE_DAYS = 28.0  # of the log that advice rests on


class Check(NamedTuple):
    """What was looked at, whether it is well, and what was found."""

    name: str
    ok: bool
    found: str


def examine(place: Home) -> list[Check]:
    """All checks, each in its own right: one fault hides no other. Makes no file that was not there."""
    checks: list[tuple[str, Callable[[Home], str]]] = [
        ("configuration", _configuration),
        ("providers", _providers),
        ("home", _home),
        ("record", _record),
        ("warehouse", _warehouse),
        ("snapshots", _snapshots),
        ("audit", _audit),
        ("prefect", _prefect),
        ("advice", _advice),
    ]
    return [_run(name, check, place) for name, check in checks]


def _run(name: str, check: Callable[[Home], str], place: Home) -> Check:
    try:
        return Check(name, True, check(place))
    except (PilotageError, OSError) as error:
        return Check(name, False, str(error))


def _configuration(_: Home) -> str:
    config = load_config()
    return f"{len(config.scopes())} scope(s): {', '.join(map(str, config.scopes()))}"


def _providers(_: Home) -> str:
    """Whether the key of each provider is where the catalogue says. Nothing is called, and no key is shown."""
    found, faults = [], []
    for name, settings in sorted(load_config().providers.items()):
        try:
            key_of(name, settings, os.environ)
        except ConfigError as error:
            faults.append(str(error))
        else:
            found.append(f"{name} has its key" if settings.key_env else f"{name} needs none")
    if faults:
        raise ConfigError(" ".join(faults))
    return "; ".join(found)


def _home(place: Home) -> str:
    if not place.root.exists():
        return f"{place.root} is not there yet; the first command makes it"
    if not os.access(place.root, os.W_OK):
        raise PilotageError(f"{place.root} must be writable by this user; change its owner or set PILOTAGE_HOME.")
    return f"{place.root} is writable"


def _record(place: Home) -> str:
    if place.record_file is not None and not place.record_file.exists():
        return "none yet; the first decision makes it"
    with place.open_record() as record:
        return f"readable, {record.head()} rows"


def _warehouse(place: Home) -> str:
    if not place.warehouse.exists():
        return "none yet; `pilotage load` makes it"
    with opened(place.warehouse) as connection:
        row = connection.execute("SELECT position FROM meta").fetchone()
    return f"readable, loaded up to position {row[0] if row else 0}"


def _snapshots(place: Home) -> str:
    found = []
    trusted = trusted_keys(place.root)
    for scope in load_config().scopes():
        reader = SnapshotReader(place.snapshots, scope, trusted)
        reader.refresh(time.time())
        if reader.current is not None and reader.last_error is not None:
            raise reader.last_error
        version = reader.current.manifest.version if reader.current else None
        if (order := standing(place, scope)) is not None:
            version = order.stable
            told = f", and {order.candidate} to {order.share:.0%} ({order.phase})" if order.active else ""
            found.append(f"{scope} serves {version or 'the first policy'}{told}")
            continue
        if version is None and (place.snapshots / scope.tenant / scope.workspace / scope.domain).exists():
            raise reader.last_error or PilotageError(f"{scope} has a folder of snapshots, but none that serves.")
        found.append(f"{scope} serves {version}" if version else f"{scope} has none yet")
    return "; ".join(found)


def _prefect(_: Home) -> str:
    if importlib.util.find_spec("prefect") is None:
        raise PilotageError("Prefect must be installed for the night; run `make setup`.")
    return "installed"


def _audit(place: Home) -> str:
    faults = broken_links(place)
    if faults:
        raise AuditError(f"the audit chain must be whole, but: {faults[0]}; `pilotage audit verify` tells all.")
    return "whole"


def _advice(place: Home) -> str:
    """What the logs call for: never a fault of the installation."""
    if not place.warehouse.exists():
        return "none: nothing is loaded yet"
    said, config, now = [], load_config(), time.time()
    for scope in config.scopes():
        domain = config.domains[scope.domain]
        log = read(place.warehouse, scope, domain, now, since=now - ADVICE_DAYS * DAY)
        for text, command in recommend(look(log, domain), scope):
            said.append(f"{scope}: {text} See `{command}`.")
    return "\n     ".join(said) or "none: the logs call for nothing"
