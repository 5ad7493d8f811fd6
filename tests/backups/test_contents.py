"""Facts about what a home holds: every name in it is copied, or declared as made again; and nobody forgets to say so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from bandits.backups.contents import HELD, unknown
from bandits.backups.runs import TABLES as RUNS
from bandits.home import Home
from bandits.money import tables as ledger
from bandits.record import tables as record_tables
from bandits.rollout import orders, sealing
from bandits.scheduled import nights
from bandits.types import Scope
from graphs import runs as pilot_runs
from graphs.depth import choosing
from graphs.embed import HashedSvd
from graphs.equipment import library_of
from graphs.kit import equipped
from graphs.pilot import run_pilot
from graphs.state import PilotRequest
from graphs.vectors import Cached
from service.app import create_app
from service.keys import make_key
from tests.backups.home import HERE, NOW, back_up, config_of
from tests.backups.test_trials import put_on_trial

ROOT = Path(__file__).parents[2]
ROOMS = ("bandits", "gateway", "graphs", "service", "flows", "bot", "dashboard", "commands", "benchmarks")
