"""A night rehearsed on the real thing: server, worker, a scheduled run, one on demand. `make night` runs it.

On the record that a home holds (`make demo SERVE=0` leaves one): the schedule of `nights` is moved to the next minute,
and the run that the server makes of it is waited for; then the same night is asked for over the API. The first must
leave its run in the warehouse; the second must change nothing. Exit 1 where either does not.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx

from bandits.config import home, load_config
from bandits.errors import PilotageError
from bandits.home import Home
from bandits.warehouse.loading import load, read_runs
from flows.laptop import laptop

T = TypeVar("T")
_WAIT_S = 600.0
_STARTED = ("RUNNING", "COMPLETED", "FAILED", "CRASHED")
_KEPT = ("snapshots", "trials", "audit.db", "studies.journal")  # what a night may change, besides its run


def main() -> int:
    """Rehearse; 0 where all was seen."""
    place = Home(home())
    if not (place.record_file or place.root).exists():
        raise PilotageError(
            f"a night needs a record, but there is none in {place.root}; run `make demo SERVE=0` first."
        )
    with place.open_record() as record:
        head = load(record, place.warehouse).position
    before = {run["id"] for run in read_runs(place.warehouse)}
    _say(f"Record of {head} rows in {place.root}; {len(load_config().scopes())} scope(s). Starting Prefect ...")
    with laptop(Path(os.environ.get("PILOTAGE_ROOT", Path.cwd())), _free_port()) as url:
        api = httpx.Client(base_url=url, timeout=30.0)
        deployment = _wait(lambda: api.get("/deployments/name/nights/nightly").raise_for_status().json())
        _say("Scheduled for the next minute ...")
        scheduled = _scheduled(api, deployment["id"])
        _say(f"  run {scheduled['name']}, made by the scheduler: {scheduled['state']['type']}")
        new = [run for run in read_runs(place.warehouse) if run["id"] not in before and "night" in run["report"]]
        for run in new:
            _say(f"  warehouse has run {run['id']} of {run['scope']}: {run['verdict']}")
        first = _state(place)
        _say("The same night again, on demand ...")
        asked = _asked(api, deployment["id"])
        _say(f"  run {asked['name']}, asked for over the API: {asked['state']['type']}")
        second = _state(place)
        _say(f"  snapshots, trials, audit, searches and runs are {'the same' if first == second else 'OTHERS'}")
    seen = scheduled["state"]["type"] == asked["state"]["type"] == "COMPLETED"
    ok = bool(seen and (new or before) and first == second)
    _say("Rehearsed: all as it should be." if ok else "Rehearsed: NOT as it should be; see the lines above.")
    return 0 if ok else 1


def _scheduled(api: httpx.Client, deployment: str) -> dict[str, Any]:
    """The run that the server's own scheduler makes of a schedule that is due each minute, once it is over."""
    before = {run["id"] for run in _runs(api, deployment, *_STARTED)}
    body = [{"active": True, "schedule": {"cron": "* * * * *", "timezone": "UTC"}, "max_scheduled_runs": 1}]
    (made,) = api.post(f"/deployments/{deployment}/schedules", json=body).raise_for_status().json()
    try:
        run = _wait(lambda: next((r for r in _runs(api, deployment, *_STARTED) if r["id"] not in before), None))
    finally:
        api.delete(f"/deployments/{deployment}/schedules/{made['id']}").raise_for_status()
    for later in _runs(api, deployment, "SCHEDULED", "PENDING"):  # of the schedule that is gone
        if later["id"] != run["id"]:
            api.delete(f"/flow_runs/{later['id']}")
    return _over(api, run["id"])


def _runs(api: httpx.Client, deployment: str, *states: str) -> list[dict[str, Any]]:
    wanted = {
        "deployments": {"id": {"any_": [deployment]}},
        "flow_runs": {"state": {"type": {"any_": list(states)}}},
        "sort": "EXPECTED_START_TIME_ASC",
    }
    found = api.post("/flow_runs/filter", json=wanted).raise_for_status().json()
    return [run for run in found if run["auto_scheduled"]]


def _asked(api: httpx.Client, deployment: str) -> dict[str, Any]:
    run = _wait(lambda: api.post(f"/deployments/{deployment}/create_flow_run", json={}).raise_for_status().json())
    return _over(api, run["id"])


def _over(api: httpx.Client, run: str) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = api.get(f"/flow_runs/{run}").raise_for_status().json()
        return found if found["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

    return _wait(ended)


def _wait(check: Callable[[], T | None]) -> T:
    """Ask until there is an answer; a server that is busy (503) is asked again."""
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        try:
            if (found := check()) is not None:
                return found
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                raise
        time.sleep(0.5)
    raise PilotageError(f"Prefect must answer within {_WAIT_S:.0f} s, but did not; see prefect/logs in the home.")


def _state(place: Home) -> str:
    """A digest of all that a night may change."""
    digest = hashlib.sha256(repr([run["id"] for run in read_runs(place.warehouse)]).encode())
    for name in _KEPT:
        top = place.root / name
        for path in sorted(top.rglob("*") if top.is_dir() else [top]):
            if path.is_file():
                digest.update(str(path).encode() + path.read_bytes())
    return digest.hexdigest()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PilotageError as error:
        sys.exit(f"error: {error}")
