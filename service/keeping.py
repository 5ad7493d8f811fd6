"""Make, list, renew and revoke the keys of one's own tenant: for keys that are good for `admin`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from service.bodies import TenantOnly
from service.call import Call, Here, errors
from service.errors import UnknownKeyError
from service.key_bodies import KeyAnswer, KeyBody, NewKeyAnswer, RenewBody
from service.keys import ApiKey, list_keys, make_key, note, renew_key, revoke_key

router = APIRouter(tags=["keys"])
_WHO = "HTTP"
_REFUSED = errors(401, 403, 404, 408, 413, 422, 429, 503)
Prefix = Annotated[str, Path(min_length=12, max_length=12, description="As GET /keys lists it.")]


@router.get("/keys", name="keys", summary="List keys", responses=errors(401, 403, 422, 429, 503))
def keys(here: Here, _: Annotated[TenantOnly, Query()]) -> list[KeyAnswer]:
    """The keys of this key's tenant: how each begins and what it is good for. No list can bring a key itself back."""
    return [_shown(key) for key in _own(here)]


@router.post("/keys", name="key", summary="Make a key", responses=_REFUSED)
def key(body: KeyBody, here: Here, _: Annotated[TenantOnly, Query()]) -> NewKeyAnswer:
    """A new key for the same tenant, good from the next request on."""
    made = make_key(here.parts.home, here.tenant, body.name, body.scopes)
    note(here.parts.home, here.tenant, _WHO, "an API key was made", {"name": body.name, "scopes": body.scopes})
    return NewKeyAnswer(key=made)


@router.post("/keys/{prefix}/renewal", name="key_renewal", summary="Renew a key", responses=_REFUSED)
def renewal(prefix: Prefix, body: RenewBody, here: Here, _: Annotated[TenantOnly, Query()]) -> NewKeyAnswer:
    """The successor of a key, good for the same; the old one stays good for the overlap, so that no request fails."""
    old = _found(here, prefix)
    made = renew_key(here.parts.home, prefix, body.overlap_s, here.tenant)
    evidence = {"name": old.name, "overlap_hours": body.overlap_s / 3600.0}
    note(here.parts.home, here.tenant, _WHO, "an API key was renewed", evidence)
    return NewKeyAnswer(key=made)


@router.delete("/keys/{prefix}", name="key_end", summary="Revoke a key", responses=_REFUSED)
def revoke(prefix: Prefix, here: Here, _: Annotated[TenantOnly, Query()]) -> KeyAnswer:
    """The next request with it is refused."""
    _found(here, prefix)
    gone = revoke_key(here.parts.home, prefix, here.tenant)
    note(here.parts.home, here.tenant, _WHO, "an API key was revoked", {"name": gone.name})
    return _shown(gone)


def _own(here: Call) -> list[ApiKey]:
    return [key for key in list_keys(here.parts.home) if key.tenant == here.tenant]


def _found(here: Call, prefix: str) -> ApiKey:
    """The key of the tenant that begins so. Raises UnknownKeyError, whoever else's it may be."""
    for one in _own(here):
        if one.prefix == prefix:
            return one
    raise UnknownKeyError("a prefix must be that of a key of this tenant, but is not; see GET /keys.")


def _shown(key: ApiKey) -> KeyAnswer:
    return KeyAnswer(
        prefix=key.prefix, name=key.name, scopes=list(key.scopes), created=key.created, expires=key.expires
    )
