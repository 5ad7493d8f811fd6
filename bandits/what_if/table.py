"""An evaluation as tables of 80 columns for a person: the verdict first, then values, then what they rest on."""

from __future__ import annotations

import io
import math

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bandits.what_if.evaluate import Evaluation

_WIDTH = 80
_CANNOT_SAY = "cannot say"


def render(found: Evaluation) -> str:
    """Plain text, at most 80 columns. A value whose verdict is not ok is not shown."""
    out = io.StringIO()
    console = Console(file=out, width=_WIDTH, color_system=None, highlight=False, markup=False, emoji=False)
    console.print(found.conclusion)
    console.print(f"{found.rounds} rounds judge, {found.left_out} from before the policies were published do not.")
    console.print(_values(found))
    console.print(_support(found))
    console.print(f"Run {found.id}.")
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _values(found: Evaluation) -> Table:
    table = _table("policy", "by", "value", "low", "high", "USD/request", "agrees")
    for row in found.rows:
        known = row.verdict == "ok" and math.isfinite(row.standard_error)
        figures = [f"{x:.4f}" for x in (row.value, row.low, row.high)] if known else [_CANNOT_SAY, "", ""]
        head = row.estimator == "dr"
        rest = [_figure(found.costs[row.policy], ".3g"), _figure(found.agreement[row.policy], ".1%")]
        table.add_row(row.policy if head else "", row.estimator, *figures, *(rest if head else ["", ""]))
    return table


def _support(found: Evaluation) -> Table:
    table = _table("policy", "n", "ESS", "least", "overlap", "max w", "mean w", "clipped", "verdict")
    for row in found.rows:
        if row.estimator == "switch":  # the one that clips; the rest is the same in all rows of a policy
            table.add_row(
                row.policy,
                str(row.n),
                f"{row.ess:.0f}",
                f"{row.ess_least_arm:.0f}",
                _figure(row.overlap, ".0%"),
                _figure(row.max_weight, ".3g"),
                _figure(row.mean_weight, ".2f"),
                _figure(row.clipped, ".1%"),
                row.verdict + (f" {row.unsupported:.1%}" if row.verdict == "no support" else ""),
            )
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    table.add_column(first, overflow="ellipsis", no_wrap=True, max_width=12)
    for name in others:
        table.add_column(name, justify="left" if name in ("by", "verdict") else "right", no_wrap=name != "verdict")
    return table


def _figure(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "unknown"
