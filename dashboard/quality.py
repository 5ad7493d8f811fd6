"""Cost and quality: fixed models, their mixes and the policies that acted, on one plane and in one table; below, how
sure the log has become that a policy is better than a fixed model.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import streamlit as st

from dashboard import charts, figures
from dashboard.figures import PlaneRow
from dashboard.frame import WINDOW_DAYS, Evidence, View, evidence, view
from dashboard.running import conclusion, running

_COLUMNS = (
    "name",
    "kind",
    "reward",
    "reward low",
    "reward high",
    "USD per 1,000",
    "USD low",
    "USD high",
    "rounds",
    "effective rounds",
    "verdict",
)


def page() -> None:
    """Draw the page."""
    shown = view()
    found = evidence(shown)
    rows = figures.plane(found.log, found.arms, figures.newest_versions(found.log))
    st.subheader("What a dollar buys")
    if any(row.reward for row in rows):
        budget = shown.domain.budget_usd_per_request
        st.altair_chart(charts.plane(rows, figures.hull(rows), budget, shown.domain.arm_names), width="stretch")
    else:
        st.info("Not enough data to place any model or policy: serve on, and give feedback.")
    st.caption(
        "Up is better, left is cheaper. Circles: one model for every request, estimated from the log by doubly robust "
        "scores weighted by policy version. Diamonds: the policies that acted last, by their own requests. Dashed: the "
        "best context-free mix of the fixed models at each price; a policy above it earns its keep. Whiskers are 95 % "
        f"intervals over the {WINDOW_DAYS} days up to {shown.day}."
    )
    silent = [row.name for row in rows if row.reward is None]
    if silent:
        st.caption(f"Not drawn, since the log says too little of them: {', '.join(silent)}.")
    table = [_cells(row) for row in rows]
    st.dataframe(
        [dict(zip(_COLUMNS, row, strict=True)) for row in table],
        hide_index=True,
        placeholder="–",
        width="stretch",
        column_config={
            **{name: st.column_config.NumberColumn(format="%.4f") for name in _COLUMNS[2:8]},
            "effective rounds": st.column_config.NumberColumn(format="%.0f"),
        },
    )
    name = f"cost-and-quality-{shown.scope.tenant}-{shown.scope.workspace}-{shown.scope.domain}-{shown.day}.csv"
    st.download_button("Download CSV", _csv(table), name, "text/csv", on_click="ignore")
    _sure(shown, found)


def _sure(shown: View, found: Evidence) -> None:
    st.subheader("How sure is it?")
    if found.models is None:
        st.info("Not enough data to say how sure: 200 rounds with a reward are the least that models are fitted to.")
        return
    left, right, _ = st.columns([1, 1, 2])
    version = left.selectbox("Policy that acted", figures.newest_versions(found.log), key="sure-policy")
    names = shown.domain.arm_names
    best = figures.best_affordable(found.arms, figures.catalogue(shown.domain), shown.domain.budget_usd_per_request)
    arm = right.selectbox("Against always", names, best, key="sure-arm")
    looks = running(found.log, found.models, version, names.index(arm))
    if looks:
        st.altair_chart(charts.interval(looks), width="stretch")
    st.markdown(f"**{conclusion(looks, version, arm)}**")
    st.caption(
        "Reward of the policy less that of the model, by paired doubly robust scores over the rounds that the policy "
        "drew. The band holds the difference with probability 95 % at every look at once, so one may stop at any time; "
        "it narrows as rounds come, and decides when it leaves the zero line."
    )


def _cells(row: PlaneRow) -> list[str | float | None]:
    reward = list(row.reward) if row.reward else [None, None, None]
    usd = [1_000.0 * value for value in row.usd] if row.usd else [None, None, None]
    return [row.name, row.kind, *reward, *usd, row.rounds, row.ess, row.verdict]


def _csv(table: Sequence[Sequence[str | float | None]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([_COLUMNS, *table])
    return out.getvalue()


page()
