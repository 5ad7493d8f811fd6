"""Each order in the audit chain, once, whoever gave it and wherever its process died."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bandits.durable import locked
from bandits.record.audit import Action, Audit
from bandits.rollout.machine import Order
from bandits.rollout.orders import OrderBook
from bandits.types import Scope

if TYPE_CHECKING:
    from bandits.home import Home


def seal(home: Home, book: OrderBook, scope: Scope) -> int:
    """Put the orders of a scope that are not there yet at the end of the chain; the number of the last.

    The order comes first and holds by itself; the chain follows, under a lock, since it lies in another database.
    Raises AuditError, RolloutError, OSError.
    """
    given = book.history(scope)
    with locked(home.root / "rollout.lock"), Audit(home.audit_url) as audit:
        there = {_number(row.content, scope) for row in audit.rows(scope.tenant)}
        for order in given:
            if order.number not in there:
                action: Action = "rollback" if order.phase == "rolled back" else "rollout"
                audit.append(
                    action,
                    tenant=scope.tenant,
                    who=order.who,
                    why=order.why,
                    evidence=_evidence(order),
                    time=order.time,
                )
    return given[-1].number if given else 0


def _number(content: object, scope: Scope) -> int:
    evidence = content["evidence"] if isinstance(content, dict) else {}
    same = isinstance(evidence, dict) and evidence.get("scope") == str(scope)
    return int(evidence.get("order", 0)) if same else 0


def _evidence(order: Order) -> dict[str, object]:
    return {
        "scope": str(order.scope),
        "order": order.number,
        "phase": order.phase,
        "stable": order.stable,
        "candidate": order.candidate,
        "share": order.share,
    }
