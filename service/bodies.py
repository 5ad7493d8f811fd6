"""What goes in and what comes out, as the OpenAPI document shows it. Unknown fields and other types are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

LONGEST_PROMPT = 100_000  # characters
MOST_FEATURES = 9_999  # the widest "vector-D"
MOST_TURNS = 50


def _whole(value: object) -> object:
    if isinstance(value, bool | float):  # 1.0 and true equal 1, and mean something else
        raise ValueError("must be 1 or -1")
    return value


User = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        description="Your name for the person who asks; only a keyed hash of it is kept. Feedback must name the same.",
    ),
]
Number = Annotated[float, Field(allow_inf_nan=False)]
NAME: dict[str, Any] = {"pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"}  # told here, held to by bandits.types.valid_name
Workspace = Annotated[
    str, Field(description="A workspace of the key's tenant.", examples=["main"], json_schema_extra=NAME)
]
Domain = Annotated[str, Field(description="A configured domain.", examples=["model_routing"], json_schema_extra=NAME)]


class Incoming(BaseModel):
    """What is sent: of these types, and nothing else."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TenantOnly(BaseModel):
    """The query of every route: nothing, or the key's own tenant."""

    model_config = ConfigDict(extra="forbid")

    tenant: str | None = Field(
        default=None, description="Whose request it is. The key says so already: any other value is refused (403)."
    )


class ScopeQuery(TenantOnly):
    """Which scopes of the key's tenant; left out: all of them."""

    workspace: Workspace | None = None
    domain: Domain | None = None


class BudgetQuery(ScopeQuery):
    """Whose money."""

    user: User | None = None


class TurnBody(Incoming):
    """Something said before the prompt."""

    role: Literal["user", "assistant"]
    text: Annotated[str, Field(max_length=LONGEST_PROMPT)]
    time: Annotated[Number, Field(ge=0.0, le=1e11)] | None = Field(
        default=None, description="UTC, seconds since the epoch."
    )


class AskerBody(Incoming):
    """What the app knows of its user from their earlier requests of this domain."""

    requests: Annotated[int, Field(ge=0, le=1_000_000_000)]
    mean_reward: Annotated[Number, Field(ge=0.0, le=1.0)] | None = Field(
        default=None, description="Of the answers they got; left out: none was judged."
    )
    favourite_share: Annotated[Number, Field(ge=0.0, le=1.0)] = Field(
        default=0.0, description="Share of their requests that their commonest arm answered."
    )
    days: Annotated[Number, Field(ge=0.0, le=100_000.0)] = Field(default=0.0, description="Since the first of them.")


class RouteBody(Incoming):
    """What to decide on: a prompt, or the context of a domain with features of its own. Exactly one of them."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prompt": "Explain tail recursion.", "domain": "model_routing"}]}
    )

    prompt: Annotated[str, Field(min_length=1, max_length=LONGEST_PROMPT)] | None = None
    context: Annotated[list[Number], Field(min_length=1, max_length=MOST_FEATURES)] | None = None
    workspace: Workspace = "main"
    domain: Domain = "model_routing"
    user: User | None = None
    conversation: Annotated[list[TurnBody], Field(max_length=MOST_TURNS)] = Field(
        default=[],
        description=f"What was said before the prompt, oldest first, {LONGEST_PROMPT:,} characters in all; no text of "
        "it is kept. Read where the domain's features look at conversations (text-2).",
    )
    asker: AskerBody | None = Field(default=None, description="Read where the domain's features look at it (text-2).")

    @model_validator(mode="after")
    def _one(self) -> RouteBody:
        if (self.prompt is None) == (self.context is None):
            raise ValueError("exactly one of prompt and context must be given")
        if self.prompt is None and (self.conversation or self.asker is not None):
            raise ValueError("conversation and asker must come with a prompt; a context says all that is known")
        length = sum(len(turn.text) for turn in self.conversation)
        if length > LONGEST_PROMPT:
            raise ValueError(
                f"conversation must have at most {LONGEST_PROMPT:,} characters in all, but has {length:,}; "
                "leave out the oldest turns"
            )
        return self


class FeedbackBody(Incoming):
    """What came back for a decision: quality, vote, cost or latency, one of them at least. What was not measured is
    left out: missing is not zero.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"decision_id": "0193a5c1f2e0" + "5f" * 26, "quality": 0.8, "cost_usd": 4e-4}]}
    )

    decision_id: Annotated[str, Field(min_length=1, max_length=64, description="As POST /route answered it.")]
    user: User | None = None
    event_id: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None,
        description="Your name for what happened: reported again, it is not recorded again. Left out, a report that "
        "says the same as the last one of its kind is taken for a repeat.",
    )
    quality: Annotated[Number, Field(ge=0.0, le=1.0)] | None = None
    vote: Annotated[Literal[-1, 1], BeforeValidator(_whole)] | None = None
    cost_usd: Annotated[Number, Field(ge=0.0, le=10_000.0)] | None = Field(default=None, description="USD.")
    latency_s: Annotated[Number, Field(ge=0.0, le=1_000_000.0)] | None = Field(default=None, description="Seconds.")
    arm: Annotated[str, Field(min_length=1, max_length=63)] | None = Field(
        default=None,
        description="The arm that it tells of, where your app asked another than was drawn. Left out: the one whose "
        "answer this service gave, or else the one drawn.",
    )

    @model_validator(mode="after")
    def _something(self) -> FeedbackBody:
        if self.quality is None and self.vote is None and self.cost_usd is None and self.latency_s is None:
            raise ValueError("at least one of quality, vote, cost_usd and latency_s must be given")
        return self


class RouteAnswer(BaseModel):
    """The decision, recorded."""

    decision_id: str = Field(description="Send it with POST /feedback; it is good for this tenant and user alone.")
    arm: str
    model: str = Field(description="The name the provider knows the arm's model by.")
    propensity: float = Field(description="Probability with which the arm was drawn, in (0, 1].")
    probabilities: dict[str, float] = Field(description="By arm; they sum to 1.")
    policy: str = Field(description="Version of the snapshot that acted, or 'explore'.")
    slot: str
    excluded: dict[str, str] = Field(description="Arms that could not be drawn, with the reason.")


class FeedbackAnswer(BaseModel):
    """What came of a report."""

    recorded: bool = Field(description="false: it was heard already, and nothing was written.")


class ArmAnswer(BaseModel):
    """One arm of a story."""

    name: str
    probability: float
    q_hat: float | None = Field(description="Estimated reward; null where the policy has no such estimate.")
    sigma: float | None = Field(description="Posterior deviation of q_hat; null where the policy does not know it.")
    cost_usd: float | None
    excluded: str | None
    quarantined: str | None = Field(description="Since when an arm that broke is only probed; null: it is sound.")


class OutcomeAnswer(BaseModel):
    """One outcome of a story."""

    decision_id: str
    time: float
    scope: str
    quality: float | None
    cost_usd: float | None
    latency_s: float | None
    vote: int | None
    source: str
    arm: str = Field(description="The arm that it tells of, where another answered than was drawn; '': the one drawn.")
    result: str = Field(description="Of an attempt: why the model finished, or 'failed:' and why.")
    input_tokens: int | None
    output_tokens: int | None
    first_token_s: float | None


class StoryAnswer(BaseModel):
    """A decision, explained."""

    id: str
    time: float = Field(description="UTC, seconds since the epoch.")
    scope: str
    policy: str
    slot: str
    schema_: str = Field(alias="schema", description="Name and version of the features.")
    context: list[float]
    features: dict[str, float] = Field(description="The context by name; empty for numbers of the caller's own.")
    arm: str
    propensity: float
    price: float = Field(description="Reward that a dollar had to earn.")
    pressure: float = Field(description="Spent against target when deciding.")
    forced: bool
    seen: int = Field(description="Position of the record that it had learned up to behind its snapshot; 0: none.")
    arms: list[ArmAnswer]
    conversation: str = Field(description="Pseudonym of the conversation; '': a request of its own.")
    attempts: list[OutcomeAnswer] = Field(description="Those of the outcomes that tell of asking a model, in order.")
    served: str | None = Field(description="The arm whose answer was shown; null where nobody told.")
    outcomes: list[OutcomeAnswer]
    reward: float | None = Field(description="In [0, 1]; null while it is missing.")
    cost_usd: float | None
    replays: bool | None = Field(description="The policy gives these probabilities again; null: it is not at hand.")
    learner: dict[str, Any] | None = Field(description="Who learned the policy, and why it was chosen; null: nobody.")
    rules: str | None = Field(description="The rules of a tree, where one acted.")


class SnapshotAnswer(BaseModel):
    """One published policy."""

    scope: str
    version: str
    kind: str | None
    position: int | None = Field(description="Of the last row of the record that it learned from.")
    created: float | None = Field(description="UTC, seconds since the epoch.")
    expires: float | None
    content: str | None = Field(description="Hash of its arrays.")
    fault: str | None = Field(description="Why it is refused; null for one that verifies.")
    serving: bool = Field(description="Whether it serves anybody.")
    share: float = Field(description="Of users whom it serves: less than 1 while a newer one is rolled out beside it.")


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    """Decisions can be made and recorded."""

    status: Literal["ready"] = "ready"
    record: Literal["writable"] = "writable"
    learned: int = Field(description="Scopes in use that serve a snapshot.")
    first: int = Field(description="Scopes in use that serve the first policy: nothing was published yet.")
    stale: int = Field(description="Scopes whose newest snapshot is refused, while an older policy goes on serving.")
    faults: list[str] = Field(description="Why, for the scopes of the key's tenant; empty without a key.")


class ErrorText(BaseModel):
    """What was wrong."""

    type: str
    message: str = Field(description="What must hold, what arrived, what to do.")


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorText
