"""Who writes the summary: a model, asked through the gateway as any request is; nobody where none is configured.

So the request is a decision of a domain, drawn with its propensity or, where an arm is named, forced; its attempts,
cost, deadlines, stand-ins and the caps of its tenant are those of every other prompt, in the tenant's own record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from bandits.config import Config
from bandits.home import Home
from bandits.ids import IdRing
from bandits.serving import opened
from bandits.settings.naming import named
from bandits.types import Decision, Scope
from gateway.adapter import Ask
from gateway.answer import Answer, UnansweredError, open_gateway
from graphs.asking import cited, posed
from graphs.audit import reason_of
from graphs.state import Author, PilotRequest
from graphs.summary import Summarise, Written

Answering = Callable[[Scope, Ask, str | None], Answer]
"""Scope, what is asked, and the arm that is insisted on, to an answer; for threads. Raises what Gateway.answer does."""


def author_of(home: Home, config: Config, answering: Answering | None = None) -> Summarise | None:
    """Whoever [pilot] summary names; None where it names nobody.

    answering: the gateway of a process that has one; left out, one is opened for each summary.
    """
    found = None if config.pilot.summary is None else named(config.pilot.summary, config.domains)
    if found is None:
        return None
    answer = answering or _opening(home, config)

    def summarise(request: PilotRequest, texts: Sequence[str]) -> Written:
        question = posed(texts)
        scope = config.scope(request.tenant, request.workspace, found.domain)
        try:
            said = answer(scope, question.ask, found.arm)
        except UnansweredError as error:
            return Written((), _author(home, error.decision, error.decision.arm, error.cost_usd, reason_of(error)))
        spent = sum(attempt.cost_usd for attempt in said.attempts)
        return Written(cited(said.reply.text, question.places), _author(home, said.decision, said.served, spent))

    return summarise


def _author(home: Home, decision: Decision, arm: str, usd: float, fault: str | None = None) -> Author:
    return Author(fault, arm, IdRing(home.root).token(decision), decision.propensity, usd)


def _opening(home: Home, config: Config) -> Answering:
    """For a process that serves nobody: record, ledger and gateway are open for as long as one answer takes."""

    def answer(scope: Scope, ask: Ask, pinned: str | None) -> Answer:
        with opened(home, config, scope) as server, ThreadPoolExecutor(1, "summary") as thread:

            async def asked() -> Answer:
                async with open_gateway(config) as gateway:
                    return await gateway.answer(server.router, ask, pinned=pinned)

            return thread.submit(asyncio.run, asked()).result()  # the caller's own thread may have an event loop

    return answer
