"""How deep to read each document: a decision of the domain `content_analysis`, whose outcomes are votes on the report.

It is made where a domain of that name is configured with exactly these three arms and features of text; elsewhere every
document is read whole. Their prices are what reading so far costs; what it is worth, the votes say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from bandits.config import Config
from bandits.errors import BudgetExhaustedError
from bandits.features import Request, context
from bandits.home import Home
from bandits.serving import Server, opened
from bandits.types import Scope
from graphs.passage import Cue, Document
from graphs.state import Depth, State

DOMAIN = "content_analysis"
READ = {"skim": 4_000, "standard": 40_000, "deep": None}  # characters from the start; None: to the end
_OPENING = 4_000  # characters that are looked at to decide

Choose = Callable[[Document], Depth]


def wanted(config: Config) -> bool:
    """Whether the configuration asks for the decision."""
    domain = config.domains.get(DOMAIN)
    return domain is not None and set(domain.arm_names) == set(READ) and domain.features.startswith("text")


def choose_depth(server: Server, document: Document) -> Depth:
    """Decide how deep to read one document; recorded. Where its caps leave no money, skim, and decide nothing.

    The decision's id is a token: POST /feedback takes it from the tenant, without a user. Raises RecordError.
    """
    router = server.router
    try:
        known = context(Request(document.text[:_OPENING], time=time.time()), router.domain.features)
        decision = router.decide(known)
    except BudgetExhaustedError:
        return Depth(document.id, "skim", None, None, _least(document, "skim"))
    token = server.ids.token(decision)
    return Depth(document.id, decision.arm, token, decision.propensity, _least(document, decision.arm))


@contextmanager
def choosing(home: Home, config: Config, tenant: str, workspace: str) -> Iterator[Choose | None]:
    """The choice for a workspace, over its record; None where it is not configured. Raises RecordError."""
    if not wanted(config):
        yield None
        return
    with opened(home, config, Scope(tenant, workspace, DOMAIN)) as server:
        yield lambda document: choose_depth(server, document)


def reading(ingest: Callable[[State], State], choose: Choose | None) -> Callable[[State], State]:
    """The ingest step, of whose documents as much is kept as was decided; without a choice, all."""
    if choose is None:
        return ingest

    def read(state: State) -> State:
        """What `ingest` gives, and depths: how deep each document is read, and by which decision."""
        update = ingest(state)
        depths = tuple(choose(document) for document in update["documents"])
        kept = tuple(shortened(one, depth.depth) for one, depth in zip(update["documents"], depths, strict=True))
        return {**update, "documents": kept, "depths": depths}

    return read


def shortened(document: Document, depth: str) -> Document:
    """The start of a document: whole cues, or text up to a blank. Its id stays that of the whole."""
    most = READ[depth]
    if most is None or len(document.text) <= most:
        return document
    if not document.cues:
        end = document.text.rfind(" ", 1, most + 1)
        return replace(document, text=document.text[: end if end > 0 else most])
    kept: list[Cue] = []
    size = 0
    for cue in document.cues:
        size += len(cue.text) + 1
        if size > most + 1 and kept:
            break
        kept.append(cue)
    return replace(document, text="\n".join(cue.text for cue in kept), cues=tuple(kept))


def _least(document: Document, depth: str) -> int:
    return len(shortened(document, depth).text)
