"""A State as bytes, and back: JSON for what is said, raw arrays behind it. Nothing here can run what it reads.

    8 bytes: length of the JSON | JSON | arrays, one after another

A tuple, path, mapping or dataclass stands in the JSON as {"$": what, "of": parts}; an array as its kind, shape, place.
Only dataclasses that a State can hold are read back (found by following the annotations of State), so that stored bytes
never choose what is built. What is not of these kinds is refused when it is written, not when it is needed.
"""

from __future__ import annotations

import functools
import json
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphs.errors import RunsError
from graphs.state import State

_KINDS = "biuf"  # of arrays: truths and numbers, never objects


def encode(value: Any) -> bytes:  # noqa: ANN401 - anything that a State holds
    """Bytes from which `decode` gives an equal value. Raises RunsError for what no State holds."""
    arrays: list[np.ndarray[Any, Any]] = []
    said = json.dumps(_out(value, arrays), separators=(",", ":")).encode()
    return b"".join([len(said).to_bytes(8, "big"), said, *(array.tobytes() for array in arrays)])


def decode(data: bytes) -> Any:  # noqa: ANN401 - anything that a State holds
    """The value that `encode` was given. Raises RunsError if these are not its bytes."""
    try:
        start = 8 + int.from_bytes(data[:8], "big")
        return _in(json.loads(data[8:start]), memoryview(data)[start:])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunsError(
            f"a stored State must be as this version writes it, but is not ({type(error).__name__}: {error}); "
            "run its documents anew."
        ) from None


@functools.cache
def storable() -> Mapping[str, type[Any]]:
    """The dataclasses that a State can hold, by name."""
    from graphs.equipment import ENCODERS  # noqa: PLC0415 - scikit-learn, which whoever only asks never needs

    found: dict[str, type[Any]] = {}
    for one in (
        *typing.get_type_hints(State).values(),
        *ENCODERS,
    ):  # behind a protocol: no annotation leads there
        _follow(one, found)
    return found


def _follow(annotation: Any, found: dict[str, type[Any]]) -> None:  # noqa: ANN401 - any annotation
    for argument in typing.get_args(annotation):
        _follow(argument, found)
    if isinstance(annotation, type) and is_dataclass(annotation) and annotation.__name__ not in found:
        found[annotation.__name__] = annotation
        for hint in typing.get_type_hints(annotation).values():
            _follow(hint, found)


def _out(value: Any, arrays: list[np.ndarray[Any, Any]]) -> Any:  # noqa: ANN401
    if isinstance(value, np.generic) and value.dtype.kind in _KINDS:
        return value.item()
    if value is None or isinstance(value, bool | str | int | float):
        return value
    if isinstance(value, list):
        return [_out(one, arrays) for one in value]
    kind, said = _tagged(value, arrays)
    return {"$": kind, "of": said}


def _tagged(value: Any, arrays: list[np.ndarray[Any, Any]]) -> tuple[str, Any]:  # noqa: ANN401
    if isinstance(value, np.ndarray) and value.dtype.kind in _KINDS:
        at = sum(array.nbytes for array in arrays)
        arrays.append(np.ascontiguousarray(value))
        return "array", [value.dtype.str, value.shape, at]
    if type(value) is tuple:  # a named one would come back as a plain one
        return "tuple", [_out(one, arrays) for one in value]
    if isinstance(value, Path):
        return "path", str(value)
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return "mapping", {key: _out(one, arrays) for key, one in value.items()}
    known = storable().get(type(value).__name__)
    if known is type(value):
        return known.__name__, {one.name: _out(getattr(value, one.name), arrays) for one in fields(known)}
    raise RunsError(
        "a State must hold texts, numbers, arrays, tuples, mappings, paths, and the dataclasses that it is annotated "
        f"with, but holds {type(value).__module__}.{type(value).__qualname__}; add it to the annotations of State."
    )


def _in(said: Any, arrays: memoryview) -> Any:  # noqa: ANN401
    if isinstance(said, list):
        return [_in(one, arrays) for one in said]
    if not isinstance(said, dict):
        return said
    kind, of = said["$"], said["of"]
    if kind == "array":
        return _array(of, arrays)
    if kind == "tuple":
        return tuple(_in(one, arrays) for one in of)
    if kind == "path":
        return Path(of)
    whole = {key: _in(one, arrays) for key, one in of.items()}
    return whole if kind == "mapping" else storable()[kind](**whole)


def _array(said: tuple[str, list[int], int], arrays: memoryview) -> np.ndarray[Any, Any]:
    dtype, shape, at = said
    kind = np.dtype(dtype)
    if kind.kind not in _KINDS:
        raise ValueError(f"an array of {dtype}")
    return np.frombuffer(arrays, kind, int(np.prod(shape, dtype=np.int64)), at).reshape(shape).copy()
