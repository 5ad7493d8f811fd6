"""Put the parts together: one app over one home and one configuration."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

import numpy as np
from fastapi import FastAPI
from fastapi.routing import APIRoute

from bandits.config import Config
from bandits.ids import IdRing
from bandits.serving import Home
from service import deciding, piloting, watching
from service.call import Parts
from service.errors import Refusals
from service.gate import Gate
from service.keys import KeyRing
from service.metrics import Metrics
from service.pilot import Pilot
from service.servers import Servers

_ABOUT = """Decides which model should answer each prompt, learns from every answer, proves a change before it makes it.

Every request but `/healthz`, `/readyz` and `/openapi.json` carries an API key, which says whose request it is: nothing
of another tenant can be read, written or guessed at. Every error has the body `{"error": {"type", "message"}}`."""


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
    keys, pilots = KeyRing(home), pilot or Pilot()
    pilots.open(home, config, servers)
    refusals = Refusals(home.root, metrics.refused)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        servers.start()
        pilots.resume()
        try:
            yield
        finally:
            servers.stop()
            pilots.close()
            record.close()

    app = FastAPI(
        title="Pilotage",
        version=version("pilotage"),
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation,
    )
    app.state.parts = Parts(home, config, clock, record, IdRing(home.root), keys, servers, metrics, pilots)
    for room in (deciding, piloting, watching):
        app.include_router(room.router)
    app.add_middleware(Gate, keys=keys, refusals=refusals)
    refusals.install(app)
    return app


def _operation(route: APIRoute) -> str:
    return route.name
