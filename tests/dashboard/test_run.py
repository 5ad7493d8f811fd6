"""Facts about the real server: a browser sees the numbers, and nothing but this machine is asked for anything."""

from __future__ import annotations

import http.client
import socket
import time
import webbrowser
from urllib.parse import urlsplit

import pytest

from bandits.errors import PilotageError
from dashboard.run import DashboardError, serve
from tests.dashboard.browser import Browser, chromium
from tests.dashboard.worlds import configured, fill


def test_a_browser_sees_the_numbers_and_asks_nobody_else(tmp_path, monkeypatch, capsys):
    """Both pages draw with every request to 127.0.0.1; the address is printed; leaving the block ends the server."""
    program = chromium()
    place = configured(monkeypatch, tmp_path)
    served = fill(place, time.time(), n=60, silent=15)
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    with serve(0, open_browser=True) as found:
        assert opened == [found.address]
        assert found.address in capsys.readouterr().out
        with Browser(program, tmp_path / "profile") as browser:
            text = browser.read(found.address, "45 of 60 decisions have a reward")
            assert f"{sum(served.rewards) / 45:.3f}" in text
            browser.read(f"{found.address}/quality", "Download CSV")
            hosts = {urlsplit(address).hostname for address in browser.requests if "://" in address}
            assert len(browser.requests) > 10
            assert hosts == {"127.0.0.1"}
    with pytest.raises(OSError, match="refused"):
        http.client.HTTPConnection(found.address.removeprefix("http://"), timeout=5.0).connect()


def test_a_missing_browser_is_skipped_by_a_newcomer_and_fails_in_ci(monkeypatch, tmp_path):
    """Either way with its remedy."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        chromium()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        chromium()


def test_a_taken_port_is_named():
    """The error names the address and the way out, and nothing is started."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(DashboardError, match=rf"127.0.0.1:{port} says: .*; choose another with --port"):
            serve(port)
    with pytest.raises(PilotageError, match="port must be free"):
        serve(70_000)
