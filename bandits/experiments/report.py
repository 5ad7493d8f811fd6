"""From a home to what a person wants to know of its experiments, as text of 80 columns."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bandits.config import DomainConfig
from bandits.errors import ExperimentError
from bandits.experiments import analysis, exposure, srm
from bandits.experiments import plan as planning
from bandits.experiments.analysis import Findings
from bandits.experiments.exposure import BEFORE_S, DAY_S, Units
from bandits.experiments.plan import Plan
from bandits.experiments.serving import Experiments, Running
from bandits.home import Home
from bandits.types import Scope

_WIDTH = 80


def find(scope: Scope, domain: DomainConfig, name: str) -> Running:
    """The experiment, or the holdback, called `name`; raises ExperimentError that lists those there are."""
    known = Experiments(scope.domain, domain).running
    for one in known:
        if one.name == name:
            return one
    listed = ", ".join(one.name for one in known) or "none"
    raise ExperimentError(
        f"an experiment must be declared in pilotage.toml under [domains.{scope.domain}.experiments.{name}], but there "
        f"is {listed}."
    )


def listed(scope: Scope, domain: DomainConfig, now: float) -> list[dict[str, Any]]:
    """Every experiment of the scope, in the order in which they claim units, and how each stands at `now`."""
    found = []
    for one in Experiments(scope.domain, domain).running:
        state = "not begun" if now < one.start else "running" if now < one.end else "ended"
        variants = {name: f"{v.share:.0%} {v.policy}" for name, v in one.config.variants.items()}
        exposed = max((plan.exposed for at, plan in one.steps if at <= now), default=0.0)
        found.append({"scope": str(scope), "name": one.name, "state": state, "exposed": exposed, "variants": variants})
    return found


def units(home: Home, scope: Scope, domain: DomainConfig, one: Running, now: float) -> Units:
    """The units of an experiment in the warehouse, as of `now`. Raises WarehouseError."""
    rows = exposure.read(home.warehouse, scope, one.start - BEFORE_S, min(now, one.end))
    return exposure.units(rows, Experiments(scope.domain, domain), one, domain, now)


def report(home: Home, scope: Scope, domain: DomainConfig, name: str, now: float) -> Findings:
    """What the experiment has shown up to `now` (UTC, seconds). Raises ExperimentError, WarehouseError."""
    one = find(scope, domain, name)
    return analysis.analyse(one, units(home, scope, domain, one, now), now)


def false_stops(home: Home, scope: Scope, domain: DomainConfig, name: str, now: float, runs: int) -> float:
    """A/A on the units of the experiment (analysis.false_stops); the same answer each time."""
    one = find(scope, domain, name)
    return analysis.false_stops(one, units(home, scope, domain, one, now), runs, np.random.default_rng(0))


def plan(home: Home, scope: Scope, domain: DomainConfig, name: str, now: float) -> Plan:
    """Size and duration, at the pace of the log of the last days. Raises ExperimentError, WarehouseError."""
    one = find(scope, domain, name)
    rows = exposure.read(home.warehouse, scope, now - BEFORE_S, now)
    since = max(float(rows.times.min()), now - BEFORE_S) if len(rows.times) else now - BEFORE_S
    return planning.plan(one, domain, rows, min(since, now - DAY_S), now)


def render_list(found: list[dict[str, Any]]) -> str:
    """One experiment a line, variants below."""
    lines = []
    for one in found:
        lines.append(f"{one['scope']} {one['name']}: {one['state']}, {one['exposed']:.0%} of all units take part")
        lines += [f"    {name:<16} {text}" for name, text in one["variants"].items()]
    return "\n".join(lines) or "no experiment is declared; docs/experiments.md shows how."


def render_plan(found: Plan) -> str:
    """A table of what it takes."""
    table = _table("variant", "policy", "share", "units", "days", "finds", "USD/request")
    for one in found.variants:
        table.add_row(
            one.variant,
            one.policy,
            f"{one.share:.0%}",
            f"{one.needed:,}" if one.needed else "control",
            _known(one.days, ",.0f") if one.needed else "",
            _known(one.detectable, ".4f") if one.needed else "",
            "as served" if one.usd_per_request is None else f"{one.usd_per_request:.2e}",
        )
    pace = f"The log has {_known(found.units_per_day, ',.0f')} new units ({found.unit}s) a day"
    return _text(
        f"{found.name}: to find an effect of {found.effect:g} with probability {found.power:.0%}, alpha "
        f"{found.alpha:g}, when a unit's mean reward has a standard deviation of {found.spread:g} (in the log: "
        f"{_known(found.measured, '.3f')}).",
        table,
        f"units: of the variant and the control together. {pace}; {found.exposed:.0%} take part at first. "
        f"finds: the effect that is found by the end. The budget is {found.budget:.2e} USD per request.",
    )


def render(found: Findings) -> str:
    """The conclusion first, then what it rests on."""
    when = datetime.fromtimestamp(found.time, UTC).strftime("%Y-%m-%d %H:%M UTC")
    counts = _table("variant", "exposed", "counted", "effect", "low", "high", "explained", "USD/request")
    for name, exposed in found.exposed.items():
        one = next((each for each in found.comparisons if each.variant == name), None)
        figures = [""] * 5
        if one is not None:
            ends = [f"{x:+.4f}" for x in (one.reward.effect or 0.0, one.reward.low, one.reward.high)]
            usd = f"{one.usd.effect or 0.0:+.2e} {one.guard}" if one.usd else ""
            figures = [*ends, "" if one.explained is None else f"{one.explained:.0%}", usd]
        counts.add_row(name, f"{exposed:,}", f"{found.counted[name]:,}", *figures)
    notes = [
        f"Shares as planned: p = {found.p_shares:.3g} over all looks (a mismatch at {srm.ALPHA}). "
        f"{found.strayed} units were not always served as assigned."
    ]
    if found.p_silence <= srm.ALPHA:
        notes.append("Feedback comes less evenly than exposure: the difference is that of those who answered.")
    if found.comparisons:
        planned = ", ".join(f"{sum(one.units):,} of {one.planned:,} for {one.variant}" for one in found.comparisons)
        notes.append(
            f"Units of those planned: {planned}. Intervals hold at every look, {1.0 - found.alpha:.0%} in all."
        )
    return _text(found.conclusion, counts, *notes, f"As of {when}.")


def _known(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)


def _table(*names: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    for name in names:
        left = name in ("variant", "policy")
        table.add_column(name, justify="left" if left else "right", overflow="ellipsis" if left else "fold")
    return table


def _text(*parts: str | Table) -> str:
    out = io.StringIO()
    console = Console(file=out, width=_WIDTH, color_system=None, highlight=False, markup=False, emoji=False)
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
