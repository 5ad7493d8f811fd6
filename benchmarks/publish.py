"""Put measured rows into docs/benchmarks.md: reads a benchmark's JSON lines, rewrites the table of one block.

    python -m benchmarks.routing --data paretobandit --seeds 20 | python -m benchmarks.publish paretobandit

A block is what stands between `<!-- paretobandit -->` and the next `<!-- end -->`. Rows pass through to standard
output, so that nothing measured is lost. What would make it wrong: a table edited by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
_COLUMNS = ("budget, USD", "Pilotage", "±", "spend", "worst", "ungated", "chosen", "best mix", "best fixed", "oracle")


def routing_table(rows: Sequence[dict[str, Any]]) -> str:
    """One line a budget. chosen: nights in which candidate, mix, fixed was published."""
    columns = (*_COLUMNS, "ahead of fixed")
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for budget in dict.fromkeys(row["budget"] for row in rows):
        by = {row["policy"]: row for row in rows if row["budget"] == budget}
        ours = by["pilotage"]
        chosen = " · ".join(str(ours["chosen"][name]) for name in ("candidate", "mix", "fixed"))
        ahead = f"{ours['ahead_of_fixed']:+.4f} ± {ours['ahead_of_fixed_se']:.4f}"
        cells = [
            f"{budget:.3g}",
            f"{ours['reward']:.4f}",
            f"{ours['reward_se']:.4f}",
            f"{ours['spend_ratio']:.3f}",
            f"{ours['worst_spend_ratio']:.3f}",
            f"{by['ungated']['reward']:.4f}",
            chosen,
            *(f"{by[name]['reward']:.4f}" for name in ("mix", "best_fixed", "oracle")),
            ahead,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plain_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as they came, one line each; numbers to four digits."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(_shown(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _shown(value: Any) -> str:  # noqa: ANN401  (whatever JSON holds)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def replace(page: str, block: str, table: str) -> str:
    """`page` with the table of `block` replaced; raises ValueError when there is no such block."""
    pattern = re.compile(rf"(<!-- {re.escape(block)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"docs/benchmarks.md must have a block {block!r}, but has none; add its two comments.")
    return pattern.sub(lambda m: f"{m[1]}\n{table}\n\n{m[2]}", page, count=1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read rows from standard input, rewrite the block that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("block", help="name of the block in docs/benchmarks.md")
    options = parser.parse_args(arguments)
    rows = []
    for line in sys.stdin:
        print(line, end="", flush=True)
        row = json.loads(line)
        if not row.get("summary"):
            rows.append(row)
    try:
        table = routing_table(rows) if rows and "budget" in rows[0] else plain_table(rows)
        page = replace(PAGE.read_text(encoding="utf-8"), options.block, table)
    except (ValueError, IndexError) as error:  # IndexError: not one row came
        parser.error(str(error))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
