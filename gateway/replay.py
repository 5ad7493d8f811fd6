"""The replay adapter: answers from a recording of what models really said, cost and were judged to be worth.

For trying Pilotage without keys, and for benchmarks on prompts whose every outcome is known. It invents nothing: a
prompt that was not recorded is an error.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.adapter import Ask, GatewayError, Piece


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded reply. text: None where the source kept only the judgement."""

    quality: float
    cost_usd: float
    text: str | None = None


class Replay:
    """Adapter over recordings, prompt -> model -> Recording."""

    def __init__(self, recordings: Mapping[str, Mapping[str, Recording]]) -> None:
        self._recordings = recordings

    @property
    def prompts(self) -> list[str]:
        """The prompts that it can answer."""
        return list(self._recordings)

    def recorded(self, model: str, prompt: str) -> Recording:
        """What was recorded of `model` for `prompt`; raises GatewayError (unknown_prompt) where nothing was."""
        models = self._recordings.get(prompt)
        if models is None:
            raise GatewayError(
                f"replay can answer only the {len(self._recordings)} recorded prompts, but got {prompt[:60]!r}; "
                "ask one of those, or configure a live provider.",
                kind="unknown_prompt",
            )
        if model not in models:
            raise GatewayError(
                f"replay has {', '.join(sorted(models))} for this prompt, but not {model!r}; ask one of those.",
                kind="unknown_prompt",
            )
        return models[model]

    async def complete(self, model: str, ask: Ask) -> tuple[Piece, ...]:
        """See Adapter. The last piece carries the recorded quality and cost."""
        recording = self.recorded(model, ask.prompt)
        text = recording.text or f"[recorded reply of {model}; its text was not kept]"
        return Piece(text), Piece(finish="stop", quality=recording.quality, cost_usd=recording.cost_usd)

    async def stream(self, model: str, ask: Ask) -> AsyncGenerator[Piece]:
        """See Adapter. There are as many pieces as of a complete answer: a recording has no tokens."""
        for piece in await self.complete(model, ask):
            yield piece

    async def close(self) -> None:
        """See Adapter."""

    @classmethod
    def read(cls, path: Path) -> Replay:
        """Read JSON lines {"prompt", "model", "quality", "cost_usd", "text"?}; raises GatewayError naming the line."""
        recordings: dict[str, dict[str, Recording]] = {}
        try:
            lines = path.read_text(encoding="utf-8").split("\n")  # splitlines() would cut inside a text
        except (OSError, UnicodeDecodeError) as error:
            raise GatewayError(f"the recording {path} must be readable UTF-8, but: {error}.") from error
        for number, line in enumerate(lines, start=1):
            if line.strip():
                prompt, model, recording = _row(line, f"{path}, line {number}")
                recordings.setdefault(prompt, {})[model] = recording
        return cls(recordings)


def _row(line: str, where: str) -> tuple[str, str, Recording]:
    try:
        row = json.loads(line)
        missing = {"prompt", "model", "quality", "cost_usd"} - set(row)
    except (ValueError, TypeError) as error:
        raise GatewayError(f"each line of a recording must be a JSON object, but {where}: {error}.") from None
    if missing:
        raise GatewayError(f"a recording needs prompt, model, quality and cost_usd; {where} lacks {sorted(missing)}.")
    prompt, model, text, quality, usd = (row.get(k) for k in ("prompt", "model", "text", "quality", "cost_usd"))
    named = isinstance(prompt, str) and isinstance(model, str) and isinstance(text, str | None)
    measured = isinstance(quality, int | float) and isinstance(usd, int | float)
    if not (named and measured and 0.0 <= quality <= 1.0 and 0.0 <= usd < math.inf):
        raise GatewayError(
            f"a recording's prompt, model and text must be strings, its quality in [0, 1], its cost_usd >= 0; {where} "
            "holds something else."
        )
    return prompt, model, Recording(float(quality), float(usd), text)
