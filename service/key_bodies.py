"""What goes in and out of the routes of keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.bodies import NAME, Incoming, Number

KeyScope = Literal["route", "feedback", "read", "operate", "admin"]


class KeyBody(Incoming):
    """The key to make, for the tenant of the key that asks."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "bot", "scopes": ["route", "feedback"]}]})

    name: Annotated[str, Field(min_length=1, max_length=63, description="What it is for.", json_schema_extra=NAME)]
    scopes: Annotated[list[KeyScope], Field(min_length=1, max_length=5)] = Field(
        default=["route", "feedback", "read"], description="What it is good for."
    )


class RenewBody(Incoming):
    """How long the old key stays good beside its successor."""

    overlap_s: Annotated[Number, Field(ge=0.0, le=31_536_000.0)] = Field(default=86_400.0, description="Seconds.")


class KeyAnswer(BaseModel):
    """What is kept of a key."""

    prefix: str = Field(description="Its first characters, to name it by.")
    name: str
    scopes: list[str]
    created: float = Field(description="UTC, seconds since the epoch.")
    expires: float | None = Field(description="UTC, seconds since the epoch; null: never.")


class NewKeyAnswer(BaseModel):
    """A key that was made."""

    key: str = Field(description="It is shown this once.")
