"""Is this report news, or one that was heard already? Feedback is sent twice by retries, impatience and malice.

The record keeps one outcome for each key of a decision (Outcome.key). An app that names its events gets exactly that.
From one that does not, a report is news when it says something else than the last one of its kind did: who takes 👍
back and gives it again has said nothing new, who changes to 👎 has, and so has who changes back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from bandits.types import Outcome

_MEASURES = ("quality", "cost_usd", "latency_s", "vote")


def news(outcome: Outcome, before: Sequence[Outcome], *, request: str = "", event: str = "") -> Outcome | None:
    """`outcome` with the key of its event; None where what it says is the last that was said.

    before: outcomes of its decision, in order.   request: the caller's name for this request, whatever it says.
    event: the caller's name for what happened; one event may be reported in parts, each measuring something else.
    Without either, reports of one kind (of the same measures) are compared. Two that come at once get the same key if
    they say the same, so that the record hears one of them.
    """
    said = [(name, value) for name in _MEASURES if (value := getattr(outcome, name)) is not None]
    if request:
        return replace(outcome, key=f"request-{_digest(request)}")
    if event:
        return replace(outcome, key=f"event-{_digest(event, said)}")
    kind = "+".join(name for name, _ in said) + "-"
    earlier = [other for other in before if other.key.startswith(kind)]
    if earlier and all(getattr(earlier[-1], name) == value for name, value in said):
        return None
    return replace(outcome, key=f"{kind}{len(earlier)}-{_digest(said)}")


def _digest(*parts: object) -> str:
    """32 hexadecimal digits: an app's own words for an event may name people, and are not kept."""
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]
