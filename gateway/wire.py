"""What a wire format is: pure translation of the house's form into a provider's JSON, and of its JSON into pieces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from gateway.adapter import Ask, GatewayError, Piece, Usage


class Reader(Protocol):
    """One streamed answer as it is read.

    finished: whether the model has said why it stopped, so that the answer is whole.   done: nothing more will come.
    """

    finished: bool
    done: bool

    def read(self, body: Any) -> Iterator[Piece]:  # noqa: ANN401 - parsed JSON
        """The pieces that an event's data holds. Raises KeyError, TypeError … on what is not the format."""


class Wire(Protocol):
    """A wire format."""

    def request(self, model: str, ask: Ask, *, stream: bool) -> tuple[str, dict[str, Any]]:
        """The path below base_url, and the body. Raises GatewayError, `bad_request`, for what cannot be said in it."""

    def whole(self, body: Any) -> Piece:  # noqa: ANN401 - parsed JSON
        """An answer that came in one. Raises KeyError, TypeError … on what is not the format."""

    def reader(self) -> Reader:
        """A reader for one streamed answer."""


def count(usage: Mapping[str, Any], *names: str) -> int:
    """The tokens that a provider's usage gives under these names, added up; what it does not give is 0."""
    return sum(max(0, int(usage[name])) for name in names if usage.get(name) is not None)


def usage_of(input_tokens: int, output_tokens: int, cached_tokens: int) -> Usage:
    """A usage whose parts fit together: what was cached is part of the input."""
    return Usage(input_tokens, output_tokens, min(cached_tokens, input_tokens))


def given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that somebody gave a value."""
    return {name: value for name, value in fields.items() if value is not None}


def cannot(what: str, remedy: str) -> GatewayError:
    """The failure of a request that a wire format has no words for."""
    return GatewayError(f"{what}; {remedy}.", kind="bad_request")
