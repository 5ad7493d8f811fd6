"""Ask a Prefect server to run the pilot: two requests of its REST API. Prefect itself is not imported here."""

from __future__ import annotations

import base64
import os
from typing import Any
from urllib.parse import quote

import httpx

from service.errors import ServiceError

_PATIENCE_S = 10.0


class PrefectUnavailableError(ServiceError):
    """There is no Prefect server that takes the run."""

    status = 503
    headers = {"Retry-After": "5"}  # noqa: RUF012 - nobody writes into it


async def enqueue(deployment: str, parameters: dict[str, Any], key: str) -> str:
    """Have a deployment ("flow/name") run with these parameters; the id of Prefect's flow run.

    key: asked for again with the same, it is the same flow run. Raises PrefectUnavailableError.
    """
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        raise PrefectUnavailableError(
            "PREFECT_API_URL must name a Prefect server to enqueue to, but is not set for this service; start one "
            "with `make prefect` and set it, or leave out mode=enqueue."
        )
    try:
        async with httpx.AsyncClient(base_url=url.rstrip("/"), headers=_credentials(), timeout=_PATIENCE_S) as prefect:
            name = "/".join(quote(part, safe="") for part in deployment.split("/", 1))
            found = (await prefect.get(f"/deployments/name/{name}")).raise_for_status().json()
            asked = {"parameters": parameters, "idempotency_key": key}
            made = await prefect.post(f"/deployments/{found['id']}/create_flow_run", json=asked)
            return str(made.raise_for_status().json()["id"])
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        hint = "deploy it with `prefect deploy --all`" if status == 404 else "see the server's log"
        raise PrefectUnavailableError(
            f"the Prefect server must take {deployment}, but answers with {status}; {hint}."
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
        raise PrefectUnavailableError(
            f"the Prefect server must answer, but does not ({type(error).__name__}); start it, or leave out "
            "mode=enqueue."
        ) from None


def _credentials() -> dict[str, str]:
    """What Prefect itself would send: a key of Prefect Cloud, or the user and password of one's own server."""
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if pair := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    return {}
