"""What a search found, as Markdown."""

from __future__ import annotations

from bandits.tuning.points import Tuned
from bandits.types import Scope


def render(scope: Scope, found: Tuned) -> str:
    """The verdict, how the search came along, and the front."""
    lines = [f"# Search of {scope}", "", found.reason, ""]
    if not found.convergence:
        return "\n".join(lines)
    lines += [
        f"- {found.trials} trials; it ended because {found.stopped}.",
        f"- Best so far after each feasible trial: {' '.join(f'{value:.4f}' for value in found.convergence)}.",
        f"- Overfit gap: {found.overfit_gap:+.4f} (gain in the search less gain held out).",
        f"- Point that serves from tonight: {found.point}.",
        "",
        "Feasible trials that no other beats in reward and cost; the one of highest reward is chosen:",
        "",
        "| trial | reward | USD a request |",
        "| --- | --- | --- |",
        *[f"| {one['trial']} | {one['reward']:.4f} | {one['cost']:.3e} |" for one in found.front],
    ]
    return "\n".join(lines)
