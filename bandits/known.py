"""What a router knows: what serves, what was spent, and what was learned since, level with the record.

All of it is a fold of the record (folds/state.py, day/learning.py), in which other processes write too. A router's own
entries count at once; when the fold comes to their rows, they are not counted again.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import compress
from pathlib import Path

from bandits.day import checkpoint
from bandits.day.learning import Learning
from bandits.errors import PilotageError
from bandits.folds.following import Reading, batches, gently
from bandits.folds.state import State
from bandits.policy import Policy
from bandits.record.port import Record
from bandits.served import OnTrial, Serving, begin, fit
from bandits.types import Decision, Outcome

_AHEAD = 2_000  # own entries that the state may be ahead of its position before somebody should catch up


class Known:
    """What one router knows. Thread-safe; who reads several things that belong together holds `lock`.

    state: what the record says of spending so far.   serving, learning: what serves, and what was learned behind it,
    None where nothing is.   canary: what a few are served instead.
    """

    state: State
    serving: Serving
    learning: Learning | None
    canary: OnTrial | None

    def __init__(self, state: State, record: Record, serving: Serving, learning: Learning | None = None) -> None:
        """learning: what was folded behind `serving` before; left out, it is folded now. Raises ContextError."""
        self.lock = threading.Lock()
        self._record = record
        self._ahead: Counter[str | Outcome] = Counter()  # own decisions (by id) and outcomes behind the position
        self._catching = threading.Lock()
        self.state, self.serving, self.canary = state, fit(serving, state.scope, state.domain), None
        self.learning = self._behind(self.serving, learning, batches)  # who begins has nobody to be gentle with
        self.catch_up()

    @property
    def policy(self) -> Policy:
        """What serves, with what was learned since."""
        return self.serving.policy if self.learning is None else self.learning.learned

    @property
    def quarantined(self) -> tuple[str, ...]:
        """Arms that broke since what serves was published."""
        learning = self.learning  # a swap may come between
        if learning is None:
            return ()
        return tuple(compress(self.state.domain.arm_names, learning.watch.quarantined.tolist()))

    @property
    def is_far_behind(self) -> bool:
        """Whether somebody should catch up, and nobody does."""
        return len(self._ahead) > _AHEAD and not self._catching.locked()

    def swap(self, serving: Serving, learning: Learning | None = None) -> None:
        """Serve another policy from now on. Refuses one for other features, or that knows no arm (ContextError).

        learning: what was folded behind it before, of this record; left out, it is folded now.
        """
        serving = fit(serving, self.state.scope, self.state.domain)
        with self._catching:
            canary = self.canary
            if learning is None and canary is not None and canary.serving.version == serving.version:
                serving, learning = canary.serving, canary.learning  # folded already; a row shown twice counts once
            learning = self._behind(serving, learning)
            with self.lock:
                self.serving, self.learning = serving, learning

    def try_out(self, serving: Serving | None, takes: Callable[[str, float], bool]) -> None:
        """Let a canary, already fitted, serve those whom it takes (unit, UTC seconds); None: nobody."""
        with self._catching:
            before = self.canary
            if serving is None:
                self.canary = None
            elif before is not None and before.serving.version == serving.version:
                self.canary = replace(before, takes=takes)
            else:
                self.canary = OnTrial(serving, takes, self._behind(serving))

    def count(self, decision: Decision) -> None:
        """Count an own decision, which the record does not have yet. The caller holds the lock."""
        self.state.add(decision)
        self._ahead[decision.id] += 1

    def take_back(self, decision: Decision) -> None:
        """Forget a decision that could not be recorded."""
        with self.lock:
            self._arrived(decision)
            self.state.cancel(decision)

    @contextmanager
    def hearing(self, outcomes: Sequence[Outcome]) -> Iterator[None]:
        """Know outcomes for our own before they are appended, whoever catches up; not if they cannot be."""
        with self.lock:
            self._ahead.update(outcomes)
        try:
            yield
        except PilotageError:
            with self.lock:
                for outcome in outcomes:
                    self._arrived(outcome)
            raise

    def settle(self, costs: Sequence[Outcome]) -> None:
        """Count what own decisions have cost."""
        with self.lock:
            for outcome in costs:
                self.state.add(outcome)

    def catch_up(self) -> int:
        """Count what other processes appended, and learn; the position of the record up to which the state now reaches.

        Raises RecordError where the record cannot be read; what serves goes on serving.
        """
        with self._catching:
            while not self._caught_up():
                self.learning = self._behind(self.serving)
                if self.canary is not None:
                    self.canary = replace(self.canary, learning=self._behind(self.canary.serving))
            return self.state.position

    def keep(self, path: Path) -> None:
        """Write a checkpoint of what was learned. Raises OSError, RecordError."""
        with self._catching:  # nothing is learned meanwhile
            learning = None if self.learning is None or self._outlived() else self.learning
            taken = None if learning is None else checkpoint.take(learning, self._record)
        if taken is not None:
            checkpoint.save(path, taken)
            if self._record.epoch().number != taken.epoch:
                path.unlink(missing_ok=True)  # what was erased meanwhile must not come back

    def _caught_up(self) -> bool:
        """Fold what is new; False if an erasure came in between, and what was read or learned may be gone."""
        if self._outlived():
            return False
        for batch in gently(self._record, self.state.position):
            with self.lock:
                for row in batch:
                    if self._arrived(row.entry):
                        self.state.skip(row)
                    else:
                        self.state.fold([row])
                for learning in self._learnings():
                    learning.fold(batch)
        return not self._outlived()

    def _learnings(self) -> list[Learning]:
        found = [self.learning, self.canary.learning if self.canary else None]
        return [each for each in found if each is not None]

    def _outlived(self) -> bool:
        return any(each.epoch != self._record.epoch().number for each in self._learnings())

    def _behind(self, serving: Serving, learning: Learning | None = None, read: Reading = gently) -> Learning | None:
        """What the record says behind a snapshot, up to where the state has come; None where nothing is learned."""
        learning = learning or begin(serving, self.state.scope, self.state.domain, self._record)
        if learning is not None:
            learning.follow(self._record, self.state.position, read)
        return learning

    def _arrived(self, entry: Decision | Outcome) -> bool:
        """Whether an entry is our own and was counted ahead of the position; from now on it is not."""
        key = entry.id if isinstance(entry, Decision) else entry
        left = self._ahead.get(key, 0) - 1
        if left > 0:
            self._ahead[key] = left
        else:
            self._ahead.pop(key, None)
        return left >= 0
