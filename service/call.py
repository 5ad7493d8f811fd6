"""What a route works with: the parts of the app, and whose request it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request

from bandits.config import Config
from bandits.home import Home
from bandits.ids import IdRing
from bandits.record.port import Record
from service.bodies import ErrorBody
from service.errors import InvalidRequestError, Refusals, TenantRefusedError
from service.keys import KeyRing
from service.limits import Limiter
from service.metrics import Metrics
from service.models import Models
from service.pilot import Pilot
from service.servers import Servers

SCHEME = "ApiKey"
_BEARER = HTTPBearer(
    auto_error=False,  # the gate has decided; this only writes it into the OpenAPI document
    scheme_name=SCHEME,
    description="`Authorization: Bearer plt_…`, from `pilotage key`. It says which tenant asks, and what it may ask: "
    "the roles of an operation are what a key must be good for.",
)
_EXAMPLES = {
    401: ("KeyRefusedError", "a request must have one header 'Authorization: Bearer plt_…', but has 0; make a key …"),
    402: ("BudgetExhaustedError", "a request must fit every cap, but the day of tenant acme has 0 USD left of …"),
    403: ("TenantRefusedError", "tenant must be that of the key; leave it out."),
    404: ("UnknownScopeError", "workspace must be one of main, but got 'elsewhere'; add it to pilotage.toml."),
    408: ("SlowBodyError", "a body must come whole within 30 s, but did not; send it again."),
    409: ("RunCancelledError", "a run must not be cancelled to have a result, but 0193… was; ask for it again."),
    413: ("BodyTooLargeError", "a body must have at most 10,000,000 bytes, but has more; send it in parts."),
    422: ("InvalidRequestError", "body.quality: Input should be less than or equal to 1, but got 7.0. See …"),
    429: ("RateLimitedError", "requests of the tenant must be at most 600 a minute, but are more; ask again in 2 s."),
    500: ("PilotFailedError", "analysis must end on documents that could be read, but in run 0193… it failed: …"),
    502: ("UnansweredError", "a model must answer, but …"),
    504: ("UnansweredError", "an answer must begin within 20 s, but did not; …"),
    503: ("RecordError", "the record must be a SQLite file that can be read and written, but …"),
}


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that an app is made of; one of it for each app."""

    home: Home
    config: Config
    clock: Callable[[], float]  # UTC, seconds since the epoch
    record: Record
    ids: IdRing
    keys: KeyRing
    servers: Servers
    metrics: Metrics
    pilot: Pilot
    limiter: Limiter
    models: Models
    refusals: Refusals

    async def check_user(self, tenant: str, user: str | None) -> None:
        """Count a request of a tenant's user, as the app names it. Raises RateLimitedError."""
        if user:
            most = self.config.tenants[tenant].rates.user_requests_per_minute
            await self.limiter.check("the user", tenant, user, most)


@dataclass(frozen=True, slots=True)
class Call:
    """One request: `tenant` is that of its key."""

    tenant: str
    parts: Parts


def own_tenant(tenant: str, named: str | None) -> None:
    """Raise unless a request names no tenant but its key's. The text is the same whoever else it names."""
    if named is not None and named != tenant:
        raise TenantRefusedError("tenant must be that of the key; leave it out.")


async def _call(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]) -> Call:
    tenant = request.state.tenant
    given = request.query_params.multi_items()
    for name, value in given:
        own_tenant(tenant, value if name == "tenant" else None)
    if len({name for name, _ in given}) < len(given):
        raise InvalidRequestError("a query flag must be given once, but one stands twice; leave one out.")
    return Call(tenant, request.app.state.parts)


Here = Annotated[Call, Depends(_call)]


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI document says of these statuses."""
    return {status: _described(*_EXAMPLES[status]) for status in statuses}


def _described(name: str, message: str) -> dict[str, Any]:
    example = {"error": {"type": name, "message": message}}
    return {"model": ErrorBody, "description": name, "content": {"application/json": {"example": example}}}
