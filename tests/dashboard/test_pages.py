"""Facts about the pages as a person meets them: the numbers shown are those served, and trouble is a calm sentence."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
import streamlit as st
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.testing.v1 import AppTest

import dashboard
from bandits.config import load_config
from bandits.home import Home
from bandits.learners.baselines import ContextFree
from bandits.snapshots.keys import signing_key
from bandits.snapshots.publishing import publish
from bandits.types import Outcome
from bandits.warehouse.loading import load, write_run
from dashboard import source
from dashboard.words import per_thousand, signed
from tests.dashboard.worlds import ARMS, PRICES, SCOPE, Served, configured, fill

APP = str((dashboard.__path__[0]) + "/app.py")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home of its own."""
    return configured(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A home with 600 decisions of today, 500 of them with a reward, and what was served; only read by tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("filled")
        place = configured(patch, folder)
        served = fill(place, time.time())
    return place, served


@pytest.fixture
def shown(filled, monkeypatch) -> tuple[Home, Served]:
    """The filled home, chosen by the environment."""
    place, served = filled
    configured(monkeypatch, place.root.parent)
    return place, served


def opened(page: str | None = None) -> AppTest:
    """The app, run on one of its pages."""
    app = AppTest.from_file(APP, default_timeout=60.0).run()
    if page:
        app = app.switch_page(page).run()
    assert not app.exception, app.exception
    return app


def metrics(app: AppTest) -> dict[str, tuple[str, str]]:
    """Label -> (value, what stands below), as read."""
    return {m.label: (m.value.replace("\\", ""), m.delta.replace("\\", "")) for m in app.metric}


class TestToday:
    """The page that a router's owner opens in the morning."""

    def test_it_shows_what_was_spent_earned_and_fed_back(self, shown):
        """Spend, pace, reward, n and feedback rate equal those counted while serving."""
        _, served = shown
        found = metrics(opened())
        usd = sum(served.costs) / served.decisions
        reward = sum(served.rewards) / len(served.rewards)
        half = 1.959964 * np.std(served.rewards, ddof=1) / len(served.rewards) ** 0.5
        assert found["Spend per 1,000 requests"] == (
            per_thousand(usd),
            f"{100 * usd / 4e-4:.0f} % of the budget of $0.400",
        )
        assert found["Mean reward"] == (
            f"{reward:.3f}",
            f"95 %: {reward - half:.3f} to {reward + half:.3f} · n = 500",
        )
        assert found["Feedback rate"] == ("83 %", "500 of 600 decisions have a reward")
        assert found["Active policy"] == ("explore", "nothing is published yet")

    def test_it_compares_with_the_best_affordable_model(self, shown):
        """Money against always the good one: its mean price, well known from half the draws, less what was paid."""
        _, served = shown
        found = metrics(opened())
        mine = [c for c, arm in zip(served.costs, served.arms, strict=True) if arm == "good"]
        less = sum(mine) / len(mine) - sum(served.costs[:500]) / 500
        label = "Saved against always good, per 1,000"
        assert float(found[label][0].lstrip("$")) == pytest.approx(1e3 * less, abs=0.01)
        assert "Reward against always good" in found

    def test_the_last_night_and_the_active_policy_are_told(self, home):
        """The newest signed snapshot with kind, age and expiry; the newest run with its verdict and reason."""
        now = time.time()
        fill(home, now, n=30, silent=0)
        domain = load_config().domains[SCOPE.domain]
        mix = ContextFree("mix", ARMS, domain.features, np.array([0.5, 0.7, 0.8]), PRICES, 2.5e-4, 0.3)
        key = signing_key(home.root)
        publish(
            home.snapshots,
            SCOPE,
            mix.freeze(),
            position=60,
            parent=None,
            evidence={},
            created=now - 7_300.0,
            expires=now + 5.5 * 86_400.0,
            key=key,
        )
        for name, version, reason in (("r1", "000001", "An older one."), ("r2", None, "Too few $ rounds.")):
            report = {"version": version, "reason": reason, "markdown": f"# Night\n\n{reason}"}
            run = {"id": name, "scope": str(SCOPE), "time": now - 3_700.0, "verdict": "kept", "report": report}
            write_run(home.warehouse, run)
        app = opened()
        assert metrics(app)["Active policy"] == ("000001", "mix · 2 h old · expires in 5 d")
        texts = [element.value for element in app.markdown]
        assert "**Kept what serves**, 1 h ago. Too few \\$ rounds." in texts

    def test_a_refused_snapshot_is_a_warning(self, home):
        """A folder that does not verify never becomes the active policy in silence."""
        fill(home, time.time(), n=30, silent=0)
        forged = home.snapshots / "acme" / "main" / "model_routing" / "000007"
        forged.mkdir(parents=True)
        (forged / "manifest.json").write_text("{}")
        app = opened()
        assert metrics(app)["Active policy"][0] == "explore"
        assert any("000007" in warning.value for warning in app.warning)

    def test_too_little_evidence_is_said(self, home):
        """Thirty rewards are not enough to say what another model would have earned; what was counted still shows."""
        fill(home, time.time(), n=30, silent=0)
        app = opened()
        assert any("Not enough data" in info.value for info in app.info)
        assert metrics(app)["Feedback rate"][0] == "100 %"
        assert not any("always" in label for label in metrics(app))

    def test_now_counts_what_the_warehouse_has_not_seen(self, home):
        """A decision and an outcome after the load show up in the line that renews itself."""
        fill(home, time.time(), n=30, silent=0)
        assert any("up to date" in caption.value for caption in opened().caption)
        with home.open_record() as record:
            last = record.read(58, 2)[0].entry
            record.append(Outcome(last.id, time.time(), SCOPE, vote=1))
        assert any("0 decisions and 1 outcomes since" in caption.value for caption in opened().caption)

    def test_a_newer_load_is_seen(self, home):
        """What was read is forgotten as soon as the warehouse changes."""
        fill(home, time.time(), n=30, silent=10)
        assert metrics(opened())["Feedback rate"][0] == "67 %"
        with home.open_record() as record:
            last = record.read(58, 2)[0].entry
            record.append(Outcome(last.id, time.time(), SCOPE, quality=1.0))
            load(record, home.warehouse)
        assert metrics(opened())["Feedback rate"][0] == "70 %"


class TestCostAndQuality:
    """The plane and its table."""

    def test_the_table_tells_the_numbers_of_the_plane(self, shown):
        """The policy that acted stands with the mean cost and reward that were counted while serving."""
        _, served = shown
        app = opened("quality.py")
        table = {row["name"]: row for row in app.dataframe[0].value.to_dict("records")}
        usd = sum(c for c, _ in zip(served.costs, served.rewards, strict=False)) / len(served.rewards)
        assert table["explore"]["USD per 1,000"] == pytest.approx(1e3 * usd)
        assert table["explore"]["reward"] == pytest.approx(sum(served.rewards) / len(served.rewards))
        assert table["explore"]["rounds"] == len(served.rewards)
        assert [row["kind"] for row in table.values()] == ["fixed model"] * 3 + ["policy"]
        assert table["dear"]["verdict"] == "no support"

    def test_the_plane_shows_what_the_table_tells(self, shown):
        """Every point with an estimate, at the table's coordinates; what has none is named below."""
        app = opened("quality.py")
        table = {row["name"]: row for row in app.dataframe[0].value.to_dict("records")}
        chart, _ = app.get("vega_lite_chart")
        sets = [convert_arrow_bytes_to_pandas_df(named.data.data) for named in chart.proto.datasets]
        points = {row["name"]: row for rows in sets if "kind" in rows for row in rows.to_dict("records")}
        assert sorted(points) == ["cheap", "explore", "good"]
        for name, point in points.items():
            assert point["reward"] == pytest.approx(table[name]["reward"])
            assert point["usd"] == pytest.approx(table[name]["USD per 1,000"])
        assert any("Not drawn" in caption.value and "dear" in caption.value for caption in app.caption)


class TestHowSure:
    """The interval of a policy less a fixed model, below the plane."""

    def test_it_is_drawn_against_the_best_affordable_model_and_any_other_by_choice(self, shown):
        """The last look of the chart is the sentence below it."""
        app = opened("quality.py")
        assert [app.selectbox(key=key).value for key in ("sure-policy", "sure-arm")] == ["explore", "good"]
        for arm in ("good", "cheap"):
            app.selectbox(key="sure-arm").select(arm).run()
            _, chart = app.get("vega_lite_chart")
            sets = [convert_arrow_bytes_to_pandas_df(named.data.data) for named in chart.proto.datasets]
            (looks,) = [rows for rows in sets if "low" in rows]
            last = looks.to_dict("records")[-1]
            assert last["rounds"] == 500
            said = f"between {signed(last['low'])} and {signed(last['high'])} after 500 rounds"
            assert any(f"always {arm}" in text.value and said in text.value for text in app.markdown)
        app.selectbox(key="sure-arm").select("dear").run()
        assert any("No round of explore tells anything of always dear" in text.value for text in app.markdown)

    def test_a_short_log_says_so(self, home):
        fill(home, time.time(), n=30, silent=0)
        app = opened("quality.py")
        assert any("Not enough data to say how sure" in info.value for info in app.info)


class TestTrouble:
    """What is wrong is said in a sentence with its remedy, never as a traceback."""

    def test_without_a_home_it_says_how_to_begin(self, home):
        """Nothing is created by looking."""
        app = opened()
        assert "There is nothing to show yet" in app.info[0].value
        assert "pilotage demo" in app.info[0].value
        assert not home.root.exists()

    def test_without_a_warehouse_it_says_how_to_load(self, home):
        """A record alone is not shown: the load comes first."""
        fill(home, time.time(), n=5, loaded=False)
        app = opened()
        assert "pilotage load" in app.info[0].value
        assert not home.warehouse.exists()

    @pytest.mark.parametrize("page", [None, "quality.py"])
    def test_an_empty_warehouse_says_so(self, home, page):
        """Loaded from a record without a row."""
        fill(home, time.time(), n=0, silent=0)
        assert "holds no decision of **acme/idle/model_routing** yet" in opened(page).info[0].value

    def test_a_scope_without_traffic_can_be_left_again(self, shown):
        """Choosing the idle workspace explains; choosing back shows the numbers again."""
        app = opened()
        app.selectbox(key="scope").select_index(0).run()
        assert "acme/idle/model_routing" in app.info[0].value
        app.selectbox(key="scope").select_index(1).run()
        assert metrics(app)["Feedback rate"][0] == "83 %"

    @pytest.mark.parametrize("page", [None, "quality.py"])
    def test_a_locked_warehouse_is_a_notice(self, shown, page, monkeypatch):
        """Another process holds it: the page names it and says to wait; once it is free, the page is back."""
        monkeypatch.setattr(source, "PATIENCE_S", 0.1)
        place, _ = shown
        with held(place.warehouse) as pid:
            app = opened(page)
            assert re.search(rf"held for 0.1 s by process {pid}; wait until it is done", app.warning[0].value)
            assert len(app.metric) == 0
        app = app.run()
        assert len(app.warning) == 0
        assert len(app.metric if page is None else app.dataframe) > 0

    def test_a_fault_of_the_configuration_is_a_notice(self, home):
        """An unknown key is named, as every command does."""
        path = home.root.parent / "pilotage.toml"
        path.write_text("colour = 1\n" + path.read_text())
        assert "unknown key 'colour'" in opened().warning[0].value


@contextmanager
def held(path):
    """A second process that has the warehouse open for writing; yields its id."""
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        yield holder.pid
        holder.stdin.close()


def test_the_csv_is_the_table(shown, monkeypatch):
    """Every cell that the table shows stands in the file, and the file reads back as one."""
    kept = {}
    monkeypatch.setattr(st, "download_button", lambda _label, data, name, *_, **__: kept.update({name: data}))
    app = opened("quality.py")
    ((name, text),) = kept.items()
    assert re.fullmatch(r"cost-and-quality-acme-main-model_routing-\d{4}-\d\d-\d\d\.csv", name)
    back = list(csv.DictReader(io.StringIO(text)))
    shown_rows = app.dataframe[0].value.to_dict("records")
    assert [row["name"] for row in back] == [row["name"] for row in shown_rows]
    for row, other in zip(back, shown_rows, strict=True):
        if other["verdict"] == "ok":
            assert float(row["reward"]) == other["reward"]
            assert float(row["USD high"]) == other["USD high"]
