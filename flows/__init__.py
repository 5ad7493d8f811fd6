"""Schedules and nightly work: thin Prefect wrappers. Importing this room prepares Prefect's environment."""

from __future__ import annotations

import os

import httpx

from bandits.config import home
from bandits.home import Home


def environment() -> dict[str, str]:
    """What Prefect must be told: its home inside ours, no telemetry, JSON results, time for a first start."""
    return {
        "PREFECT_HOME": str(Home(home()).prefect),
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",  # the default is pickle
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # its first start migrates a new database
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }


def server_fault() -> str | None:
    """Why the server that PREFECT_API_URL names is not ready; None where it is, or where none is named."""
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return None
    try:
        httpx.get(f"{url.rstrip('/')}/ready", timeout=10.0).raise_for_status()  # /health is well without its database
    except httpx.HTTPError as error:
        said = str(error).partition("\n")[0].rstrip(".")
        return f"the Prefect server must answer at {url}, but: {said}. Start it with `make prefect`."
    return None


for _name, _value in environment().items():  # before anything imports prefect, which reads them once
    os.environ.setdefault(_name, _value)
