"""One Prefect for all tests of this folder: server, worker and deployments, as `make prefect` starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from bandits.home import Home

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A home of its own, for these tests and all processes that they start."""
    root = tmp_path_factory.mktemp("home")
    before = dict(os.environ)
    os.environ |= {"PILOTAGE_HOME": str(root), "PILOTAGE_CONFIG": str(ROOT / "pilotage.toml")}
    os.environ["PREFECT_HOME"] = str(Home(root).prefect)
    yield Home(root)
    os.environ.clear()
    os.environ |= before


@pytest.fixture(scope="session")
def api(place):
    """Server, worker and the deployments of prefect.yaml, as `make prefect` starts them."""
    from flows.laptop import laptop

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with laptop(ROOT, port) as url:
        os.environ["PREFECT_API_URL"] = url
        yield httpx.Client(base_url=url, timeout=30)


def wait_for(check, seconds: float = 120.0):
    """Ask until `check` answers, or fail; a bound, not a measure."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(0.5)
    raise AssertionError(f"nothing within {seconds} s")


def asked(api: httpx.Client, deployment: dict, parameters: dict) -> httpx.Response:
    """The answer to "run this deployment now"; asked again while the server's database is busy (503)."""

    def answer() -> httpx.Response | None:
        found = api.post(f"/deployments/{deployment['id']}/create_flow_run", json={"parameters": parameters})
        return None if found.status_code == 503 else found

    return wait_for(answer)


def ended(api: httpx.Client, run_id: str) -> dict | None:
    """The run, once it is over."""
    found = api.get(f"/flow_runs/{run_id}").json()
    return found if found["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED") else None


def pilotage(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "pilotage", *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )
