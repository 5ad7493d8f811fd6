"""A real server on a free port of this machine, over a home and a configuration of its own."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx
import jsonschema
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from bandits.config import Config, parse_config
from bandits.home import Home
from bandits.learners.baselines import ContextFree
from bandits.snapshots import publishing
from bandits.snapshots.keys import signing_key
from bandits.types import Scope
from service.app import create_app
from service.keys import make_key
from service.run import KEEP_ALIVE_S

ARMS = ("small", "middle", "large")


def two_tenants() -> Config:
    """Two tenants; one domain that reads prompts and one with three numbers of its own."""
    arms = [{"name": name, "model": f"maker/{name}", "usd_per_request": 1e-4} for name in ARMS]
    domain = {"arms": arms, "budget_usd_per_request": 1e-3, "burst": 1_000_000}
    return parse_config(
        {
            "tenants": {"acme": {"workspaces": ["main", "lab"]}, "rival": {"workspaces": ["main", "secret-lab"]}},
            "domains": {"model_routing": domain, "own": domain | {"features": "vector-3"}},
        },
        "test",
    )


@pytest.fixture
def home(tmp_path) -> Home:
    """A home that does not exist yet."""
    return Home(tmp_path / "home")


@pytest.fixture
def config() -> Config:
    """See two_tenants."""
    return two_tenants()


@pytest.fixture
def acme(home) -> str:
    """A key of the tenant acme."""
    return make_key(home, "acme", "test")


@pytest.fixture
def rival(home) -> str:
    """A key of the tenant rival."""
    return make_key(home, "rival", "test")


@dataclass
class Running:
    """An app behind a real socket."""

    app: FastAPI
    url: str

    def client(self, key: str | None, **kwargs: object) -> httpx.Client:
        """A client that holds every answer to the OpenAPI document. key: None for a stranger."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        hooks = {"response": [lambda response: _as_documented(self.app.openapi(), response)]}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120, event_hooks=hooks, **kwargs)


@contextmanager
def serving(home: Home, config: Config, **kwargs: object) -> Iterator[Running]:
    """Serve until the block ends; keyword arguments go to create_app."""
    app = create_app(home, config, rng=np.random.default_rng(1), **kwargs)
    # Named as TCP, so that asyncio sends at once; callers are taken from now on, and the server accepts them later.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_keep_alive=KEEP_ALIVE_S))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield Running(app, f"http://127.0.0.1:{listening.getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def start(home, config) -> Iterator[Callable[..., Running]]:
    """Starts a server; all are stopped afterwards."""
    with ExitStack() as stack:
        yield lambda **kwargs: stack.enter_context(serving(home, config, **kwargs))


@pytest.fixture
def serve_at() -> Iterator[Callable[..., Running]]:
    """Starts a server over any home; all are stopped afterwards."""
    with ExitStack() as stack:
        yield lambda home, config, **kwargs: stack.enter_context(serving(home, config, **kwargs))


@dataclass
class Shared:
    """A server, its home, acme's key, and a client for acme, rival and a stranger."""

    running: Running
    home: Home
    acme: str
    api: httpx.Client
    other: httpx.Client
    stranger: httpx.Client

    def head(self) -> int:
        """Rows that its record holds."""
        return self.running.app.state.parts.record.head()


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Iterator[Shared]:
    """One for all tests that leave nothing behind for another."""
    home = Home(tmp_path_factory.mktemp("shared") / "home")
    keys = make_key(home, "acme", "test"), make_key(home, "rival", "test"), None
    with serving(home, two_tenants()) as running, ExitStack() as stack:
        clients = [stack.enter_context(running.client(key)) for key in keys]
        yield Shared(running, home, keys[0], *clients)


@pytest.fixture
def running(start) -> Running:
    """One server."""
    return start()


@pytest.fixture
def api(running, acme) -> Iterator[httpx.Client]:
    """Acme's client."""
    with running.client(acme) as client:
        yield client


@pytest.fixture
def other(running, rival) -> Iterator[httpx.Client]:
    """Rival's client."""
    with running.client(rival) as client:
        yield client


@pytest.fixture
def publish(home) -> Callable[..., str]:
    """Publishes a policy that plays one arm (and the floor) for a scope; gives the version."""

    def published(arm: str = "large", scope: str = "acme/main/model_routing", to: Home = home) -> str:
        values = np.array([float(name == arm) for name in ARMS])
        policy = ContextFree("fixed", ARMS, "text-1", values, np.full(3, 1e-4), 1e-3, 0.02)
        now, key = time.time(), signing_key(home.root)
        manifest = publishing.publish(
            to.snapshots,
            Scope.parse(scope),
            policy.freeze(),
            position=0,
            parent=None,
            evidence={},
            created=now - 1.0,
            expires=now + 3600.0,
            key=key,
        )
        return manifest.version

    return published


def _as_documented(document: dict, response: httpx.Response) -> None:
    """Raise unless the document has this answer: its status, and the schema of its body."""
    for template, operations in document["paths"].items():
        operation = operations.get(response.request.method.lower())
        if operation and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), response.request.url.path):
            answers = operation["responses"]
            assert str(response.status_code) in answers, f"{template}: undocumented {response.status_code}"
            kinds = answers[str(response.status_code)].get("content", {})
            kind = response.headers.get("content-type", "").split(";")[0]
            assert not kinds or kind in {name.split(";")[0] for name in kinds}, f"{template}: undocumented {kind}"
            content = kinds.get("application/json") if kind == "application/json" else None
            response.read()
            if content:
                schema = content["schema"] | {"components": document["components"]}
                jsonschema.Draft202012Validator(schema).validate(json.loads(response.text))
