"""Facts about failing: whatever a server does ends in an answer or an error of its kind, and no error tells the key."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import traceback
from email.utils import formatdate

import pytest

from bandits.errors import ConfigError
from bandits.settings.catalogue import ProviderConfig
from gateway.adapter import Adapter, Ask, GatewayError, Piece
from gateway.failures import kind_of, retry_after, told
from gateway.live import open_live
from tests.gateway.provider import KEY, Reply, adapter, as_events, as_json, data, provider, streamed, talk

ASK = Ask.of("hi")
HELLO = {"choices": [{"index": 0, "delta": {"content": "hello"}, "finish_reason": None}]}
END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None}
WHOLE = {"choices": [{"index": 0, "message": {"content": "hello"}, "finish_reason": "stop"}]}
STREAMED = [Piece("hello"), Piece(finish="stop")]


def failure(reply: Reply, *, stream: bool = True, kind: str = "openai", **settings: object) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        talk(kind, reply, ASK, stream=stream, **settings)
    return caught.value


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (as_events(*data(HELLO), ends=False), "cut"),
        (as_events(*data(HELLO)), "cut"),
        (as_events(), "cut"),
        (as_events(*data(HELLO), "data: {not json\n\n"), "malformed"),
        (as_events(*data(HELLO), "data: [1]\n\n"), "malformed"),
        (as_events(*data({"choices": [{"delta": {"content": 7}}]})), "malformed"),
        (as_events("data: " + "[" * 60_000 + "\n\n"), "malformed"),
        (as_events(*data(END, done=True)), "empty"),
        (as_events("data: [DONE]\n\n"), "empty"),
        (Reply(type="text/html", chunks=[b"<html>"]), "wrong_type"),
        (Reply(type=None, chunks=[b"data: x\n\n"]), "wrong_type"),
        (as_json(WHOLE), "wrong_type"),
        (as_json({"error": {"message": "slow down", "code": 429}}), "rate_limited"),
        (as_events("data: " + "x" * 70_000), "too_large"),
        (as_events(*data(HELLO, {"error": {"message": "oh", "type": "server_error", "code": 502}})), "server"),
        (Reply(status=201), "server"),
        (Reply(status=302, headers=["location: http://127.0.0.1:9/"]), "bad_request"),
        (Reply(status=500, chunks=[b"x" * 200_000]), "server"),
    ],
)
def test_a_stream_that_fails(reply, kind):
    """By the kind of what went wrong."""
    assert failure(reply, max_reply_bytes=65_000).kind == kind


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(chunks=[json.dumps(WHOLE).encode()[:20]], ends=False), "cut"),
        (Reply(chunks=[b"{not json"]), "malformed"),
        (Reply(chunks=[b"[" * 60_000]), "malformed"),
        (as_json({"choices": []}), "malformed"),
        (as_json([]), "malformed"),
        (as_json({"choices": [{"message": {"content": ""}}]}), "empty"),
        (Reply(), "malformed"),
        (Reply(type="text/plain", chunks=[b"hello"]), "wrong_type"),
        (Reply(chunks=[b" " * 70_000]), "too_large"),
        (as_json({"error": "no such thing"}), "server"),
        (as_json({"error": {"code": "content_filter", "message": "x"}}, 400), "filtered"),
        (Reply(status=503, type="text/html", chunks=[b"<html>"]), "server"),
    ],
)
def test_an_answer_in_one_that_fails(reply, kind):
    """Likewise."""
    assert failure(reply, stream=False, max_reply_bytes=65_000).kind == kind


def test_what_came_before_the_cut_was_given():
    """The pieces first, then the error."""

    async def run() -> list[Piece]:
        got = []
        async with provider(as_events(*data(HELLO, HELLO), ends=False)) as served:
            with pytest.raises(GatewayError, match="connection broke"):
                await gather(adapter("openai", served.url), got)
        return got

    async def gather(model: Adapter, got: list[Piece]) -> None:
        async for piece in model.stream("m", ASK):
            got.append(piece)

    assert [piece.text for piece in asyncio.run(run())] == ["hello", "hello"]


def test_an_answer_that_was_whole_survives_what_comes_after():
    """The model had said why it stopped: a cut after that, or an end without a word, takes nothing from it."""
    for reply in (as_events(*data(HELLO, END), ends=False), as_events(*data(HELLO, END))):
        assert talk("openai", reply, ASK)[0] == STREAMED


def test_a_server_that_lingers_after_its_last_word_is_not_waited_for():
    """[DONE] is the end, whether or not the connection is."""
    assert talk("openai", as_events(*data(HELLO, END, done=True), hangs=True), ASK)[0] == STREAMED


def test_connections_are_used_again():
    """Three requests, one connection; a whole stream is read to its end for that."""

    async def run() -> int:
        async with provider(*(as_events(*data(HELLO, END, done=True)) for _ in range(2)), as_json(WHOLE)) as served:
            model = adapter("openai", served.url)
            for _ in range(2):
                assert await streamed(model, ASK) == STREAMED
            await model.complete("m", ASK)
            await model.close()
            return served.connections

    assert asyncio.run(run()) == 1


def test_whoever_cancels_lets_go_of_the_connection():
    """The server sees it close while it was still silent."""

    async def run() -> None:
        async with provider(as_events(*data(HELLO), hangs=True)) as served:
            pieces = adapter("openai", served.url).stream("m", ASK)
            assert (await anext(pieces)).text == "hello"
            waiting = asyncio.ensure_future(anext(pieces))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            async with asyncio.timeout(10):
                await served.left.wait()

    asyncio.run(run())


def test_nobody_there():
    """A port without a listener refuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"

        async def refused() -> None:
            await adapter("openai", url).complete("m", ASK)

        with pytest.raises(GatewayError, match="must be reachable") as caught:
            asyncio.run(refused())
        assert caught.value.kind == "refused"


