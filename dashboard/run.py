"""Start the dashboard: Streamlit in a process of its own, on this machine only, asking nobody else for anything."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bandits.errors import PilotageError

HOST = "127.0.0.1"
_START_S = 60.0
_PAUSE_S = 0.1
_FLAGS = {
    "server.address": HOST,
    "server.headless": "true",  # asks for no e-mail address, opens no browser by itself
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": "false",
    "browser.serverAddress": HOST,
    "logger.level": "warning",
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "theme.base": "light",
    "theme.primaryColor": "#0072B2",
    "theme.textColor": "#1F2937",
    "theme.secondaryBackgroundColor": "#F6F7F9",
}


class DashboardError(PilotageError):
    """The dashboard did not start: its port is taken, or Streamlit ended."""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard that runs. Leave its `with` block, or call stop(), to end it."""

    address: str
    process: subprocess.Popen[bytes]

    def wait(self) -> None:
        """Wait until it ends; Ctrl-C ends it."""
        try:
            self.process.wait()
        except KeyboardInterrupt:
            self.stop()

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(10.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(port: int = 8501, open_browser: bool = False) -> Dashboard:
    """Start the dashboard, wait until it answers, print and return its address.

    It reads $PILOTAGE_HOME and $PILOTAGE_CONFIG as every command does.
    port: 0 takes any that is free.   Raises DashboardError.
    """
    port = _free(port)
    root = Path(__file__).resolve().parent.parent
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    flags = [f"--{name}={value}" for name, value in (_FLAGS | {"server.port": str(port)}).items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", str(root / "dashboard" / "app.py"), *flags],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # its banner; errors go to stderr, which stays
    )
    found = Dashboard(f"http://{HOST}:{port}", process)
    try:
        _await(process, port)
    except BaseException:
        found.stop()
        raise
    print(f"The dashboard is at {found.address} (Ctrl-C ends it).", flush=True)  # noqa: T201 - a command's answer
    if open_browser:
        webbrowser.open(found.address)
    return found


def _free(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise DashboardError(
                f"the dashboard's port must be free, but {HOST}:{port} says: {error}; choose another with --port, "
                "or stop what listens there."
            ) from error
        return int(probe.getsockname()[1])


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DashboardError(
                f"the dashboard must start, but Streamlit ended with code {process.returncode}; "
                "what it said stands above."
            )
        if _healthy(port):
            return
        time.sleep(_PAUSE_S)
    raise DashboardError(f"the dashboard must answer within {_START_S:g} s, but {HOST}:{port} does not; try again.")


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2.0)
    try:
        connection.request("GET", "/_stcore/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
