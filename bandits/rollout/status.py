"""How far a rollout is, for a person or a machine."""

from __future__ import annotations

import math
import textwrap
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bandits.config import Config
from bandits.rollout.evidence import ALPHAS, Evidence
from bandits.rollout.machine import Order
from bandits.rollout.orders import OrderBook, Seen
from bandits.rollout.watching import FIRST, says
from bandits.snapshots.keys import trusted_keys
from bandits.snapshots.loading import list_versions
from bandits.types import Scope

if TYPE_CHECKING:
    from bandits.home import Home

WIDTH = 80  # of a terminal


@dataclass(frozen=True, slots=True)
class Status:
    """What the orders of a scope say, and the evidence behind a rollout that is under way."""

    scope: Scope
    orders: tuple[Order, ...]  # lowest first; none where the newest good snapshot serves
    stable: str | None  # version that serves all whom no canary serves; None: the first policy
    leased: bool = False  # a fresh lease is there, so the canary serves
    verdict: str = "hold"
    why: str = "no rollout is under way"
    sample: int = 0  # outcomes of the canary in this stage
    log_e: dict[str, float] = field(default_factory=dict)  # natural logarithm of each e-process
    needed: dict[str, float] = field(default_factory=dict)  # where it has decided
    fault: str | None = None  # why the newest order, or the lease, is not believed

    def as_dict(self) -> dict[str, Any]:
        """For a machine; times are UTC, seconds since the epoch."""
        said = ("number", "time", "phase", "stable", "candidate", "share", "who", "why")
        found: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        orders = [{name: getattr(order, name) for name in said} for order in self.orders]
        now = {"phase": self.orders[-1].phase, "share": self.orders[-1].share} if self.orders else {}
        return found | {"scope": str(self.scope), "orders": orders} | ({"phase": None, "share": 0.0} | now)

    def render(self) -> str:
        """For a terminal."""
        lines = [str(self.scope), *map(tell, self.orders), *_lines(f"now: {self._now()}")]
        if self.orders and self.orders[-1].phase == "waiting":
            lines += [f"  pilotage approve {self.scope} --reason ..."]  # in one piece, to be copied
        if self.log_e:
            lines += _lines(f"evidence: {self.verdict}, {self.why}")
            lines += [
                f"  {name:<6}  e^{_shown(value):<5} {_ends(name)} e^{self.needed[name]:.1f}"
                for name, value in self.log_e.items()
            ]
        return "\n".join([*lines, *(_lines(f"FAULT {self.fault}") if self.fault else [])])

    def _now(self) -> str:
        stable, order = self.stable or FIRST, self.orders[-1] if self.orders else None
        if order is None:
            return f"no order was given yet; {stable} serves"
        if order.phase == "waiting":
            return f"{stable} serves until a person approves"
        if order.phase != "canary":
            return f"no rollout is under way; {stable} serves"
        if self.leased:
            return f"{order.candidate} serves {100.0 * order.share:g}% of users, under a fresh lease"
        return f"{stable} serves everybody: no lease is fresh, so nothing that serves or watches found all well"


def tell(order: Order) -> str:
    """An order for a terminal: number, when it was given (UTC), what it says; and below, by whom and why."""
    given = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(order.time))
    return "\n".join(
        [*_lines(f"{order.number:>4}  {given}  {says(order)}"), *_lines(f"{order.who}: {order.why}", "      ")]
    )


def status(home: Home, config: Config, scope: Scope, now: float) -> Status:
    """Fold the record anew and tell. Reads only. Raises RolloutError, RecordError, KeyFileError."""
    trusted, file = trusted_keys(home.root), home.record_file
    seen, orders = Seen(None, None, 0, 0, 0, None), list[Order]()
    if file is None or file.exists():
        book = OrderBook(home.record_url, trusted)
        try:
            seen, orders = book.read(scope), book.history(scope)
        finally:
            book.close()
    order = seen.order
    if order is None:
        listed = list_versions(home.snapshots, scope, trusted=trusted, now=now)
        good = [one.version for one in listed if one.fault is None]
        return Status(scope, (), good[-1] if good else None, fault=seen.fault)
    if not order.active:
        return Status(scope, tuple(orders), order.stable, fault=seen.fault)
    evidence = Evidence(order, config.domains[scope.domain])
    with home.open_record() as record:
        evidence.follow(record)
    judged = evidence.judge(order, seen.lease.served if seen.lease else 0.0)
    log_e = {name: float(getattr(evidence, name).log_e) for name in (*ALPHAS, "safe")}
    needed = {name: -math.log(order.terms.alpha * part) for name, part in ALPHAS.items()}
    needed["safe"] = -math.log(order.terms.effect_alpha)
    leased = seen.lease is not None and seen.lease.holds(now)
    return Status(
        scope,
        tuple(orders),
        order.stable,
        leased,
        judged.outcome,
        judged.why,
        evidence.sample,
        log_e,
        needed,
        seen.fault,
    )


def _ends(name: str) -> str:
    return "a stage is passed from" if name == "safe" else "the rollout ends at"


def _shown(value: float) -> str:
    return f"{round(value, 1) + 0.0:.1f}"  # no minus before a zero


def _lines(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent or "  ", break_on_hyphens=False)
