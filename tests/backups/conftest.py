"""A home with all that a home can hold, and a backup of it."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest

from bandits.config import load_config
from bandits.home import Home
from bandits.money.ledger import Ledger
from bandits.privacy import erasing as privacy
from bandits.privacy.people import People
from bandits.privacy.prompts import Prompts
from bandits.record.port import rows
from bandits.snapshots.keys import signing_key
from bandits.snapshots.publishing import publish
from bandits.types import Decision
from bandits.warehouse.loading import load as load_warehouse
from bandits.warehouse.loading import write_run
from tests.backups.home import (
    ASKED,
    HERE,
    NOW,
    RUN,
    TOML,
    back_up,
    drawn,
    person,
)


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
