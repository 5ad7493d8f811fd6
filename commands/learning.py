"""Learn, judge and publish: what the night does, and what it did."""

from __future__ import annotations

import os
import textwrap
import time
from dataclasses import asdict
from typing import Annotated, Any

import typer

from bandits.config import load_config
from bandits.errors import PilotageError
from bandits.types import Scope
from commands.table import Json, ScopeText, app, experiment, one_scope, place, scopes, show

ExperimentName = Annotated[str, typer.Argument(help="As pilotage.toml calls it, or holdback.")]


@app.command()
def load(as_json: Json = False) -> None:
    """Bring the warehouse up to date with the record; rebuilds it where it was deleted."""
    from bandits.warehouse.loading import load as bring

    with place().open_record() as record:
        loaded = bring(record, place().warehouse)
    text = f"{loaded.rows} rows loaded, {loaded.quarantined} quarantined, up to position {loaded.position}."
    show(loaded._asdict() if as_json else text)


@app.command()
def night(
    scope: ScopeText = None,
    workers: Annotated[int, typer.Option(help="Processes, where there are several scopes.")] = 1,
    as_json: Json = False,
) -> None:
    """Learn from the log and publish a policy, if the evidence allows. Exit 1 if a night failed.

    Where PREFECT_API_URL names a server that answers, each night is a flow run there; without one it works as well.
    """
    from bandits.scheduled.nights import spend_all
    from flows import server_fault

    wanted, here = scopes(scope), place()
    if (fault := server_fault()) is not None:
        typer.echo(f"without Prefect: {fault}", err=True)
    if len(wanted) > 1 or workers > 1:
        reports = list(spend_all(here, load_config(), wanted, time.time(), workers))
    else:
        reports = [_with_progress(wanted[0], as_flow="PREFECT_API_URL" in os.environ and fault is None)]
    show(reports if as_json else "\n\n".join(report["markdown"] for report in reports))
    if any(report["verdict"] == "failed" for report in reports):
        raise typer.Exit(1)


def _with_progress(scope: Scope, *, as_flow: bool) -> dict[str, Any]:
    """One night with a bar over the trials of its search, on standard error."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(str(scope), total=load_config().night.trials)

        def on_trial(done: int) -> None:
            progress.update(bar, completed=done)

        if as_flow:
            from flows import server_fault
            from flows.night import watched

            try:
                return watched(on_trial)(scope.tenant, scope.workspace, scope.domain, time.time())
            except PilotageError:
                raise
            except Exception:
                if (fault := server_fault()) is None:
                    raise
                typer.echo(f"from here without Prefect: {fault}", err=True)  # what was done is not done again
        from bandits.scheduled.nights import spend

        return spend(place(), load_config(), scope, time.time(), on_trial=on_trial)


@app.command()
def tune(scope: ScopeText = None, as_json: Json = False) -> None:
    """Search the learner's settings; publishes nothing, and the next night begins with what was found."""
    from bandits.scheduled.nights import search
    from bandits.tuning.table import render

    found = {one: search(place(), load_config(), one, time.time()) for one in scopes(scope)}
    if as_json:
        show([{"scope": str(one), **asdict(tuned)} for one, tuned in found.items()])
        return
    show("\n\n".join(render(one, tuned) for one, tuned in found.items()))


@app.command()
def shadow(scope: ScopeText = None, as_json: Json = False) -> None:
    """What the candidate on trial would have decided since, and what that would have been worth."""
    from bandits.scheduled.looks import shadow_of

    found = [shadow_of(place(), load_config(), one, time.time()) for one in scopes(scope)]
    show([one.as_dict() for one in found] if as_json else "\n\n".join(one.render() for one in found))


@app.command()
def report(
    scope: ScopeText = None,
    period: Annotated[str, typer.Option(help="daily, weekly or monthly: the last whole one.")] = "daily",
    as_json: Json = False,
) -> None:
    """Reward, cost, latency, errors and satisfaction of a period, each with its interval. No data is not a pass."""
    from bandits.scheduled.looks import report_of

    found = [report_of(place(), load_config(), one, period, time.time()) for one in scopes(scope)]  # type: ignore[arg-type]
    show(found if as_json else "\n\n".join(run["report"]["markdown"] for run in found))


