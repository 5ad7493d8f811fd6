"""How far a rollout is, for a person or a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bandits.config import Config
from bandits.errors import RolloutError
from bandits.rollout.evidence import Evidence
from bandits.rollout.orders import OrderBook
from bandits.rollout.watching import render
from bandits.snapshots.keys import trusted_keys
from bandits.types import Scope

if TYPE_CHECKING:
    from bandits.home import Home


@dataclass(frozen=True, slots=True)
class Status:
    """What an order and the evidence behind it say. log_e: natural logarithm of each e-process."""

    orders: tuple[str, ...]  # one line each, lowest first
    phase: str
    share: float
    leased: bool  # a fresh lease is there, so the canary serves
    verdict: str
    why: str
    sample: int
    log_e: dict[str, float]

    def render(self) -> str:
        """For a terminal."""
        lines = [*self.orders, f"now: {self.phase}, {self.share:.0%} under {'a fresh' if self.leased else 'no'} lease"]
        if self.log_e:
            lines.append(f"evidence: {self.verdict}, {self.why}")
            lines += [f"  {name:<7} e^{value:.2f}" for name, value in self.log_e.items()]
        return "\n".join(lines)


def status(home: Home, config: Config, scope: Scope, now: float) -> Status:
    """Fold the record anew and tell. Reads only. Raises RolloutError where no order was ever given, RecordError."""
    with home.open_record() as record:
        book = OrderBook(home.record_url, trusted_keys(home.root))
        try:
            seen, orders = book.read(scope), book.history(scope)
        finally:
            book.close()
        order = seen.order
        if order is None:
            raise RolloutError(f"no order was ever given for {scope}: its newest good snapshot serves.")
        log_e: dict[str, float] = {}
        verdict, why, sample = "hold", "no rollout is under way", 0
        if order.active:
            evidence = Evidence(order, config.domains[scope.domain])
            evidence.follow(record)
            judged = evidence.judge(order, seen.lease.served if seen.lease else 0.0)
            verdict, why, sample = judged.outcome, judged.why, evidence.sample
            processes = {"errors": evidence.errors, "slow": evidence.slow, "drop": evidence.drop, "safe": evidence.safe}
            log_e = {name: float(process.log_e) for name, process in processes.items()}
    leased = seen.lease is not None and seen.lease.holds(now)
    return Status(tuple(map(render, orders)), order.phase, order.share, leased, verdict, why, sample, log_e)
