"""Orders that people and nights give: begin a rollout, approve, abort, go back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bandits.config import Config
from bandits.errors import RolloutError, SnapshotError
from bandits.record.sql import BUSY_S
from bandits.rollout import probes
from bandits.rollout.controller import candidate
from bandits.rollout.machine import Aborted, Approved, Order, RolledBack, after, begun, first
from bandits.rollout.orders import LEASE_S, Lease, OrderBook, Seen
from bandits.rollout.sealing import seal
from bandits.settings.rollout import RolloutConfig
from bandits.snapshots.keys import SigningKey, trusted_keys
from bandits.snapshots.loading import list_versions
from bandits.types import Scope

if TYPE_CHECKING:
    from bandits.home import Home


def begin(
    home: Home,
    scope: Scope,
    config: Config,
    version: str,
    *,
    previous: str | None,
    key: SigningKey,
    now: float,
    why: str,
) -> None:
    """Roll out a snapshot that was just published, as the settings of its domain say.

    previous: the version that serves, where no order says so yet; None: none does. A rollout that is under way ends,
    since a newer one takes its place; to begin the same one again changes nothing, nor to begin one that was rolled
    back. A snapshot that fails the probes is rolled back before it served anybody.
    Raises RolloutError, AuditError, OSError.
    """
    terms = config.rollout_of(scope)

    def following(seen: Seen) -> Order:
        before = seen.order or first(scope, previous, terms, now, who="night", why="it serves already")
        if before.active:
            return after(before, Aborted("night", f"{version}: {why}"), now)
        fault = _fault(home, scope, config, version, now)
        return begun(before, version, terms, now, seen.head, who="night", why=why, fault=fault)

    with _book(home) as book:
        while True:
            seen = book.read(scope)  # before the history: whoever acts after it was read has raised the token
            if any(version in (order.candidate, order.stable) for order in book.history(scope)):
                break
            _try(book, following(seen), key, seen, now)
        seal(home, book, scope)


def approve(home: Home, scope: Scope, key: SigningKey, now: float, *, who: str, why: str) -> Order:
    """Let a rollout that waits begin. Raises RolloutError."""
    return _happen(home, scope, Approved(who, why), key, now)


def abort(home: Home, scope: Scope, key: SigningKey, now: float, *, who: str, why: str) -> Order:
    """Give up a rollout that is under way: what served before goes on. Raises RolloutError."""
    return _happen(home, scope, Aborted(who, why), key, now)


def roll_back(
    home: Home,
    scope: Scope,
    config: Config,
    key: SigningKey,
    now: float,
    *,
    who: str,
    why: str,
    to: str | None = None,
) -> Order:
    """Serve an older version from now on, and nobody the canary.

    to: which; left out, the stable version while a rollout is under way, else the one that served before it.
    Raises RolloutError where there is nothing to go back to, or what is there serves already or must not serve.
    """
    _check_reason(scope, why)
    with _book(home) as book:
        seen = book.read(scope)
        listed = list_versions(home.snapshots, scope, trusted=book.trusted, now=now)
        good = [one for one in listed if one.fault is None and one.manifest is not None]
        serving = seen.order
        if serving is None:
            if not good:
                raise RolloutError(f"a rollback needs a version that serves, but {scope} has none yet.")
            newest = good[-1].manifest
            serving = first(scope, good[-1].version, RolloutConfig(), now, who=who, why="it serves already")
            before = newest.parent if newest is not None else None
        else:
            before = serving.stable if serving.active else _served_before(book.history(scope), serving)
        target = to or before
        if to is None and not serving.active and before == serving.stable:
            raise RolloutError(f"there must be an older version of {scope}, but {before} is all that ever served.")
        if target == serving.stable and not serving.active:
            raise RolloutError(f"a rollback must change who serves, but {target} serves {scope} already.")
        if target is not None:
            fault = _fault(home, scope, config, target, now)
            if fault is not None:
                raise RolloutError(f"a rollback must go to a version that may serve, but {target} may not: {fault}")
        event = RolledBack(target, who, why)
        given = _give(book, scope, key, lambda seen: after(seen.order or serving, event, now), now)
        seal(home, book, scope)
    return given


def replace_all(home: Home, scope: Scope, version: str, key: SigningKey, now: float, why: str) -> None:
    """Serve `version` and nothing older: after an erasure, which deletes all others. Nothing without an order."""
    with _book(home) as book:
        order = book.read(scope).order
        if order is None:
            return
        if order.active:
            _give(book, scope, key, lambda seen: after(_some(seen, scope), Aborted("privacy", why), now), now)
        only = first(scope, version, order.terms, now, who="privacy", why=why)
        _give(book, scope, key, lambda _: only, now)
        seal(home, book, scope)


def standing(home: Home, scope: Scope) -> Order | None:
    """The order that holds now; None where none was ever given. Raises RolloutError, KeyFileError."""
    file = home.record_file
    trusted = trusted_keys(home.root)
    if not trusted or (file is not None and not file.exists()):
        return None
    book = OrderBook(home.record_url, trusted)
    try:
        return book.read(scope).order
    finally:
        book.close()


def _happen(home: Home, scope: Scope, event: Approved | Aborted, key: SigningKey, now: float) -> Order:
    _check_reason(scope, event.why)
    with _book(home) as book:
        given = _give(book, scope, key, lambda seen: after(_some(seen, scope), event, now), now)
        seal(home, book, scope)
    return given


def _check_reason(scope: Scope, why: str) -> None:
    if not why.strip():
        raise RolloutError(f"an order must have a reason, but this one for {scope} has none; say --reason WHY.")


def _give(book: OrderBook, scope: Scope, key: SigningKey, following: Callable[[Seen], Order], now: float) -> Order:
    """Place what follows the order that holds; again where somebody acted meanwhile. Raises RolloutError."""
    while True:
        seen = book.read(scope)
        placed = _try(book, following(seen), key, seen, now)
        if placed is not None:
            return placed


def _try(book: OrderBook, order: Order, key: SigningKey, seen: Seen, now: float) -> Order | None:
    """Place an order, with a lease to begin with where it has a canary; None if somebody acted since `seen`."""
    lease = Lease(order.scope, 0, now, now + LEASE_S, 0.0) if order.phase == "canary" else None
    return book.place(order, key, seen, lease)


def _served_before(history: list[Order], now: Order) -> str | None:
    """The stable version before the one that serves now; that one itself where there never was another."""
    return next((order.stable for order in reversed(history) if order.stable != now.stable), now.stable)


def _some(seen: Seen, scope: Scope) -> Order:
    if seen.order is None:
        raise RolloutError(f"there must be a rollout of {scope}, but no order was given; the newest snapshot serves.")
    return seen.order


def _fault(home: Home, scope: Scope, config: Config, version: str, now: float) -> str | None:
    """Why a version must not serve."""
    domain = config.domains[scope.domain]
    try:
        return probes.fault(candidate(home, scope, version, now, domain)[0].policy, domain)
    except (SnapshotError, ValueError) as error:
        return str(error)


@contextmanager
def _book(home: Home) -> Iterator[OrderBook]:
    home.open_record().close()  # the record comes first: it would take a file with our tables as foreign
    book = OrderBook(home.record_url, trusted_keys(home.root), busy_s=BUSY_S)  # a person waits, unlike a lease
    try:
        book.make()
        yield book
    finally:
        book.close()
