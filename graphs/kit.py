"""What a run is equipped with, as the configuration has it: the same for the command line, the service and Prefect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bandits.config import Config
from bandits.home import Home
from graphs.author import Answering, author_of
from graphs.depth import Choose, choosing
from graphs.equipment import equipped as with_library
from graphs.equipment import library_of
from graphs.fetch import Guard
from graphs.runs import RunStore
from graphs.steps import table


def options_of(
    home: Home, config: Config, choose: Choose | None = None, answering: Answering | None = None
) -> dict[str, Any]:
    """Options of run_pilot: its steps, and the library that holds what was read.

    choose: how deep that is.   answering: the gateway of a process that has one (see author_of).
    """
    library = library_of(config.embedding, home.root)
    steps = with_library(table(Guard.of(config.pilot), choose), library, author_of(home, config, answering))
    return {"steps": steps, "store": library}


@contextmanager
def equipped(home: Home, config: Config, tenant: str, workspace: str) -> Iterator[tuple[RunStore, dict[str, Any]]]:
    """The store of runs, and options of run_pilot, for as long as this lasts. Raises RunsError, RecordError."""
    with (
        RunStore.at(home, keep_days=config.pilot.keep_days) as runs,
        choosing(home, config, tenant, workspace) as choose,
    ):
        yield runs, options_of(home, config, choose)
