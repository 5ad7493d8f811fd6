"""Figures -> Altair. One colour an arm on every chart, from Okabe and Ito's palette for the colour-blind."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Literal

import altair as alt

from dashboard.figures import Estimate, HourShare, HullPoint, PlaneRow, SpendPoint
from dashboard.running import Look
from dashboard.words import money_interval, reward_interval

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")
INK, QUIET, GRID = "#1F2937", "#6B7280", "#E5E7EB"
_HEIGHT = 330


def colours(arms: Sequence[str]) -> dict[str, str]:
    """The colour of each arm, by its place in the configuration; beyond seven they repeat."""
    return {arm: PALETTE[index % len(PALETTE)] for index, arm in enumerate(arms)}


def shares(found: Sequence[HourShare], arms: Sequence[str]) -> alt.Chart:
    """Share of each arm by hour of the day, stacked to 100 %.   arms: in the order of the configuration."""
    names = [*arms, *sorted({one.arm for one in found} - set(arms))]
    drawn = {one.arm for one in found}
    rows = [
        {
            "hour": f"{one.hour:02d}",
            "model": one.arm,
            "share": one.share,
            "decisions": one.decisions,
            "at": names.index(one.arm),
        }
        for one in found
    ]
    chart = alt.Chart(_data(rows)).mark_bar(stroke="white", strokeWidth=1)
    return _styled(
        chart.encode(
            x=alt.X(
                "hour:O",
                title="hour of the day (UTC)",
                scale=alt.Scale(domain=[f"{hour:02d}" for hour in range(24)], paddingInner=0.08),
                axis=alt.Axis(labelAngle=0, labelOverlap=True),
            ),
            y=alt.Y("share:Q", stack="normalize", title="share of decisions", axis=alt.Axis(format="%", tickCount=5)),
            color=_colour("model", names, drawn),
            order=alt.Order("at:Q"),
            tooltip=["hour:O", "model:N", alt.Tooltip("share:Q", format=".1%"), "decisions:Q"],
        )
    )


def spend(points: Sequence[SpendPoint]) -> alt.LayerChart:
    """Money over the day, against what the budget allows for as many requests."""
    rows = [
        {"hour": point.hour, "usd": usd, "what": what}
        for point in points
        for what, usd in (("spent", point.spent), ("budget", point.allowed))
    ]
    base = alt.Chart(_data(rows)).encode(
        x=alt.X(
            "hour:Q",
            title="hour of the day (UTC)",
            scale=alt.Scale(domain=[0, 24]),
            axis=alt.Axis(values=list(range(0, 25, 4)), format="02d", labelFlush=False),
        ),
        y=alt.Y("usd:Q", title="USD since midnight", axis=alt.Axis(format="$.2~f", tickCount=5)),
        color=alt.Color(
            "what:N", scale=alt.Scale(domain=["spent", "budget"], range=[PALETTE[0], QUIET]), legend=_legend("stroke")
        ),
        strokeDash=alt.StrokeDash(
            "what:N", scale=alt.Scale(domain=["spent", "budget"], range=[[1, 0], [5, 4]]), legend=None
        ),
        tooltip=["what:N", alt.Tooltip("hour:Q", format=".1f"), alt.Tooltip("usd:Q", format="$.4f")],
    )
    return _styled(alt.layer(base.mark_line(strokeWidth=2.2)))


def plane(rows: Sequence[PlaneRow], mixes: Sequence[HullPoint], budget: float, arms: Sequence[str]) -> alt.LayerChart:
    """Cost against quality, with 95 % intervals both ways, the hull of mixes and the budget (USD per request)."""
    shown = [_point(row, row.usd, row.reward) for row in rows if row.usd is not None and row.reward is not None]
    names = [row["name"] for row in shown]
    palette = colours(arms)
    colour = alt.Color(
        "name:N", scale=alt.Scale(domain=names, range=[palette.get(name, INK) for name in names]), legend=None
    )
    span = _span([*(r["usd_low"] for r in shown), *(r["usd_high"] for r in shown), 1e3 * budget])
    x = alt.X(
        "usd:Q",
        title="USD per 1,000 requests (log scale)",
        scale=alt.Scale(
            type="log",
            nice=False,
            domain=span,
        ),
        axis=alt.Axis(format="$~g", values=_ticks(span), grid=False),
    )
    y = alt.Y("reward:Q", title="mean reward", scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(tickCount=6))
    points = alt.Chart(_data(shown)).encode(x=x, y=y, color=colour, tooltip=_TOOLTIP)
    line = (
        alt.Chart(_data([{"usd": 1e3 * point.usd, "reward": point.reward} for point in mixes]))
        .mark_line(color=QUIET, strokeWidth=1.6, strokeDash=[5, 4])
        .encode(x=x, y=y)
    )
    limit = alt.Chart(_data([{"usd": 1e3 * budget, "label": "budget"}])).encode(x="usd:Q")
    return _styled(
        alt.layer(
            limit.mark_rule(color=PALETTE[4], strokeWidth=1.4),
            limit.mark_text(color=PALETTE[4], align="left", dx=5, dy=-6, fontSize=12).encode(
                y=alt.value(12), text="label:N"
            ),
            line,
            points.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q", title="mean reward"), y2="high:Q"),
            points.mark_rule(strokeWidth=2).encode(x=alt.X("usd_low:Q"), x2="usd_high:Q"),
            points.mark_point(filled=True, size=130, opacity=1.0).encode(
                shape=alt.Shape(
                    "kind:N",
                    scale=alt.Scale(domain=["fixed model", "policy"], range=["circle", "diamond"]),
                    legend=_legend(),
                )
            ),
            _labels(points, "fixed model", "left", 8),
            _labels(points, "policy", "right", -10),
        ),
        height=_HEIGHT + 150,
    )


def interval(looks: Sequence[Look]) -> alt.LayerChart:
    """The interval of a difference as rounds come in, and the zero line that it has to leave.

    The axis is that of the last two thirds: before, the interval is nearly all there is, and runs out of the picture.
    """
    late = [look for look in looks if 3 * look.rounds >= looks[-1].rounds]
    reach = 1.1 * max(max(abs(look.low), abs(look.high)) for look in late)
    shown = alt.Scale(domain=[-reach, reach], nice=False)
    axis = alt.Axis(format="+.2~f", tickCount=6)

    def y(name: str) -> alt.Y:
        return alt.Y(f"{name}:Q", title="policy less model, reward", scale=shown, axis=axis)

    base = alt.Chart(_data([look._asdict() for look in looks])).encode(
        x=alt.X("rounds:Q", title="rounds", axis=alt.Axis(format=",d", grid=False, tickCount=8)),
        tooltip=["rounds:Q", *(alt.Tooltip(f"{name}:Q", format="+.4f") for name in ("mean", "low", "high"))],
    )
    zero = alt.Chart(_data([{"at": 0.0}])).mark_rule(color=INK, strokeWidth=1.2).encode(y=y("at"))
    return _styled(
        alt.layer(
            base.mark_area(color=PALETTE[0], opacity=0.22, clip=True).encode(y=y("low"), y2="high:Q"),
            *(base.mark_line(color=PALETTE[0], strokeWidth=1.2, clip=True).encode(y=y(end)) for end in ("low", "high")),
            base.mark_line(color=PALETTE[4], strokeWidth=2.0, clip=True).encode(y=y("mean")),
            zero,
        )
    )


_TOOLTIP = [
    alt.Tooltip("name:N"),
    alt.Tooltip("kind:N"),
    alt.Tooltip("reward:Q", format=".4f", title="mean reward"),
    alt.Tooltip("reward_interval:N", title="reward"),
    alt.Tooltip("usd:Q", format="$.4f", title="USD per 1,000"),
    alt.Tooltip("usd_interval:N", title="USD per 1,000"),
    alt.Tooltip("rounds:Q", title="rounds that played it"),
    alt.Tooltip("ess:Q", format=".0f", title="effective rounds"),
]


def _labels(points: alt.Chart, kind: str, align: Literal["left", "right"], dx: int) -> alt.Chart:
    """Names beside points: models to the right, policies to the left, where they seldom meet."""
    text = points.transform_filter(alt.datum.kind == kind).mark_text(
        align=align, dx=dx, dy=-14, fontSize=13, fontWeight=600
    )
    return text.encode(text="label:N")


def _point(row: PlaneRow, usd: Estimate, reward: Estimate) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "label": row.name if row.kind == "fixed model" else f"policy {row.name}",
        "usd": 1e3 * usd.value,
        "usd_low": 1e3 * max(usd.low, usd.value / 10.0),  # a log axis has no zero
        "usd_high": 1e3 * usd.high,
        "reward": reward.value,
        "low": reward.low,
        "high": reward.high,
        "usd_interval": money_interval(usd),
        "reward_interval": reward_interval(reward),
        "rounds": row.rounds,
        "ess": row.ess,
    }


def _ticks(span: Sequence[float]) -> list[float]:
    """1, 2 and 5 times powers of ten within the span."""
    decades = range(math.floor(math.log10(span[0])), math.ceil(math.log10(span[1])) + 1)
    return [t for d in decades for t in (10.0**d, 2 * 10.0**d, 5 * 10.0**d) if span[0] <= t <= span[1]]


def _span(values: Sequence[float]) -> list[float]:
    """A log axis with room for labels at its right end."""
    return [min(values) / 1.5, max(values) * 2.2]


def _colour(field: str, names: Sequence[str], shown: Collection[str]) -> alt.Color:
    palette = {name: colour for name, colour in colours(names).items() if name in shown}
    scale = alt.Scale(domain=list(palette), range=list(palette.values()))
    return alt.Color(f"{field}:N", scale=scale, legend=_legend())


def _legend(symbol: str = "square") -> alt.Legend:
    return alt.Legend(title=None, orient="top", direction="horizontal", labelLimit=240, symbolType=symbol)


def _data(rows: Sequence[dict[str, Any]]) -> alt.InlineData:
    return alt.InlineData(values=list(rows))


def _styled(chart: Any, height: int = _HEIGHT) -> Any:  # noqa: ANN401 - Chart or LayerChart, as it came
    return (
        chart.properties(height=height)
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=QUIET,
            titleColor=QUIET,
            gridColor=GRID,
            domainColor=GRID,
            tickColor=GRID,
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
        )
        .configure_legend(labelColor=INK, labelFontSize=12)
    )