@app.command()
def evaluate(
    scope: ScopeText = None,
    policy: Annotated[str, typer.Option(help="Version of a snapshot; latest, fixed or mix.")] = "latest",
    baseline: Annotated[str | None, typer.Option(help="The same; left out: what served.")] = None,
    seen: Annotated[bool, typer.Option(help="Judge also by rounds that the policy may have learned from.")] = False,
    as_json: Json = False,
) -> None:
    """Judge a policy by the contexts that were logged: value, cost, agreement, and whether it is better."""
    from bandits.what_if.evaluate import evaluate as judge
    from bandits.what_if.evaluate import save
    from bandits.what_if.table import render

    here, found = place(), []
    for one in scopes(scope):
        domain = load_config().domains[one.domain]
        found.append(judge(here, one, domain, policy, baseline, now=time.time(), seen=seen))
        save(found[-1], here.warehouse)
    show([one.run() for one in found] if as_json else "\n\n".join(render(one) for one in found))


@app.command()
def effect(
    first: Annotated[str, typer.Argument(help="An arm.")],
    second: Annotated[str, typer.Argument(help="The arm that it is held against.")],
    scope: ScopeText = None,
    by: Annotated[
        str | None, typer.Option(help="Also in each group of a feature, as has_code, or of the hour.")
    ] = None,
    as_json: Json = False,
) -> None:
    """By how much is one arm better than another, and for whom? From the log, by its exact probabilities."""
    from bandits.evaluation.effect import compare, render
    from bandits.what_if.counterfactual import fit, read

    one = one_scope(scope)
    domain = load_config().domains[one.domain]
    log = read(place().warehouse, one, domain, time.time())
    models = fit(log.feedback, domain)
    found = compare(log.feedback, log.policies, models.q_hat, first, second, 0.05, by)
    show(found.as_dict() if as_json else render(found))


@app.command()
def snapshots(scope: ScopeText = None, as_json: Json = False) -> None:
    """List the published policies, newest last, and whether each still verifies. Exit 1 if one does not."""
    from bandits.learners.frozen import rules, thaw
    from bandits.snapshots.keys import trusted_keys
    from bandits.snapshots.loading import list_versions
    from bandits.snapshots.loading import load as read

    here, now = place(), time.time()
    found: list[dict[str, Any]] = []
    for one in scopes(scope):
        for listed in list_versions(here.snapshots, one, trusted=trusted_keys(here.root), now=now):
            m = listed.manifest
            found.append(
                {
                    "scope": str(one),
                    "version": listed.version,
                    "kind": m.kind if m else None,
                    "position": m.position if m else None,
                    "created": m.created if m else None,
                    "content": m.content if m else None,
                    "fault": listed.fault,
                }
            )
        if found and (found[-1]["scope"], found[-1]["kind"], found[-1]["fault"]) == (str(one), "offset_tree", None):
            serving = read(here.snapshots, one, found[-1]["version"], trusted=trusted_keys(here.root), now=now)
            found[-1]["rules"] = rules(thaw(serving.frozen))
    lines = [
        f"{f['scope']} {f['version']} {f['kind'] or '?':<11} {f['fault'] or 'ok'}{_below(f.get('rules'))}"
        for f in found
    ]
    show(found if as_json else "\n".join(lines) or "no snapshot was published yet; run `pilotage night`.")
    if any(f["fault"] for f in found):
        raise typer.Exit(1)


@experiment.command("list")
def experiment_list(scope: ScopeText = None, as_json: Json = False) -> None:
    """Every declared experiment, its variants, and whether it runs."""
    from bandits.experiments import report

    now = time.time()
    found = [e for one in scopes(scope) for e in report.listed(one, load_config().domains[one.domain], now)]
    show(found if as_json else report.render_list(found))


@experiment.command("plan")
def experiment_plan(name: ExperimentName, scope: ScopeText = None, as_json: Json = False) -> None:
    """How many units an experiment needs, how long they take to come, and what it spends."""
    from bandits.experiments import report

    one = one_scope(scope)
    found = report.plan(place(), one, load_config().domains[one.domain], name, time.time())
    show(found.as_dict() if as_json else report.render_plan(found))


@experiment.command("report")
def experiment_report(
    name: ExperimentName,
    scope: ScopeText = None,
    aa: Annotated[int, typer.Option(help="Also assign anew so many times: how often would nothing stop it?")] = 0,
    as_json: Json = False,
) -> None:
    """What an experiment has shown so far. Look as often as you like."""
    from bandits.experiments import report

    one, now = one_scope(scope), time.time()
    domain = load_config().domains[one.domain]
    found = report.report(place(), one, domain, name, now)
    stops = report.false_stops(place(), one, domain, name, now, aa) if aa else None
    if as_json:
        show(found.as_dict() | ({} if stops is None else {"false_stops": stops}))
        return
    show(report.render(found))
    if stops is not None:
        show(f"A/A: {stops:.1%} of {aa} experiments of no effect stopped; at most {found.alpha:.0%} should.")


def _below(text: str | None) -> str:
    return "" if text is None else "\n" + textwrap.indent(text, "    ")
