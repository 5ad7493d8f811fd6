"""Serve: what `pilotage serve` calls. Plain HTTP, on this machine alone unless told otherwise."""

from __future__ import annotations

import copy
import logging
from typing import Any

import uvicorn
from prometheus_client import disable_created_metrics
from uvicorn.config import LOGGING_CONFIG

from bandits.config import load_config
from bandits.serving import Home
from service.app import create_app
from service.keys import list_keys, redact

log = logging.getLogger("pilotage.service")


class Redact(logging.Filter):
    """Cuts whatever looks like a key out of a line, wherever a caller put it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        record.msg = redact(str(record.msg))
        if isinstance(record.args, tuple):
            record.args = tuple(redact(each) if isinstance(each, str) else each for each in record.args)
        return True


def serve(host: str = "127.0.0.1", port: int = 8080) -> None:
    """Serve the home and configuration of the environment until interrupted.

    Raises ConfigError, RecordError or KeyFileError before anything listens.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody reads
    place = Home.here()
    app = create_app(place, load_config())
    keys = len(list_keys(place))
    config = uvicorn.Config(app, host=host, port=port, server_header=False, log_config=_logging())
    if not keys:
        log.warning("no API key was made yet, so nobody can ask; run `pilotage key TENANT NAME`.")
    if host not in ("127.0.0.1", "::1", "localhost"):
        log.warning("%s is reached from other machines, and HTTP shows keys on the way; put TLS in front.", host)
    uvicorn.Server(config).run()


def _logging() -> dict[str, Any]:
    """The server's own set-up, with our lines beside its own and no key in either."""
    settings = copy.deepcopy(LOGGING_CONFIG)
    settings["filters"] = {"redact": {"()": Redact}}
    for handler in settings["handlers"].values():
        handler["filters"] = ["redact"]
    settings["loggers"]["pilotage"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return settings
