"""Facts about answers that stream, where the stream breaks, begins anew, or the disk is slow."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from bandits.record.sql import SqlRecord
from bandits.router import Router
from gateway.answer import UnansweredError
from gateway.testing_faults import TEXT
from tests.gateway.conftest import QUICK
from tests.gateway.test_answer import ASK, run


def test_a_stream_that_breaks_midway_is_an_error_with_what_came():
    """No second answer is glued to half of the first."""

    async def scene(w):
        came = []
        stream = await w.gateway.open_stream(w.router, ASK)

        async def read():
            async for piece in stream:
                came.append(piece.text)

        with pytest.raises(UnansweredError) as caught:
            await read()
        assert 0 < len("".join(came)) < len("".join(TEXT))
        assert caught.value.kind == "stalled"
        assert w.spare.calls == []
        assert w.told == [("", "failed:stalled", 0.0)]
        with pytest.raises(RuntimeError, match="read to its end"):
            _ = stream.answer

    run(scene, "stall")


def test_a_stream_may_begin_anew_where_that_is_allowed():
    """A piece says that what came before is void."""

    async def scene(w):
        stream = await w.gateway.open_stream(w.router, ASK)
        assert stream.served == "primary"
        pieces = [piece async for piece in stream]
        (at,) = [index for index, piece in enumerate(pieces) if piece.restart]
        assert "".join(piece.text for piece in pieces[at:]) == stream.answer.reply.text == "".join(TEXT)
        assert stream.served == stream.answer.served == "spare"
        assert w.told == [("", "failed:cut", 0.0), ("spare", "stop", None)]

    run(scene, "cut", QUICK.model_copy(update={"midway": "restart", "retries": 0}))


def test_a_slow_disk_stops_no_stream(tmp_path):
    """Decisions and reports wait for their commit, and the loop goes on."""

    async def scene(w):
        held = threading.Event()
        with SqlRecord(f"sqlite:///{tmp_path / 'record.db'}") as record:
            commit = record._writer._commit
            record._writer._commit = lambda group: (held.wait(5.0), commit(group))[1]
            router = Router(w.router.scope, w.router.domain, record, np.random.default_rng(0))
            going = asyncio.create_task(w.gateway.answer(router, ASK))
            for _ in range(20):  # the loop turns while the disk does not
                await asyncio.sleep(0.001)
            assert not going.done()
            held.set()
            assert (await going).reply.text == "".join(TEXT)

    run(scene)
