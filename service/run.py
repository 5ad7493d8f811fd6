"""Serve: what `pilotage serve` calls. Plain HTTP, on this machine alone unless told otherwise."""

from __future__ import annotations

import copy
import logging
import sys
from typing import Any

import uvicorn
from prometheus_client import disable_created_metrics
from uvicorn.config import LOGGING_CONFIG

from bandits.config import load_config
from bandits.serving import Home
from service.app import create_app
from service.keys import list_keys, redact

log = logging.getLogger("pilotage.service")


SWITCH_S = 0.0005  # a thread that computes may keep the event loop waiting for so long, ten times less than by default
_RECORDED = ("/route", "/feedback", "/v1/", "/healthz", "/readyz", "/metrics")


class Unrecorded(logging.Filter):
    """Leaves out of the access log what went well and stands in the record, or is a probe's."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        said = record.args
        return not (
            isinstance(said, tuple) and len(said) == 5 and said[4] == 200 and str(said[2]).startswith(_RECORDED)
        )


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
    sys.setswitchinterval(SWITCH_S)
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
    settings["filters"]["unrecorded"] = {"()": Unrecorded}
    for handler in settings["handlers"].values():
        handler["filters"] = ["redact"]
    settings["loggers"]["uvicorn.access"]["filters"] = ["unrecorded"]
    settings["loggers"]["pilotage"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return settings
