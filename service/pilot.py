"""The pilot over HTTP: off the event loop, a few runs at a time, imported at the first one (it brings scikit-learn)."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from service.errors import BusyError, InvalidRequestError, PilotFailedError

if TYPE_CHECKING:
    from graphs.audit import Counters

AT_ONCE = 2  # runs; each keeps a core busy
WAITING = 16  # runs that may wait for their turn


class Pilot:
    """Runs the pilot in threads of its own, so that decisions never wait for one.

    at_once: runs under way.   waiting: runs that may wait for their turn; -at_once refuses every run.
    """

    def __init__(self, at_once: int = AT_ONCE, waiting: int = WAITING) -> None:
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="pilot")
        self._most, self._asked = at_once + waiting, 0
        self._counters: Counters | None = None
        self._first = threading.Lock()

    async def run(
        self, tenant: str, workspace: str, inputs: Sequence[tuple[str, str]] | None, segment: bool, embed: bool
    ) -> dict[str, Any]:
        """The result of a run as JSON. inputs: (name, text); None: the packaged example.

        Raises BusyError, InvalidRequestError (no document could be read), PilotFailedError.
        """
        if self._asked >= self._most:  # only the event loop counts, so this needs no lock
            raise BusyError(f"at most {self._most} pilot runs may be asked for at once; ask again in a while.")
        self._asked += 1
        try:
            return await asyncio.wrap_future(self._pool.submit(self._run, tenant, workspace, inputs, segment, embed))
        finally:
            self._asked -= 1

    def numbers(self) -> dict[str, Any]:
        """See graphs.audit.Counters.snapshot; empty before the first run."""
        return {} if self._counters is None else self._counters.snapshot()

    def close(self) -> None:
        """Wait for the runs under way, forget those that wait."""
        self._pool.shutdown(cancel_futures=True)

    def _run(
        self, tenant: str, workspace: str, inputs: Sequence[tuple[str, str]] | None, segment: bool, embed: bool
    ) -> dict[str, Any]:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when scikit-learn loads: a core for each run, no more
        from graphs import EXAMPLE  # noqa: PLC0415 - a process that only decides never pays for this
        from graphs.pilot import run_pilot  # noqa: PLC0415
        from graphs.state import PilotRequest  # noqa: PLC0415

        request = PilotRequest(tenant, workspace, [EXAMPLE] if inputs is None else inputs, segment, embed)
        result = run_pilot(request, counters=self._counted())
        if result.error is not None:
            step, reason = result.error["step"], result.error["reason"]
            if step == "ingest":
                raise InvalidRequestError(reason)
            raise PilotFailedError(
                f"{step} must end on documents that could be read, but in run {result.run_id} it failed: {reason}"
            )
        return result.to_dict()

    def _counted(self) -> Counters:
        from graphs.audit import Counters  # noqa: PLC0415

        with self._first:
            self._counters = self._counters or Counters()
            return self._counters
