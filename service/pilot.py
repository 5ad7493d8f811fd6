"""The pilot over HTTP: off the event loop, a few runs at a time, imported at the first one (it brings scikit-learn).

Every run is kept (graphs/runs.py): it can be looked at and cancelled while it goes, by whichever process serves, and
one that a dying service left behind goes on when the next one starts.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from bandits.config import Config
from bandits.home import Home
from service.enqueue import enqueue
from service.errors import BusyError, InvalidRequestError, PilotFailedError, ServiceError
from service.models import Models
from service.servers import Servers

if TYPE_CHECKING:
    from bandits.types import Scope
    from gateway.adapter import Ask
    from gateway.answer import Answer
    from graphs.audit import Counters
    from graphs.depth import Choose
    from graphs.runs import RunStore, RunView
    from graphs.state import Input

log = logging.getLogger("pilotage.service")

AT_ONCE = 2  # runs; each keeps a core busy
WAITING = 16  # runs that may wait for their turn
_LOOK_S = 0.2  # between two looks at a run whose events are streamed
_STREAM_S = 30.0  # a stream ends then; whoever listens comes back with Last-Event-ID, as browsers do by themselves
_SLACK_S = 30.0  # for the disk, beyond the time that an answer may take
_T = TypeVar("_T")


class RunNotFoundError(ServiceError):
    """No such run in the tenant of the key."""

    status = 404


class RunCancelledError(ServiceError):
    """The run whose result was waited for was cancelled."""

    status = 409


class Pilot:
    """Runs the pilot in threads of its own, so that decisions never wait for one.

    at_once: runs under way.   waiting: runs that may wait for their turn; -at_once refuses every run.
    """

    def __init__(self, at_once: int = AT_ONCE, waiting: int = WAITING) -> None:
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="pilot")
        self._most, self._asked = at_once + waiting, 0
        self._counters: Counters | None = None
        self._runs: RunStore | None = None
        self._first, self._counting = threading.Lock(), threading.Lock()

    def open(self, home: Home, config: Config, servers: Servers, models: Models) -> None:
        """Where the runs are kept, what they may fetch, who decides and writes. To be called once, before all else."""
        self._home, self._config, self._servers, self._settings = home, config, servers, config.pilot
        self._models = models

    async def run(
        self, tenant: str, workspace: str, inputs: Sequence[Input] | None, segment: bool, embed: bool
    ) -> dict[str, Any]:
        """The result of a run as JSON. inputs: (name, text) or addresses; None: the packaged example.

        Raises BusyError, InvalidRequestError (no document could be read), PilotFailedError, RunCancelledError.
        """
        with self._place():
            return await asyncio.wrap_future(
                self._pool.submit(lambda: self._result(self._stored(tenant, workspace, inputs, segment, embed), tenant))
            )

    async def start(
        self, tenant: str, workspace: str, inputs: Sequence[Input] | None, segment: bool, embed: bool
    ) -> str:
        """Take a run on and answer with its id; it goes on by itself. Raises BusyError."""
        place = self._place()
        try:
            run_id = await asyncio.to_thread(self._stored, tenant, workspace, inputs, segment, embed, "background")
        except BaseException:
            place.leave()
            raise
        self._pool.submit(self._finish, run_id, tenant).add_done_callback(lambda _: place.leave())
        return run_id

    async def enqueue(
        self, tenant: str, workspace: str, inputs: Sequence[Input] | None, segment: bool, embed: bool
    ) -> tuple[str, str]:
        """Store a run and have Prefect run it: our id and Prefect's. Raises PrefectUnavailableError."""
        run_id = await asyncio.to_thread(self._stored, tenant, workspace, inputs, segment, embed, "enqueue")
        parameters = {"tenant": tenant, "workspace": workspace, "run_id": run_id}
        try:
            return run_id, await enqueue(self._settings.deployment, parameters, run_id)
        except ServiceError:  # nobody knows its id, and nobody will run it
            await asyncio.to_thread(self._store().forget, run_id, tenant)
            raise

    async def view(self, run_id: str, tenant: str) -> dict[str, Any]:
        """How a run stands, as JSON. Raises RunNotFoundError, also for another tenant's."""
        return _shown(await self._asking(lambda runs: runs.view(run_id, tenant)))

    async def cancel(self, run_id: str, tenant: str) -> dict[str, Any]:
        """Ask a run to stop before its next step; how it stands. Raises RunNotFoundError."""
        return _shown(await self._asking(lambda runs: runs.cancel(run_id, tenant)))

    async def events(self, run_id: str, tenant: str, after: int) -> AsyncIterator[str]:
        """The events of a run behind number `after`, as server-sent events, until it has ended or time is up."""
        end = asyncio.get_running_loop().time() + _STREAM_S
        while asyncio.get_running_loop().time() < end:
            view = await self._asking(lambda runs: runs.view(run_id, tenant))
            for number, event in enumerate(view.events[after:], start=after + 1):
                yield f"id: {number}\nevent: step\ndata: {json.dumps(event)}\n\n"
            after = max(after, len(view.events))
            if view.phase == "ended":
                told = {key: _shown(view)[key] for key in ("run_id", "status", "error")}
                yield f"event: end\ndata: {json.dumps(told)}\n\n"
                return
            await asyncio.sleep(_LOOK_S)
        yield "retry: 100\n\n"

    def numbers(self) -> dict[str, Any]:
        """See graphs.audit.Counters.snapshot; empty before the first run."""
        return {} if self._counters is None else self._counters.snapshot()

    def resume(self) -> None:
        """Go on with the background runs of a service that is no more, if there are runs at all.

        To be called on the event loop that serves: models are asked there.
        """
        self._loop = asyncio.get_running_loop()
        if self._home.record_file is None or (self._home.root / "pilot.db").exists():
            self._pool.submit(self._resume)

    def close(self) -> None:
        """Wait for the runs under way, forget those that wait (they are kept, and go on with the next service).

        Not to be called on the event loop, which those runs may wait for.
        """
        self._pool.shutdown(cancel_futures=True)
        if self._runs is not None:
            self._runs.close()

    def _stored(
        self,
        tenant: str,
        workspace: str,
        inputs: Sequence[Input] | None,
        segment: bool,
        embed: bool,
        mode: Literal["wait", "background", "enqueue"] = "wait",
    ) -> str:
        """Keep a request; the id of its run."""
        from graphs import EXAMPLE  # noqa: PLC0415 - a process that only decides never pays for this
        from graphs.runs import this_process  # noqa: PLC0415
        from graphs.state import PilotRequest  # noqa: PLC0415

        request = PilotRequest(tenant, workspace, [EXAMPLE] if inputs is None else inputs, segment, embed)
        owner = "" if mode == "enqueue" else this_process()
        return self._store().begin(request, mode=mode, owner=owner)

    def _result(self, run_id: str, tenant: str) -> dict[str, Any]:
        result = self._finish(run_id, tenant)
        if result.error is not None:
            step, reason = result.error["step"], result.error["reason"]
            if self._store().view(run_id, tenant).cancelled:
                raise RunCancelledError(
                    f"a run must not be cancelled to have a result, but {run_id} was; ask for it again."
                )
            if step == "ingest":
                raise InvalidRequestError(reason)
            raise PilotFailedError(
                f"{step} must end on documents that could be read, but in run {run_id} it failed: {reason}"
            )
        return result.to_dict()

    def _finish(self, run_id: str, tenant: str) -> Any:  # noqa: ANN401 - a PilotResult, whose room is not imported yet
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when scikit-learn loads: a core for each run, no more
        from graphs.kit import options_of  # noqa: PLC0415
        from graphs.pilot import resume_pilot  # noqa: PLC0415

        runs = self._store()
        choose = self._choice(tenant, runs.view(run_id, tenant).workspace)
        options = options_of(self._home, self._config, choose, self._answer)
        return resume_pilot(run_id, tenant, runs, counters=self._counted(), **options)

    def _choice(self, tenant: str, workspace: str) -> Choose | None:
        from graphs.depth import DOMAIN, choose_depth, wanted  # noqa: PLC0415

        if not wanted(self._config):
            return None
        server = self._servers.get(self._servers.scope(tenant, workspace, DOMAIN))
        return lambda document: choose_depth(server, document)

    def _answer(self, scope: Scope, ask: Ask, pinned: str | None) -> Answer:
        """Ask the models of this service, from a thread of the pilot."""

        async def asked() -> Answer:
            server = await self._servers.soon(scope)
            return await self._models.gateway.answer(server.router, ask, pinned=pinned)

        answer = asyncio.run_coroutine_threadsafe(asked(), self._loop)
        try:
            return answer.result(self._config.gateway.total_s + _SLACK_S)
        finally:
            answer.cancel()  # where nobody waits any more

    def _resume(self) -> None:
        for run_id, tenant in self._store().forsaken("background"):
            try:
                self._finish(run_id, tenant)
            except Exception as error:
                log.warning("run %s was left behind, and could not go on: %s", run_id, error)

    def _store(self) -> RunStore:
        from graphs.runs import RunStore  # noqa: PLC0415

        with self._first:
            if self._runs is None:
                self._runs = RunStore.at(self._home, keep_days=self._settings.keep_days)
            return self._runs

    def _counted(self) -> Counters:
        from graphs.audit import Counters  # noqa: PLC0415

        with self._first:
            self._counters = self._counters or Counters()
            return self._counters

    async def _asking(self, ask: Callable[[RunStore], _T]) -> _T:
        from graphs.errors import UnknownRunError  # noqa: PLC0415

        try:
            return await asyncio.to_thread(lambda: ask(self._store()))
        except UnknownRunError as error:
            raise RunNotFoundError(str(error)) from None

    def _place(self) -> _Place:
        """A place among those that are run or wait. Raises BusyError."""
        with self._counting:
            if self._asked >= self._most:
                raise BusyError(f"at most {self._most} pilot runs may be asked for at once; ask again in a while.")
            self._asked += 1
        return _Place(self._leave)

    def _leave(self) -> None:
        with self._counting:
            self._asked -= 1


class _Place:
    """A place that is left once."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self.leave = leave

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> None:
        self.leave()


def _shown(view: RunView) -> dict[str, Any]:
    result = view.result or {}
    return asdict(view) | {
        "status": result.get("status"),
        "error": result.get("error"),
        "steps": {event["step"]: event["what"] for event in view.events},
        "result": view.result,
    }
