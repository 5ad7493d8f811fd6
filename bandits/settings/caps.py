"""What a tenant may spend at most."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Cap = Annotated[float, Field(gt=0.0, le=1e9, allow_inf_nan=False)] | None


class CapsConfig(BaseModel):
    """What a tenant may spend at most, in USD by UTC calendar; none: no limit. A request that does not fit is refused.

    Kept to the nano-dollar (see money/caps.py); a finer digit is cut off.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    usd_per_day: Cap = None
    usd_per_month: Cap = None
    usd_per_user_day: Cap = Field(default=None, description="of each single user, where decisions name one")
