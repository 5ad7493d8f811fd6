"""Run the pilot: choose the runner, take the steps, give the result.

PILOTAGE_ORCHESTRATOR=sequential switches LangGraph off for the whole process; `auto` and `langgraph` leave it on.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, get_args

from bandits.errors import ConfigError
from bandits.types import new_id
from graphs import langgraph_pilot, sequential
from graphs.audit import COUNTERS, Counters, Listener, Recorder, reason_of
from graphs.errors import RunsError
from graphs.index import Index, Shelf
from graphs.state import PilotRequest, PilotResult, State, Status
from graphs.steps import STEPS, Step, names

if TYPE_CHECKING:
    from graphs.runs import Journal, RunStore

Label = Literal["langgraph", "sequential"]
Orchestrator = Literal["auto", "langgraph", "sequential"]
ENV = "PILOTAGE_ORCHESTRATOR"


def run_pilot(
    request: PilotRequest,
    *,
    orchestrator: Orchestrator = "auto",
    listener: Listener | None = None,
    steps: Sequence[Step] = STEPS,
    counters: Counters = COUNTERS,
    store: Shelf | None = None,
    runs: RunStore | None = None,
    run_id: str | None = None,
    force: bool = False,
) -> PilotResult:
    """Run all steps on a request; never raises for what is wrong with a document or a step: the result says it.

    orchestrator:  "auto" and "langgraph" use LangGraph and fall back to the plain runner, with the degradation
                   `fallback_sequential`, if it is missing, broken or switched off; "sequential" asks for the plain one.
    listener:      called with each Event as it happens.
    store:         where the vectors go, for searches afterwards; nowhere by default.
    runs:          where the run is kept: killed at any moment, the same call with its `run_id` goes on at the step it
                   was killed in; once it has ended, that call gives its result again. Nowhere by default.
    force:         take a run over from a process of another host, which is known to be gone.
    status:        "failed" if ingest or analysis failed, "degraded" if anything was done without, else "ok".
    Raises ConfigError if the orchestrator is none of the three; with `runs`: RunsError (it cannot be read or written,
    or another process has the run), and UnknownRunError if the id is that of another tenant's run.
    """
    allowed, off = _choice(orchestrator)
    start = time.perf_counter()
    journal: Journal | None = None
    if runs is not None:
        run_id = runs.begin(request, run_id=run_id)
        found = runs.claim(run_id, request.tenant, force=force)
        if isinstance(found, PilotResult):
            return found
        journal, request = found, found.request
    run_id = run_id or new_id(time.time())
    recorder = Recorder(run_id, counters, listener, journal)
    state: State = {"request": request, "run_id": run_id}
    status: Status = "failed"
    counters.run_started()
    try:
        label, state = _run(steps, state, recorder, allowed, off, None if journal is None else journal.url)
        if state.get("left_out"):
            gone = ", ".join(one.name for one in state["left_out"])
            lost = f"{len(state['left_out'])} could not be read, or not wholly: {gone}"
            recorder.degrade("documents_left_out", "ingest", lost)
        author = state["analysis"].author if "analysis" in state else None
        if author is not None and author.fault is not None:
            recorder.degrade("summary_not_written", "analysis", author.fault)
        if store is not None and "index" in state and "error" not in state:
            _put(store, state["index"], recorder)
        recorder.close(names(steps))  # before the status: a listener may break here, too
        status = "failed" if "error" in state else "degraded" if recorder.degradations else "ok"
        result = _result(state, status, label, time.perf_counter() - start, recorder)
        if journal is not None:
            journal.finish(recorder.unwritten(), result)
        return result
    finally:  # an interrupt passes through, and is counted
        recorder.close(names(steps))
        counters.run_ended(status)


def resume_pilot(run_id: str, tenant: str, runs: RunStore, *, force: bool = False, **options: Any) -> PilotResult:  # noqa: ANN401
    """Go on with a run that waits or was killed, on the request that it was stored with.

    options: those of run_pilot. Raises UnknownRunError, RunTakenError (it is under way), RunsError.
    """
    request = PilotRequest(tenant, runs.view(run_id, tenant).workspace, ())
    return run_pilot(request, runs=runs, run_id=run_id, force=force, **options)


def _choice(orchestrator: str) -> tuple[bool, str | None]:
    """Whether LangGraph is wanted, and why it may not be used."""
    switch = os.environ.get(ENV, "auto").strip().lower() or "auto"
    for where, value in (("orchestrator", orchestrator), (ENV, switch)):
        if value not in get_args(Orchestrator):
            raise ConfigError(f"{where} must be auto, langgraph or sequential, but got {value!r}; choose one of them.")
    return orchestrator != "sequential", f"{ENV}=sequential" if switch == "sequential" else None


def _run(
    steps: Sequence[Step], state: State, recorder: Recorder, wanted: bool, off: str | None, checkpoints: str | None
) -> tuple[Label, State]:
    """Run on LangGraph where it is wanted and works, else plainly: from the step that it stopped at, if any."""
    if not wanted:
        return "sequential", sequential.run(steps, state, recorder)
    reason = off
    if reason is None:
        try:
            return "langgraph", langgraph_pilot.Runner(steps, state, recorder).run(checkpoints)
        except RunsError:
            raise  # what cannot be kept is not to be done
        except Exception as error:  # steps do not raise: langgraph is missing, or broke
            reason = reason_of(error)
    recorder.degrade("fallback_sequential", "orchestrator", reason)
    return "sequential", sequential.run(steps, state, recorder)


def _put(store: Shelf, index: Index, recorder: Recorder) -> None:
    """Keep the vectors for searches; what was found in the documents stands without that."""
    try:
        store.put(index)
    except Exception as error:
        recorder.degrade("not_stored", "embed", reason_of(error))


def _result(state: State, status: Status, label: Label, duration_s: float, recorder: Recorder) -> PilotResult:
    request = state["request"]
    return PilotResult(
        run_id=recorder.run_id,
        tenant=request.tenant,
        workspace=request.workspace,
        status=status,
        orchestrator=label,
        duration_seconds=duration_s,
        ingest=_ingest_summary(state),
        segment=_segment_summary(state),
        embed=_embed_summary(state),
        analysis=asdict(state["analysis"]) if "analysis" in state else None,
        degradations=tuple(asdict(one) for one in recorder.degradations),
        events=recorder.trail(),
        error=state.get("error"),
    )


def _ingest_summary(state: State) -> dict[str, Any] | None:
    if "documents" not in state:
        return None
    return {
        "documents": [
            {
                "id": document.id,
                "name": document.name,
                "kind": document.kind,
                "characters": len(document.text),
                "cues": len(document.cues),
                "start_s": document.start_s,
                "end_s": document.end_s,
                "speakers": list(document.speakers),
                "language": document.language,
                "encoding": document.encoding,
                "source": document.source,
                "notes": [asdict(note) for note in document.notes],
            }
            for document in state["documents"]
        ],
        **({"depths": [asdict(one) for one in state["depths"]]} if "depths" in state else {}),
        "left_out": [asdict(one) for one in state.get("left_out", ())],
        "duplicates": list(state.get("duplicates", ())),
        "near_duplicates": [list(one) for one in state.get("near_duplicates", ())],
    }


def _segment_summary(state: State) -> dict[str, Any] | None:
    if "segments" not in state:
        return None
    sizes = [len(segment.text) for segment in state["segments"]]
    return {
        "segments": len(sizes),
        "by_document": dict(Counter(segment.document for segment in state["segments"])),
        "characters": {"least": min(sizes), "median": statistics.median(sizes), "most": max(sizes)} if sizes else None,
    }


def _embed_summary(state: State) -> dict[str, Any] | None:
    if "index" not in state:
        return None
    index = state["index"]
    return {
        "embedder": index.embedder,
        "dimension": index.encoder.dimension,
        "vectors": len(index.vectors),
        "namespace": index.namespace,
    }
