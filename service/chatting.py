"""OpenAI's API over the bandits: an app that speaks it changes its base URL, and gets the model that pays."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from anyio import to_thread
from fastapi import APIRouter, Header, Path, Query
from starlette.responses import JSONResponse, Response, StreamingResponse

from bandits.conversation import talk
from bandits.errors import PilotageError
from bandits.privacy.prompts import keep
from bandits.serving import Server
from bandits.types import Decision, Scope
from gateway.adapter import Piece, ToolCall
from gateway.answer import Answer, Stream
from service.bodies import TenantOnly
from service.call import Call, Here, errors
from service.chat_bodies import ChatAnswer, ChatBody, ModelAnswer, ModelsAnswer, event, usage_of
from service.errors import Refusals, UnknownModelError

router = APIRouter(prefix="/v1", tags=["OpenAI"])
AUTO, DOMAIN = "auto", "model_routing"
_EVENTS = "text/event-stream"


class Wanted(NamedTuple):
    """What `model` stands for.   arm: the one that is insisted on; None: the policy draws."""

    scope: Scope
    arm: str | None


@router.post(
    "/chat/completions",
    name="chat",
    summary="Answer",
    response_model=ChatAnswer,
    responses=errors(401, 402, 403, 404, 408, 413, 422, 429, 502, 503, 504)
    | {200: {"content": {_EVENTS: {"schema": {"type": "string"}}}}},
)
async def chat(
    body: ChatBody,
    here: Here,
    _: Annotated[TenantOnly, Query()],
    x_pilotage_workspace: Annotated[str, Header(description="A workspace of the key's tenant.")] = "main",
    x_pilotage_conversation: Annotated[
        str, Header(max_length=200, description="Your name for the conversation; only a keyed hash of it is kept.")
    ] = "",
    x_pilotage_regenerate: Annotated[
        Literal["0", "1"], Header(description="1: its user wants another answer than the last one.")
    ] = "0",
) -> Response:
    """Decide, ask the model, record what came back. Reports are sent to POST /feedback, with the decision's id.

    The headers say which decision it was (x-pilotage-decision-id), who answered (x-pilotage-model), by which policy
    (x-pilotage-policy) and what it cost (x-pilotage-cost-usd; of a stream, its last chunk does, in `usage`).
    """
    parts = here.parts
    await parts.check_user(here.tenant, body.user)
    wanted = _wanted(here, body.model, x_pilotage_workspace)
    server = await parts.servers.soon(wanted.scope)
    ask, user = body.ask(), parts.ids.pseudonym(here.tenant, body.user or "")
    conversation = talk(
        parts.ids,
        wanted.scope,
        ask.messages,
        body.user or "",
        x_pilotage_conversation,
        regenerate=x_pilotage_regenerate == "1",
    )
    start = time.perf_counter()
    if body.stream:
        stream = await parts.models.gateway.open_stream(
            server.router, ask, user=user, conversation=conversation, pinned=wanted.arm
        )
        parts.metrics.decided(stream.decision, time.perf_counter() - start)
        chunks = _Chunks(here, server, stream, bool(body.stream_options and body.stream_options.include_usage))
        await _keep(here, stream.decision, ask.prompt)
        headers = _headers(here, server, stream.decision, stream.served)
        return StreamingResponse(chunks.events(), media_type=_EVENTS, headers=headers)
    answer = await parts.models.gateway.answer(
        server.router, ask, user=user, conversation=conversation, pinned=wanted.arm
    )
    parts.metrics.decided(answer.decision, time.perf_counter() - start)
    await _keep(here, answer.decision, ask.prompt)
    headers = _headers(here, server, answer.decision, answer.served) | {"x-pilotage-cost-usd": f"{_cost(answer):.9g}"}
    return JSONResponse(_completion(server, answer), headers=headers)


@router.get("/models", name="models", summary="List models", responses=errors(401, 403, 404, 422, 429, 503))
async def models(here: Here, _: Annotated[TenantOnly, Query()]) -> ModelsAnswer:
    """The names that `model` may have: `auto` for each domain of texts, and every arm."""
    return ModelsAnswer(data=_models(here))


@router.get(
    "/models/{model:path}", name="model", summary="Find a model", responses=errors(401, 403, 404, 422, 429, 503)
)
async def model(
    model: Annotated[str, Path(max_length=200)], here: Here, _: Annotated[TenantOnly, Query()]
) -> ModelAnswer:
    """One of them."""
    for one in _models(here):
        if one.id == model:
            return one
    raise _no_such(model)


@dataclass(slots=True)
class _Chunks:
    """A stream as OpenAI's clients read it."""

    here: Call
    server: Server
    stream: Stream
    is_usage_wanted: bool

    async def events(self) -> AsyncIterator[bytes]:
        async with self.stream as stream:
            yield event(self._chunk({"role": "assistant", "content": ""}))
            try:
                async for piece in stream:
                    delta = _delta(piece)
                    if delta:
                        yield event(self._chunk(delta))
            except PilotageError as error:  # the status has been sent; a client reads this as the error it is
                yield event(self._refusals.told(error))
                return
            answer = stream.answer
        yield event(self._chunk({}, answer.reply.finish))
        if self.is_usage_wanted:
            yield event(self._head() | {"choices": [], "usage": usage_of(answer.reply.usage, _cost(answer))})
        yield event("[DONE]")

    @property
    def _refusals(self) -> Refusals:
        return self.here.parts.refusals

    def _head(self) -> dict[str, Any]:
        decision = self.stream.decision
        return {
            "id": f"chatcmpl-{decision.id}",
            "object": "chat.completion.chunk",
            "created": int(decision.time),
            "model": self.server.router.domain.arm(self.stream.served).model,
        }

    def _chunk(self, delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._head() | {"choices": [choice]}


def _delta(piece: Piece) -> dict[str, Any]:
    said: dict[str, Any] = {"content": piece.text} if piece.text else {}
    if piece.tool_calls:
        said["tool_calls"] = list(piece.tool_calls)
    return said


def _completion(server: Server, answer: Answer) -> dict[str, Any]:
    """A ChatAnswer."""
    reply = answer.reply
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None}
    if reply.tool_calls:
        message["tool_calls"] = [_call(one) for one in reply.tool_calls]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish}
    return {
        "id": f"chatcmpl-{answer.decision.id}",
        "object": "chat.completion",
        "created": int(answer.decision.time),
        "model": server.router.domain.arm(answer.served).model,
        "choices": [choice],
        "usage": usage_of(reply.usage, _cost(answer)),
    }


