"""Serve: what `pilotage serve` calls. Plain HTTP, on this machine alone unless told otherwise."""

from __future__ import annotations

import copy
import gc
import logging
import os
import sys
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from bandits.config import load_config
from bandits.home import Home
from service.keys import list_keys, redact

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger("pilotage.service")

TOGETHER = "PROMETHEUS_MULTIPROC_DIR"  # folder in which several workers count; read when Prometheus' client is loaded
KEEP_ALIVE_S = 75  # longer than clients keep a connection: who closes first while the other sends loses a request
SWITCH_S = 0.0005  # a thread that computes may keep the event loop waiting for so long, ten times less than by default


class Redact(logging.Filter):
    """Cuts whatever looks like a key out of a line, wherever a caller put it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        record.msg = redact(str(record.msg))
        if isinstance(record.args, tuple):
            record.args = tuple(redact(each) if isinstance(each, str) else each for each in record.args)
        return True


def serve(host: str = "127.0.0.1", port: int = 8080, workers: int = 1) -> None:
    """Serve the home and configuration of the environment until interrupted.

    workers: processes that share the port, the record and the count of requests; each follows what the others do.
    Raises ConfigError, RecordError or KeyFileError before anything listens.
    """
    place, _ = Home.here(), load_config()
    place.open_record().close()  # before anything listens: each worker opens its own
    if not list_keys(place):
        log.warning("no API key was made yet, so nobody can ask; run `pilotage key TENANT NAME`.")
    if host not in ("127.0.0.1", "::1", "localhost"):
        log.warning("%s is reached from other machines, and HTTP shows keys on the way; put TLS in front.", host)
    settings: dict[str, Any] = {"host": host, "port": port, "server_header": False, "log_config": _logging()}
    # the gate says what is worth a line, and nobody asks who is behind a proxy: both cost each request
    settings |= {"timeout_keep_alive": KEEP_ALIVE_S, "access_log": False, "proxy_headers": False}
    if workers == 1:
        uvicorn.run(made(), **settings)
        return
    with TemporaryDirectory(prefix="pilotage-metrics-") as folder:
        os.environ[TOGETHER] = folder
        settings["timeout_worker_healthcheck"] = 60  # s; a worker that loads on a busy machine is not dead
        uvicorn.run("service.run:made", factory=True, workers=workers, **settings)


def made() -> FastAPI:
    """The app of one process."""
    from service.app import create_app  # noqa: PLC0415 - see TOGETHER
    from service.metrics import quiet  # noqa: PLC0415

    sys.setswitchinterval(SWITCH_S)
    quiet()
    app = create_app(Home.here(), load_config())
    gc.freeze()  # all that was loaded stays: to look through it for garbage holds up every request for 0.1 s
    return app


def _logging() -> dict[str, Any]:
    """The server's own set-up, with our lines beside its own and no key in either."""
    settings = copy.deepcopy(LOGGING_CONFIG)
    settings["filters"] = {"redact": {"()": Redact}}
    for handler in settings["handlers"].values():
        handler["filters"] = ["redact"]
    settings["loggers"]["pilotage"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return settings
