"""What both pages share: the choice of scope and day, what was read for it, and calm notices instead of tracebacks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

import streamlit as st

from bandits.config import DomainConfig, load_config
from bandits.errors import NotEnoughDataError, PilotageError
from bandits.home import Home
from bandits.record.sql import SqlRecord
from bandits.types import Scope
from bandits.what_if import counterfactual
from bandits.what_if.counterfactual import FixedArm, Log, Models
from dashboard import source, words
from dashboard.figures import DAY_S

WINDOW_DAYS = 28  # of the log that estimates of fixed models are read from
_KEY = "view"
_STYLE = "<style>[data-testid=stMainBlockContainer] {padding-top: 4rem; max-width: 1280px}</style>"


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What the person looks at."""

    place: Home
    scope: Scope
    domain: DomainConfig
    day: date  # UTC
    now: float  # UTC, seconds since the epoch

    @property
    def start(self) -> float:
        """First second of the day, UTC since the epoch."""
        return source.start_of(self.day)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """The log of the window that ends with the day, and what it says of each fixed model."""

    log: Log
    arms: list[FixedArm]
    models: Models | None = None  # None: too few rounds to fit any


def choose() -> None:
    """Ask for scope and day, and keep the answer for the page; without data, say what to do and stop."""
    st.html(_STYLE)  # a heading needs no 6 rem of air
    config, place = load_config(), Home.here()
    if not place.warehouse.exists():
        _nothing(place)
    scopes, decided = config.scopes(), source.days(place.warehouse)
    first = next((index for index, one in enumerate(scopes) if one in decided), 0)
    left, middle, right = st.columns([2, 1, 3], vertical_alignment="bottom")
    scope = left.selectbox("Tenant / workspace / domain", scopes, first, format_func=str, key="scope")
    domain = config.domains[scope.domain]
    days = decided.get(scope)
    if not days:
        st.info(
            f"The warehouse holds no decision of **{scope}** yet. Serve some requests, then run `pilotage load`; "
            "or choose another scope."
        )
        st.stop()
    day = middle.selectbox("Day (UTC)", days[::-1], key="day")
    with right:
        _now(place, scope)
    st.session_state[_KEY] = View(place, scope, domain, day, time.time())


def view() -> View:
    """What `choose` kept."""
    found: View = st.session_state[_KEY]
    return found


def evidence(shown: View) -> Evidence:
    """Log and fixed models for the view; kept until the warehouse, the configuration or the choice changes."""
    status = shown.place.warehouse.stat()
    stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
    key = (str(shown.place.warehouse), str(shown.scope), shown.domain.model_dump_json(), shown.start)
    closing = (
        shown.domain.reward.default is not None
    )  # then a window that closes changes a reward, if nothing else does
    return _evidence(key, stamp, int(shown.now // 60.0) if closing else 0, shown)


@contextmanager
def calm() -> Iterator[None]:
    """Show an error of ours as a notice with its own advice, and offer to try again."""
    try:
        yield
    except PilotageError as error:
        st.warning(f"This page cannot be shown just now. {_plain(str(error))}")
        st.button("Try again")
        st.stop()


@st.cache_resource(max_entries=4, show_spinner="Reading the log …")
def _evidence(key: tuple[str, str, str, float], stamp: tuple[int, ...], minute: int, _shown: View) -> Evidence:
    """The arguments with no leading underscore are the cache's key; `minute` lets windows close."""
    whole = source.log(_shown.place.warehouse, _shown.scope, _shown.domain, _shown.now)
    times, end = whole.feedback.times, _shown.start + DAY_S
    window = whole.where((times < end) & (times >= end - WINDOW_DAYS * DAY_S))
    arms = range(window.feedback.k)
    try:
        models = counterfactual.fit(window.feedback, _shown.domain)
    except NotEnoughDataError:
        return Evidence(window, [counterfactual.unknown(window, arm) for arm in arms])
    return Evidence(window, [counterfactual.fixed_arm(window, models, arm) for arm in arms], models)


@st.cache_resource(max_entries=1, show_spinner=False)
def _record(url: str, inode: int) -> SqlRecord:
    """The record, opened once; anew when another file takes its place."""
    return SqlRecord(url)


@st.fragment(run_every="10s")
def _now(place: Home, scope: Scope) -> None:
    """One quiet line, renewed by itself: what happened since the warehouse was loaded."""
    file = place.record_file
    if file is not None and not file.exists():
        return
    try:
        reached = source.position(place.warehouse)
        found = source.newest(_record(place.record_url, file.stat().st_ino if file else 0), reached, scope)
    except PilotageError:
        st.caption("Now: the warehouse or the record is busy; this line comes back by itself.")
        return
    if found.last_time is None and found.outcomes == 0:
        st.caption("Now: up to date. Nothing has happened since the warehouse was loaded.")
        return
    last = ""
    if found.last_time is not None:
        last = f", the last {words.age(time.time() - found.last_time)} ago by {found.last_arm}"
    st.caption(
        f"Now: {found.decisions:,} decisions and {found.outcomes:,} outcomes since the warehouse was loaded{last}. "
        "`pilotage load` brings them in."
    )


def _nothing(place: Home) -> None:
    known = place.root.exists()
    st.info(
        ("There is a home, but no warehouse yet. " if known else "There is nothing to show yet. ")
        + "Run `pilotage load` to bring the record into the warehouse, or `pilotage demo` to fill a home with a day "
        f"of real prompts. Pilotage looks in `{place.root}`; set `PILOTAGE_HOME` to look elsewhere."
    )
    st.stop()


def _plain(text: str) -> str:
    """Text of an error as Markdown that shows it as it is: dollars are not formulas, lines stay lines."""
    return text.replace("$", "\\$").replace("\n", "  \n")
