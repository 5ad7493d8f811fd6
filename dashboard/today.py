"""Today: money, quality, feedback, the models' shares, what routing earned, the policy that serves, the last night."""

from __future__ import annotations

import streamlit as st

from bandits.warehouse.loading import Run
from dashboard import charts, figures, source, words
from dashboard.figures import Active, Saved
from dashboard.frame import WINDOW_DAYS, Evidence, View, evidence, view


def page() -> None:
    """Draw the page."""
    shown = view()
    draws = source.draws(shown.place.warehouse, shown.scope, shown.domain, shown.day)
    found = evidence(shown)
    _strip(shown, draws, found)
    _earned(shown, found)
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Share of models")
        st.altair_chart(charts.shares(figures.hourly_shares(draws), shown.domain.arm_names), width="stretch")
    with right:
        st.subheader("Spend against budget")
        curve = figures.spend_curve(draws, shown.domain.budget_usd_per_request)
        st.altair_chart(charts.spend(curve), width="stretch")
    _night(source.last_run(shown.place.warehouse, shown.scope), shown.now)


def _strip(shown: View, draws: figures.Draws, found: Evidence) -> None:
    money = figures.spend(draws, shown.domain.budget_usd_per_request)
    rate = figures.feedback_rate(draws, found.log)
    reward = figures.mean_reward(found.log, shown.start)
    serving = source.active_policy(shown.place, shown.scope, shown.domain, shown.now)
    spent, quality, feedback, policy = st.columns(4)
    if money.known:
        against = f"{words.percent(money.pace)} of the budget of {words.per_thousand(money.budget)}"
    else:
        against = "no cost was reported yet"
    _card(
        spent,
        "Spend per 1,000 requests",
        words.per_thousand(money.per_request),
        against,
        f"{words.dollars(money.usd)} in all for {money.requests:,} requests; the cost of {money.known:,} is known.",
    )
    if reward is None:
        _card(quality, "Mean reward", "none yet", "no decision of the day has a reward", "")
    else:
        text = f"{words.reward_interval(reward)} · n = {rate.rewarded:,}"
        help_ = "Mean over decisions whose reward is known, 0 to 1, with a normal interval. Missing is not zero."
        _card(quality, "Mean reward", f"{reward.value:.3f}", text, help_)
    _card(
        feedback,
        "Feedback rate",
        words.percent(rate.rate) if rate.decisions else "none yet",
        f"{rate.rewarded:,} of {rate.decisions:,} decisions have a reward",
        "Decisions with a reward among those that were drawn (neither forced nor shadow).",
    )
    _policy(policy, serving, shown.now)


def _policy(place: st.delta_generator.DeltaGenerator, serving: Active, now: float) -> None:
    if serving.manifest is None:
        text = serving.rollout or "nothing is published yet"
        _card(place, "Active policy", serving.version, text, "The first policy: try every model.")
    else:
        m = serving.manifest
        text = f"{serving.kind} · {words.age(now - m.created)} old · expires in {words.age(m.expires - now)}"
        text = serving.rollout or text
        dates = f"Published {words.moment(m.created)}, expires {words.moment(m.expires)}; signature checked."
        _card(place, "Active policy", serving.version, text, dates)
    for fault in serving.faults:
        st.warning(f"A newer snapshot is refused. {fault}")


def _earned(shown: View, found: Evidence) -> None:
    st.subheader("What routing earned")
    prices = figures.catalogue(shown.domain)
    budget = shown.domain.budget_usd_per_request
    result = figures.saved(found.log, found.arms, prices, shown.start, budget)
    if result is None:
        st.info(
            "Not enough data: the log does not yet say what the best affordable model alone would have earned. It "
            "needs 200 effective rounds that speak for that model, and 50 rewards with a cost on the day."
        )
        return
    reward, money, mix = st.columns(3)
    _card(
        reward,
        f"Reward against always {result.arm}",
        words.signed(result.reward.value),
        words.reward_interval(result.reward, sign=True),
        f"{result.arm} is the best single model that the budget affords for every request.",
    )
    more = result.usd.value < 0.0
    usd = figures.negated(result.usd) if more else result.usd
    _card(
        money,
        f"{'Spent more than' if more else 'Saved against'} always {result.arm}, per 1,000",
        words.per_thousand(usd.value),
        words.money_interval(usd),
        "The difference between what was paid and what that model alone would have cost.",
    )
    _mix(mix, result)
    unknown = f" Not comparable, too rarely drawn: {', '.join(result.unknown)}." if result.unknown else ""
    st.caption(
        f"Estimated from the log of {WINDOW_DAYS} days by doubly robust scores, rewards and costs alike, weighted by "
        f"policy version; {result.ess:,.0f} effective rounds speak for {result.arm}. Intervals are 95 %, for one look, "
        f"and assume that prompts and models stayed alike.{unknown}"
    )


def _mix(place: st.delta_generator.DeltaGenerator, result: Saved) -> None:
    label = "Saved at equal reward, per 1,000"
    help_ = (
        "What the cheapest context-free mix of fixed models that earns the same reward would cost, less what was paid."
    )
    if result.equal_reward is None:
        _card(place, label, "beyond any mix", "no mix of fixed models earns as much", help_)
    else:
        found = result.equal_reward
        below = f"{words.money_interval(found)} · {words.percent(result.equal_reward_share)} of its cost"
        _card(place, label, words.per_thousand(found.value), below, help_)


def _night(run: Run | None, now: float) -> None:
    st.subheader("Last night")
    if run is None:
        st.caption("No night has run yet. `pilotage night` learns from the log and publishes what the evidence allows.")
        return
    report = run["report"]
    verdict = f"Published {report['version']}" if report.get("version") else "Kept what serves"
    st.markdown(f"**{verdict}**, {words.age(now - run['time'])} ago. {_text(report.get('reason', ''))}")
    with st.expander("The whole report"):
        st.markdown(_text(report.get("markdown", "")))


def _text(markdown: object) -> str:
    """Markdown whose dollars are not formulas, and whose heading does not shout."""
    return str(markdown).replace("$", "\\$").replace("# Night", "#### Night", 1)


def _card(place: st.delta_generator.DeltaGenerator, label: str, value: str, below: str, help_: str) -> None:
    place.metric(
        label,
        value.replace("$", "\\$"),
        below.replace("$", "\\$"),
        delta_color="off",
        delta_arrow="off",
        help=help_.replace("$", "\\$") or None,
        border=True,
        height="stretch",
    )


page()
