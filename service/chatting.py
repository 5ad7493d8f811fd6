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
from bandits.privacy.prompts import keep
from bandits.serving import Server
from bandits.settings.naming import AUTO, DOMAIN, named
from bandits.types import Decision, Scope
from gateway.adapter import Piece, ToolCall
from gateway.answer import Answer, Stream, UnansweredError
from service.bodies import NAME, TenantOnly
from service.call import Call, Here, errors
from service.chat_bodies import ChatAnswer, ChatBody, ModelAnswer, ModelsAnswer, event, usage_of
from service.errors import Refusals, UnknownModelError

router = APIRouter(prefix="/v1", tags=["OpenAI"])
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
    x_pilotage_workspace: Annotated[
        str, Header(description="A workspace of the key's tenant.", json_schema_extra=NAME)
    ] = "main",
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
    start, gateway = time.perf_counter(), parts.models.gateway
    asked = gateway.open_stream if body.stream else gateway.answer
    try:
        found = await asked(server.router, ask, user=user, conversation=conversation, pinned=wanted.arm)
    except UnansweredError as error:
        parts.metrics.decided(error.decision, time.perf_counter() - start)
        return _unanswered(here, error)
    parts.metrics.decided(found.decision, time.perf_counter() - start)
    await _keep(here, found.decision, ask.prompt)
    headers = _headers(here, server, found.decision, found.served)
    if isinstance(found, Stream):
        chunks = _Chunks(here, server, found, bool(body.stream_options and body.stream_options.include_usage))
        return StreamingResponse(chunks.events(), media_type=_EVENTS, headers=headers)
    return JSONResponse(_completion(server, found), headers=headers | _cost_header(_cost(found)))


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
                    if piece.restart:
                        yield event(self._chunk({}) | {"restart": True})
                    delta = _delta(piece)
                    if delta:
                        yield event(self._chunk(delta))
            except Exception as error:  # the status has been sent; a client reads this as the error it is
                self._refusals.answer(error)  # counted and logged as any other
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
    answered = {"x-pilotage-model": server.router.domain.arm(served).model, "x-pilotage-arm": served}
    return _decision_headers(here, decision) | answered


def _decision_headers(here: Call, decision: Decision) -> dict[str, str]:
    token = here.parts.ids.token(decision)  # OpenAI's clients keep the second one, as `_request_id`
    return {"x-pilotage-decision-id": token, "x-request-id": token, "x-pilotage-policy": decision.policy}


def _cost_header(usd: float) -> dict[str, str]:
    return {"x-pilotage-cost-usd": f"{usd:.9g}"}


def _unanswered(here: Call, error: UnansweredError) -> Response:
    """The error, and which decision it was: it is in the record, with what its attempts came to and cost."""
    answer = here.parts.refusals.answer(error)
    answer.headers.update(_decision_headers(here, error.decision) | _cost_header(error.cost_usd))
    return answer


async def _keep(here: Call, decision: Decision, prompt: str) -> None:
    parts = here.parts
    if parts.config.tenants[here.tenant].store_prompts:
        await to_thread.run_sync(keep, parts.home, parts.config, decision, prompt)


def _wanted(here: Call, model: str, workspace: str) -> Wanted:
    """What a model's name stands for. Raises UnknownModelError, UnknownScopeError."""
    found = named(model, here.parts.config.domains)
    if found is None:
        raise _no_such(model)
    at = workspace if found.workspace is None else found.workspace
    return Wanted(here.parts.servers.scope(here.tenant, at, found.domain), found.arm)


def _models(here: Call) -> list[ModelAnswer]:
    config = here.parts.config
    domains = [name for name, one in config.domains.items() if not one.features.startswith("vector-")]
    found = [ModelAnswer(id=AUTO, owned_by="pilotage")] if DOMAIN in domains else []
    found += [ModelAnswer(id=f"{AUTO}:{name}", owned_by="pilotage") for name in domains]
    arms = {arm.name: arm.provider for name in domains for arm in config.domains[name].arms}
    return found + [ModelAnswer(id=name, owned_by=provider) for name, provider in arms.items()]


def _no_such(model: str) -> UnknownModelError:
    return UnknownModelError(f"model must be one that GET /v1/models lists, but got {model[:60]!r}.")
