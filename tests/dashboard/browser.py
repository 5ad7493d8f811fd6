"""A headless Chromium, driven through its DevTools protocol: opens a page, waits for text, sees every request."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import pytest
from websockets.sync.client import connect

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
]


def chromium() -> str:
    """Path of the browser. Where there is none a newcomer's test is skipped, and fails in CI, which installs one."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        told = "this test needs Chromium on the PATH (Debian: apt-get install chromium)"
        pytest.fail(told) if os.environ.get("CI") else pytest.skip(told)
    return found


class Browser:
    """One tab. `requests` holds the address of every request that it made since it opened."""

    def __init__(self, program: str, profile: Path, width: int = 1400, height: int = 1500) -> None:
        size = f"--window-size={width},{height}"
        self._process = subprocess.Popen(
            [program, *FLAGS, size, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.requests: list[str] = []
        self._last = 0
        try:
            self._attach(profile, width, height)
        except BaseException:
            self._process.kill()
            raise

    def _attach(self, profile: Path, width: int, height: int) -> None:
        port = _until(lambda: _port(profile / "DevToolsActivePort"), "Chromium says its port")
        self._socket = connect(_until(lambda: _tab(port), "a tab opens"), max_size=None, proxy=None)
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")
        view = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **view)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(20.0)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer; requests seen meanwhile are kept."""
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=30.0))
            if message.get("method") == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            elif message.get("method") == "Network.webSocketCreated":
                self.requests.append(message["params"]["url"])
            elif message.get("id") == self._last:
                assert "error" not in message, message
                return message["result"]

    def text(self) -> str:
        """The page as a person reads it."""
        found = self.call("Runtime.evaluate", expression="document.body ? document.body.innerText : ''")
        return str(found["result"].get("value", ""))

    def read(self, address: str, wanted: str, seconds: float = 60.0) -> str:
        """Open `address` and wait until `wanted` is to be read."""
        self.call("Page.navigate", url=address)
        return str(_until(lambda: text if wanted in (text := self.text()) else None, f"{wanted!r} shows", seconds))

    def screenshot(self, path: Path) -> None:
        """The window as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


def _port(path: Path) -> int | None:
    lines = path.read_text().split("\n") if path.exists() else []
    return int(lines[0]) if len(lines) > 1 else None


def _tab(port: int) -> str | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    try:
        connection.request("GET", "/json/list")
        tabs = json.loads(connection.getresponse().read())
    except OSError:
        return None
    finally:
        connection.close()
    return next((tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"), None)


def _until(found: Any, what: str, seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = found()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds:g} s in vain until {what}")
