"""Facts about a Prefect server that is ill or goes away: the night is spent without it, says so, and is spent once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

import flows
from bandits.config import load_config
from bandits.home import Home
from bandits.types import Scope
from bandits.warehouse.loading import read_runs
from tests.flows.conftest import ROOT, pilotage, wait_for
from tests.training.rounds import entries

SCOPE = Scope("demo", "main", "model_routing")


@pytest.fixture
def home(tmp_path, monkeypatch) -> Home:
    """A home with 400 decisions of the last five days."""
    monkeypatch.setenv("PILOTAGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PILOTAGE_CONFIG", str(ROOT / "pilotage.toml"))
    monkeypatch.setenv("PREFECT_HOME", str(Home(tmp_path / "home").prefect))
    home, domain = Home(tmp_path / "home"), load_config().domains[SCOPE.domain]
    with home.open_record() as record:
        record.append(*entries(400, SCOPE, domain.features, domain.arm_names, time.time() - 6 * 86_400.0))
    return home


@pytest.fixture(params=["its database is locked", "it hangs up"])
def ill(request) -> Iterator[str]:
    """The URL of a server that is well if asked for its health, and good for nothing else."""

    class Ill(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if request.param == "it hangs up" and not self.path.endswith("/health"):
                return
            self.send_response(200 if self.path.endswith("/health") else 503)
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            del arguments

    server = ThreadingHTTPServer(("127.0.0.1", 0), Ill)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    server.server_close()


def test_a_server_that_is_ill_is_named(ill, monkeypatch):
    """In one line, whatever it said."""
    monkeypatch.setenv("PREFECT_API_URL", ill)

    fault = flows.server_fault()

    assert fault is not None
    assert fault.startswith(f"the Prefect server must answer at {ill}, but: ")
    assert fault.endswith(". Start it with `make prefect`.")
    assert "\n" not in fault


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_that_is_killed_in_the_middle_of_a_night_takes_nothing_with_it(home, monkeypatch):
    """A real one: the night goes on without, publishes once, and says so; the next one finds it spent."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    environment = {**os.environ, **flows.environment(), "PREFECT_API_URL": url}
    start = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(start, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: _ready(url), 300.0)
        monkeypatch.setenv("PREFECT_API_URL", url)
        night = subprocess.Popen(
            [sys.executable, "-m", "pilotage", "night", "--json"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(home.study.exists, 300.0)  # the search began
        server.kill()
        out, error = night.communicate(timeout=600.0)
    finally:
        server.kill()
        server.wait()

    assert night.returncode == 0, error
    assert f"from here without Prefect: the Prefect server must answer at {url}" in error
    (report,) = json.loads(out)
    assert report["verdict"] == "published"
    assert [run["id"] for run in read_runs(home.warehouse, SCOPE)] == [report["run_id"]]
    (again,) = json.loads(pilotage("night", "--json").stdout)
    assert (again["repeated"], again["run_id"]) == (True, report["run_id"])


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=5.0).status_code == 200
    except httpx.HTTPError:
        return False
