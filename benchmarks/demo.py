"""The whole loop on real prompts, in one go: a day of exploring, a night of learning, a day that rolls it out.

Unlike benchmarks/routing.py, which serves hundreds of days in memory, everything here is what a bot would meet: the
configuration of pilotage.toml, the durable record, the warehouse, the night as a Prefect flow, the signed snapshot.
"""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bandits.config import home, load_config
from bandits.errors import ConfigError
from bandits.home import Home
from bandits.record.sql import SqlRecord
from bandits.rollout.status import status
from bandits.rollout.watching import says
from bandits.serving import Server
from bandits.types import Matrix, Scope, Vector
from bandits.warehouse.loading import load as load_warehouse
from benchmarks.days import Served, hindsight, serve, value
from benchmarks.outcome_table import Day, OutcomeTable, load_table

SCOPE = Scope("demo", "main", "model_routing")
DAY_S = 86_400.0
_LEAST_S = 6 * 3_600.0  # of day 1, which ends now: its prompts come as they come to a bot, not all in a minute
_MARK = "demo"  # a file that says: all in this home was made by the demo, which may make it anew
_CHOSEN = {"candidate": "learned policy", "mix": "best context-free mix", "fixed": "best fixed model"}


def run(seed: int) -> None:
    """Serve day 0, spend the night, roll out over day 1, print what each policy earned."""
    console = Console(width=min(Console().width, 100))
    config, place = load_config(), _fresh_home()
    domain = config.domains[SCOPE.domain]
    budget = domain.budget_usd_per_request
    table = load_table("paretobandit", seed, [arm.model for arm in domain.arms], domain.features)
    rng = np.random.default_rng(seed)
    midnight = (time.time() - _LEAST_S) // DAY_S * DAY_S

    console.print(f"\n[bold]Day 0[/]: {len(table.first)} prompts, no policy yet: explore within {budget:.2g} USD each.")
    with place.open_record() as record:
        first, _ = _day(record, place, table, table.first, rng, midnight - DAY_S, DAY_S)
    earned = f"reward {first.rewards.mean():.4f}, spent {first.costs.mean() / budget:.0%} of the budget"
    console.print(f"       {earned}.\n\n[bold]Night[/]: load, train, tune, evaluate, guard, publish (Prefect).")
    night = _night(config.night.trials, midnight)
    console.print(Markdown(night["markdown"]), "")

    chosen = _CHOSEN.get(night["policy"], night["policy"])
    console.print(
        f"[bold]Day 1[/]: {len(table.second)} new prompts, snapshot {night['version']} ({chosen}) is rolled out."
    )
    with place.open_record() as record:
        second, last_id = _day(record, place, table, table.second, rng, midnight, min(time.time() - midnight, DAY_S))
    for order in status(place, config, SCOPE, time.time()).orders:
        why = "" if order.who == "night" else f": {order.why}"  # the night's reason stands above
        console.print(f"       {time.strftime('%H:%M', time.gmtime(order.time))} UTC  {says(order)}{why}.")
    console.print("", _results(second, table, domain.arm_names, budget))
    console.print(
        f"Shares in the order {', '.join(arm.name for arm in domain.arms)}.\n"
        "± is a 95 % interval over prompts. Fixed models, mix, random and oracle are hindsight: they know day 1.\n"
        f"All of it is in {os.path.relpath(place.root)}. Ask for the reason of the last decision with\n"
        f"  .venv/bin/pilotage why {last_id}\n"
    )
    with place.open_record() as record:  # the dashboard reads the warehouse
        load_warehouse(record, place.warehouse)
    pilot(console)


def pilot(console: Console) -> None:
    """Run the content pilot on the packaged transcript in both runners; show their analysis once."""
    from graphs import EXAMPLE  # noqa: PLC0415  (scikit-learn, which routing does without)
    from graphs.pilot import run_pilot  # noqa: PLC0415
    from graphs.render import render  # noqa: PLC0415
    from graphs.state import PilotRequest  # noqa: PLC0415

    request = PilotRequest(SCOPE.tenant, SCOPE.workspace, [EXAMPLE])
    console.print(f"\n[bold]Pilot[/]: {EXAMPLE.name}, first through LangGraph, then one step after the other.\n")
    graph, plain = run_pilot(request, orchestrator="langgraph"), run_pilot(request, orchestrator="sequential")
    console.print(Markdown(render(graph)), "")
    same = "the same" if graph.analysis == plain.analysis else "ANOTHER"
    console.print(f"{graph.orchestrator}: {graph.status}. {plain.orchestrator}: {plain.status}, {same} analysis.\n")