def test_a_connection_that_does_not_come_about_in_time():
    """Its kind is told apart from a refusal."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        held = []
        for _ in range(4):  # the queue of the system takes one or two more than it was told
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(full.getsockname())
            held.append(one)
        settings = ProviderConfig(kind="openai", base_url=f"http://127.0.0.1:{full.getsockname()[1]}", trust_env=False)
        with pytest.raises(GatewayError) as caught:
            asyncio.run(open_live("full", settings, "", (), 0.1).complete("m", ASK))
        for one in held:
            one.close()

    assert caught.value.kind == "connect_timeout"


BODIES = [  # as the providers document them, or are known to answer
    (
        429,
        {"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}},
        "rate_limited",
    ),
    (
        429,
        {"error": {"message": "You exceeded …", "type": "insufficient_quota", "code": "insufficient_quota"}},
        "no_credit",
    ),
    (402, {"error": {"message": "Insufficient credits", "code": 402}}, "no_credit"),
    (401, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}, "denied"),
    (400, {"error": {"message": "too long", "code": "context_length_exceeded"}}, "too_long"),
    (
        400,
        {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400},
        "too_long",
    ),
    (400, {"error": {"code": "content_filter", "message": "triggered Azure OpenAI's policy"}}, "filtered"),
    (404, {"error": {"message": "The model `x` does not exist", "code": "model_not_found"}}, "bad_request"),
    (404, {"error": 'model "x" not found, try pulling it first'}, "bad_request"),
    (422, {"detail": [{"loc": ["body"], "msg": "Field required"}]}, "bad_request"),
    (
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9"}},
        "too_long",
    ),
    (
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low to …"}},
        "no_credit",
    ),
    (413, {"type": "error", "error": {"type": "request_too_large", "message": "…"}}, "too_long"),
    (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "server"),
    (403, {"type": "error", "error": {"type": "permission_error", "message": "…"}}, "denied"),
    (
        400,
        {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "The input token count (9) exceeds"}},
        "too_long",
    ),
    (400, {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "Unknown name"}}, "bad_request"),
    (503, {"error": {"code": 503, "status": "UNAVAILABLE", "message": "The model is overloaded."}}, "server"),
    (429, [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded"}}], "rate_limited"),
    (403, {"error": {"code": 403, "message": "Your input was flagged", "metadata": {}}}, "filtered"),
]


@pytest.mark.parametrize(("status", "body", "kind"), BODIES)
def test_what_the_providers_say_and_what_it_means(status, body, kind):
    """A body says more than the status."""
    said = told(body)
    assert said is not None
    assert kind_of(status, " ".join((*said.names, said.message))) == kind


def test_a_refusal_comes_whole_through_http():
    """Its kind, how long to wait, and a short piece of what was said."""
    body = {"error": {"message": "Please slow down. " * 40, "type": "requests", "code": "rate_limit_exceeded"}}
    error = failure(as_json(body, 429, ["retry-after: 7"]), stream=False)

    assert (error.kind, error.retry_after_s) == ("rate_limited", 7.0)
    assert "429 requests rate_limit_exceeded ('Please slow down." in str(error)
    assert len(str(error)) < 320

    delay = {"error": {"code": 429, "details": [{"@type": "RetryInfo", "retryDelay": "32.5s"}], "message": "x"}}
    assert failure(as_json(delay, 429), stream=True, kind="gemini").retry_after_s == 32.5


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3.0), ("1.5", 1.5), (formatdate(1_000_060, usegmt=True), 60.0), (formatdate(900_000, usegmt=True), 0.0)]
    + [(odd, None) for odd in ("", "-1", "nan", "inf", "soon", "Thu, 99 Foo 2026")],
)
def test_how_long_to_wait(value, seconds):
    """Seconds or a date; what makes no sense says nothing."""
    assert retry_after({"retry-after": value}, now=1_000_000.0) == seconds


@pytest.mark.parametrize("kind", ["openai", "anthropic", "gemini"])
@pytest.mark.parametrize("status", [400, 401, 500])
def test_no_error_log_or_repr_tells_the_key(kind, status, caplog):
    """Not even where the provider repeats it: with everything logged, and every local of the traceback shown."""
    caplog.set_level(logging.DEBUG)
    body = {"error": {"message": f"Bad key {KEY}, or sk-proj-0123456789abcdef", "code": KEY}}

    error = failure(as_json(body, status), stream=False, kind=kind)

    model = adapter(kind, "http://127.0.0.1:9")
    shown = "".join(traceback.format_exception(error))
    for text in (str(error), repr(error), shown, caplog.text, repr(model), repr(vars(model))):
        assert KEY not in text
        assert "sk-proj" not in text


@pytest.mark.parametrize("kind", ["openai", "anthropic", "gemini"])
def test_no_local_of_a_traceback_holds_the_key(kind):
    """As crash reporters send them along; of all frames but the test's own."""
    for reply in (
        as_json({"error": {"message": "no", "code": 401}}, 401),
        as_json(WHOLE | {"choices": 1}),
        Reply(ends=False),
    ):
        error: BaseException | None = failure(reply, stream=False, kind=kind)
        frames = []
        while error is not None:
            frames += [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
            error = error.__context__
        theirs = [frame for frame in frames if "/tests/" not in frame.f_code.co_filename]
        assert len(theirs) >= 3
        assert [frame for frame in theirs if KEY in repr(frame.f_locals)] == []


def test_a_key_that_is_none_is_told_without_showing_it():
    """A line end inside would end up in an error of the HTTP library."""
    for key in ("", "  ", "can\nary", "can ary", "cänary"):
        with pytest.raises(ConfigError, match="variable LIVE_KEY") as caught:
            adapter("openai", "http://127.0.0.1:9", key=key)
        assert "ary" not in str(caught.value)
