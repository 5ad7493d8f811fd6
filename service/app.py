"""Put the parts together: one app over one home and one configuration."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.routing import APIRoute

from bandits.config import Config
from bandits.home import Home
from bandits.ids import IdRing
from service import chatting, deciding, keeping, piloting, reading, watching
from service.call import SCHEME, Parts
from service.errors import Refusals
from service.front import Front
from service.gate import Gate, needed
from service.keys import KeyRing
from service.limits import Limiter, open_store
from service.metrics import Metrics
from service.models import Models
from service.pilot import Pilot
from service.quick import QuickRoute
from service.servers import Servers

_ABOUT = """Decides which model should answer each prompt, learns from every answer, proves a change before it makes it.

Every request but `/healthz`, `/readyz` and `/openapi.json` carries an API key, which says whose request it is and what
it may ask: nothing of another tenant can be read, written or guessed at. Every error has the body
`{"error": {"type", "message"}}`. 402: a cap of money is used up; 429: too many requests; both say `Retry-After`."""


def create_app(
    home: Home,
    config: Config,
    *,
    clock: Callable[[], float] = time.time,
    rng: np.random.Generator | None = None,
    refresh_s: float = 1.0,
    pilot: Pilot | None = None,
) -> FastAPI:
    """The service over `home`, whose record it opens, and closes when the app shuts down.

    clock: UTC, seconds since the epoch.   rng: source of every draw; fresh from the system where left out.
    refresh_s: seconds between two looks for a newer snapshot.   pilot: how many runs at once.
    Raises RecordError when the record cannot be opened.
    """
    home.root.mkdir(parents=True, exist_ok=True)
    record, metrics = home.open_record(), Metrics()
    servers = Servers(home, config, record, rng or np.random.default_rng(), clock, refresh_s)
    keys, pilots = KeyRing(home, clock), pilot or Pilot()
    models = Models(config)
    pilots.open(home, config, servers, models)
    refusals = Refusals(home.root, metrics.refused)
    limiter = Limiter(open_store(home.root / "limits.bin", config.service), clock)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        servers.start()
        pilots.resume()
        try:
            yield
        finally:
            await asyncio.to_thread(pilots.close)  # the runs under way may still ask a model, here
            await models.close()
            servers.stop()
            record.close()

    app = Front(
        title="Pilotage",
        version=version("pilotage"),
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation,
    )
    ids = IdRing(home.root)
    parts = Parts(home, config, clock, record, ids, keys, servers, metrics, pilots, limiter, models, refusals)
    app.state.parts = parts
    for room in (deciding, chatting, reading, piloting, watching, keeping):
        app.include_router(room.router)
    app.door = Gate(QuickRoute(app.behind, parts), keys, refusals, limiter, config)
    refusals.install(app)
    _say_scopes(app)
    return app


def _say_scopes(app: FastAPI) -> None:
    """Let the OpenAPI document say what a key must be good for, operation by operation (as roles, OpenAPI 3.1)."""
    made, making = app.openapi, threading.Lock()

    def openapi() -> dict[str, Any]:
        with making:  # the framework's own is not safe under threads
            if app.openapi_schema is not None:
                return app.openapi_schema
            document = made()
            for path, operations in document["paths"].items():
                for method, operation in operations.items():
                    wanted = needed(method.upper(), path)
                    if wanted is not None:
                        operation["security"] = [{SCHEME: [wanted]}]
            return document

    app.openapi = openapi  # type: ignore[method-assign]


def _operation(route: APIRoute) -> str:
    return route.name