def _fresh_home() -> Home:
    """An empty home, but for Prefect's own; never at the cost of anything that the demo did not make."""
    place = Home(home())
    mark = place.root / _MARK
    if place.root.exists() and not mark.exists() and any(p.name != "prefect" for p in place.root.iterdir()):
        raise ConfigError(
            f"the demo starts from an empty home, but {place.root} holds a record that is not the demo's; "
            "set PILOTAGE_HOME to another folder."
        )
    os.environ["PILOTAGE_RECORD"] = place.record_url  # never in one that was configured
    place.root.mkdir(parents=True, exist_ok=True)
    mark.touch()
    for path in place.root.iterdir():
        if path.is_dir() and path.name != "prefect":
            shutil.rmtree(path)
        elif path.is_file() and path != mark:
            path.unlink()
    return place


def _day(
    record: SqlRecord, place: Home, table: OutcomeTable, day: Day, rng: np.random.Generator, start: float, length: float
) -> tuple[Served, str]:
    """Serve `day` in random order, its requests spread over `length` seconds from `start` (UTC)."""
    now = [start]

    def tick() -> None:
        now[0] += length / len(day)
        server.refresh()  # as every server does, a few times a second: a canary serves only under a fresh lease
        progress.advance(bar)

    with _progress() as progress:
        bar = progress.add_task("answering", total=len(day))
        server = Server(place, load_config(), SCOPE, record, rng, lambda: now[0])
        served = serve(server.router, table.replay(), day, rng.permutation(len(day)), tick)
    return served, served.last_id


def _night(trials: int, now: float) -> dict[str, Any]:
    """The flow that `pilotage night` and the schedule run, with a progress bar over the trials of its search."""
    with _progress() as progress:
        bar = progress.add_task("starting Prefect", total=trials)
        warnings.filterwarnings("ignore", category=UserWarning, module="prefect")
        from flows.night import watched  # noqa: PLC0415  (2.4 s, and the day before did not need it)

        def on_trial(done: int) -> None:
            progress.update(bar, completed=done, description="searching")

        return watched(on_trial)(SCOPE.tenant, SCOPE.workspace, SCOPE.domain, now)


def _results(served: Served, table: OutcomeTable, names_of_arms: Sequence[str], budget: float) -> Table:
    day = table.second
    out = Table(title=f"Day 1: {len(day)} prompts, budget {budget:.2g} USD per request")
    out.add_column("policy")
    out.add_column("mean reward", justify="right", no_wrap=True)
    out.add_column("spend/budget", justify="right", no_wrap=True)
    out.add_column("share of models %", justify="right", no_wrap=True)
    shares = np.bincount(served.actions, minlength=len(table.arms)) / len(served.actions)
    _add(out, "[bold]Pilotage[/]", served.rewards, served.costs.mean() / budget, shares)
    out.add_section()
    eye = np.eye(len(table.arms))
    for arm, name in enumerate(names_of_arms):
        _add(out, f"always {name}", day.quality[:, arm], day.cost[:, arm].mean() / budget, eye[arm])
    out.add_section()
    names = {
        "best_fixed": "best affordable fixed model",
        "mix": "best context-free mix",
        "random": "random",
        "oracle": "oracle",
    }
    simple: Mapping[str, Matrix] = hindsight(day, budget)
    for key, name in names.items():
        probabilities = simple[key]
        expected = (probabilities * day.quality).sum(axis=1)
        _add(out, name, expected, value(day, probabilities)[1] / budget, probabilities.mean(axis=0))
    return out


def _add(out: Table, name: str, rewards: Vector, spend: float, shares: Vector) -> None:
    half = 1.96 * float(np.std(rewards, ddof=1)) / np.sqrt(len(rewards))
    over = f"[red]{spend:.2f}[/]" if spend > 1.0 + 5e-3 else f"{spend:.2f}"
    out.add_row(
        name, f"{np.mean(rewards):.4f} ± {half:.4f}", over, " · ".join(f"{100 * share:.0f}" for share in shares)
    )


def _progress() -> Progress:
    columns = (TextColumn("       {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
