"""`pilotage watch`: a process of its own that looks after every rollout, whatever becomes of those who serve."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from bandits.config import Config
from bandits.errors import PilotageError
from bandits.home import Home
from bandits.rollout.controller import PAUSE_S, Controller
from bandits.rollout.machine import Order
from bandits.types import Scope

IDLE_S = 1.0  # between two looks while no canary serves
AGAIN_S = 5.0  # before the record is opened again when it could not be
FIRST = "the first policy"  # what serves before all snapshots


def watch(
    home: Home,
    config: Config,
    tell: Callable[[str], None],
    stop: threading.Event,
    clock: Callable[[], float] = time.time,
) -> None:
    """Look after the rollouts of all configured scopes until `stop`; tell each order and each new fault in one line."""
    while not stop.is_set():
        try:
            with home.open_record() as record:
                looked = {scope: Controller(home, config, scope, record, clock) for scope in config.scopes()}
                _watch(looked, tell, stop)
        except (PilotageError, OSError) as error:
            tell(f"cannot watch: {error}")
            stop.wait(AGAIN_S)


def says(order: Order) -> str:
    """Who serves by an order, and what became of its candidate, in words."""
    stable, about = order.stable or FIRST, order.candidate or FIRST
    match order.phase:
        case "waiting":
            return f"{about} waits for approval; {stable} serves"
        case "canary":
            others = f"{stable} the others" if order.share < 1.0 else f"{stable} stands by"
            return f"{about} serves {100.0 * order.share:g}% of users, {others}"
        case "complete":
            return f"{about} serves everybody"
        case "rolled back":
            return f"rolled back from {about}: {stable} serves"
        case "aborted":
            return f"{about} was given up; {stable} serves"


def render(order: Order) -> str:
    """One line: what an order says, and why."""
    return f"{order.scope}  order {order.number}  {says(order)}. {order.who}: {order.why}"


def _watch(looked: dict[Scope, Controller], tell: Callable[[str], None], stop: threading.Event) -> None:
    numbers: dict[Scope, int] = {}
    faults: dict[Scope, str] = {}
    active: set[Scope] = set()
    while not stop.wait(PAUSE_S if active else IDLE_S):
        for scope, controller in looked.items():
            try:
                order, _, fault = controller.look()
            except (PilotageError, OSError) as error:
                order, fault = None, str(error)
            if fault is not None and faults.get(scope) != fault:
                tell(f"{scope}  FAULT {fault}")
            faults[scope] = fault or ""
            if order is None:
                continue
            if numbers.get(scope) != order.number:
                numbers[scope] = order.number
                tell(render(order))
            (active.add if order.active else active.discard)(scope)
