"""The tasks of Prefect that run the pilot ask the configured model for the summary, as the command line does."""

from __future__ import annotations

import pytest

from graphs.state import PilotRequest
from tests.graphs.test_author import check_door, laid_out
from tests.service.test_chatting import providers


def the_run(inbox):
    from flows.pilot import run

    return run.fn(PilotRequest("acme", "lab", [inbox]), None)


def the_inbox(inbox):
    from flows.pilot import read_inbox

    return read_inbox.fn(PilotRequest("acme", "lab", ()), str(inbox))


@pytest.mark.parametrize("task", [the_run, the_inbox])
def test_a_task_asks_for_it(place, tmp_path, monkeypatch, task):
    """`place` is where Prefect itself lives."""
    with providers("one", "two") as servers:
        home, inbox = laid_out(tmp_path, servers, monkeypatch)
        check_door(home, task(inbox).to_dict())