def _call(call: ToolCall) -> dict[str, Any]:
    """A tool call as it stands in a message: an index belongs to deltas alone."""
    return {name: value for name, value in call.items() if name != "index"}


def _cost(answer: Answer) -> float:
    """What the request cost in all, USD: also what did not answer."""
    return sum(attempt.cost_usd for attempt in answer.attempts)


def _headers(here: Call, server: Server, decision: Decision, served: str) -> dict[str, str]:
    return {
        "x-pilotage-decision-id": here.parts.ids.token(decision),
        "x-pilotage-model": server.router.domain.arm(served).model,
        "x-pilotage-arm": served,
        "x-pilotage-policy": decision.policy,
    }


async def _keep(here: Call, decision: Decision, prompt: str) -> None:
    parts = here.parts
    if parts.config.tenants[here.tenant].store_prompts:
        await to_thread.run_sync(keep, parts.home, parts.config, decision, prompt)


def _wanted(here: Call, model: str, workspace: str) -> Wanted:
    """What a model's name stands for. Raises UnknownModelError, UnknownScopeError."""
    servers, config = here.parts.servers, here.parts.config
    kind, _, rest = model.partition(":")
    if kind == AUTO:
        domain, at, named = rest.partition("@")
        return Wanted(servers.scope(here.tenant, named if at else workspace, domain or DOMAIN), None)
    for known in ("name", "model"):  # an arm's own name goes before what the provider calls its model
        for domain in sorted(config.domains, key=lambda one: one != DOMAIN):
            for arm in config.domains[domain].arms:
                if getattr(arm, known) == model:
                    return Wanted(servers.scope(here.tenant, workspace, domain), arm.name)
    raise _no_such(model)


def _models(here: Call) -> list[ModelAnswer]:
    config = here.parts.config
    domains = [name for name, one in config.domains.items() if not one.features.startswith("vector-")]
    found = [ModelAnswer(id=AUTO, owned_by="pilotage")] if DOMAIN in domains else []
    found += [ModelAnswer(id=f"{AUTO}:{name}", owned_by="pilotage") for name in domains]
    arms = {arm.name: arm.provider for name in domains for arm in config.domains[name].arms}
    return found + [ModelAnswer(id=name, owned_by=provider) for name, provider in arms.items()]


def _no_such(model: str) -> UnknownModelError:
    return UnknownModelError(f"model must be one that GET /v1/models lists, but got {model[:60]!r}.")
