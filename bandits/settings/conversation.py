"""How a domain treats conversations, and what it takes as a sign that an answer was not good enough."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

_Worth = Annotated[float, Field(ge=0.0, le=1.0)] | None
_Seconds = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ConversationConfig(_Strict):
    """When the arm of a conversation is drawn anew; requests that name no conversation are each drawn."""

    decide: Literal["once", "each_turn"] = Field(
        default="once",
        description="once: later turns stay with the arm that was drawn; each_turn: drawn again where that pays",
    )
    redecide_after_s: _Seconds | None = Field(
        default=3600.0,
        description="a silence after which it is drawn anew: nothing of it is cached by then; none: never",
    )
    reask_s: _Seconds = Field(
        default=60.0, description="asking the same again within this, counted from the answer, is a signal"
    )


class SignalWorth(_Strict):
    """Quality that each signal stands for, used as a vote is; none: it is recorded, and says nothing of the reward."""

    reask: _Worth = None
    regenerate: _Worth = None
