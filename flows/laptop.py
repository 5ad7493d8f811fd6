"""Prefect on a laptop: server, deployments of prefect.yaml and one process worker. `make prefect` runs it.

On several hosts the same prefect.yaml deploys to any server; only this file knows that they share a machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

import flows
from bandits.config import home
from bandits.errors import PilotageError
from bandits.home import Home

POOL = os.environ.get("PILOTAGE_POOL", "local")
_START_S = 180.0  # a new home migrates its database first


@contextmanager
def laptop(root: Path, port: int = 4200) -> Iterator[str]:
    """Start all three for the checkout at `root`; yield the API's URL; stop all on the way out.

    Raises PilotageError when the server does not come up or a deployment is refused.
    """
    url = f"http://127.0.0.1:{port}/api"
    environment = {
        **os.environ,
        **flows.environment(),
        "PREFECT_API_URL": url,
        "PREFECT_UI_API_URL": url,
        "PILOTAGE_ROOT": str(root),
        "PILOTAGE_HOME": str(home()),
        "PILOTAGE_POOL": POOL,
        "PREFECT_LOGGING_LEVEL": "INFO",
    }
    logs = Home(home()).prefect / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    running: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (logs / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "prefect", *arguments], cwd=root, env=environment, stdout=log, stderr=log
            )
        running.append(process)
        return process

    def run(module: str, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = f"{done.stdout}{done.stderr}"
            raise PilotageError(f"`{module} {' '.join(arguments)}` must succeed, but says: {said}")

    try:
        server = start("server", "server", "start", "--host", "127.0.0.1", "--port", str(port))
        deadline = time.monotonic() + _START_S
        while not _healthy(f"{url}/health"):
            if server.poll() is not None or time.monotonic() > deadline:
                raise PilotageError(
                    f"the Prefect server must come up on port {port}, but did not; see {logs}/server.log."
                )
            time.sleep(0.2)
        run("prefect", "--no-prompt", "work-pool", "create", POOL, "--type", "process", "--overwrite")
        run("prefect", "--no-prompt", "deploy", "--all")
        run("flows.automations")
        start("worker", "worker", "start", "--pool", POOL, "--limit", "2")
        yield url
    finally:
        for process in reversed(running):
            process.send_signal(signal.SIGINT)
        for process in running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def main() -> None:
    """Run until Ctrl-C."""
    port = int(os.environ.get("PILOTAGE_PREFECT_PORT", "4200"))
    print("Starting Prefect; the first time takes half a minute ...", flush=True)  # noqa: T201
    with laptop(Path(os.environ.get("PILOTAGE_ROOT", Path.cwd())), port) as url:
        print(f"Prefect is at {url.removesuffix('/api')} (Deployments > Run). Ctrl-C stops it.", flush=True)  # noqa: T201
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("Stopping ...")  # noqa: T201


def _healthy(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    main()
