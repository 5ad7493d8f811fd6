"""One router for each scope, made at its first request, kept on the newest good snapshot by a thread behind it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

import numpy as np
from anyio import to_thread

from bandits.config import Config
from bandits.errors import PilotageError
from bandits.home import Home
from bandits.money.caps import Standing
from bandits.record.port import Record
from bandits.rollout.machine import Order
from bandits.serving import Server
from bandits.types import Scope, valid_name
from service.errors import TenantRefusedError, UnknownScopeError

log = logging.getLogger("pilotage.service")


class Servers:
    """The servers of all scopes; any thread may ask.   refresh_s: seconds between two looks for a newer snapshot."""

    def __init__(
        self,
        home: Home,
        config: Config,
        record: Record,
        rng: np.random.Generator,
        clock: Callable[[], float],
        refresh_s: float,
    ) -> None:
        self._home, self._config, self._record = home, config, record
        self._rng, self._clock, self._refresh_s = rng, clock, refresh_s
        self._ledger = home.open_ledger(config)
        self._made: dict[Scope, Server] = {}
        self._faults: dict[Scope, str] = {}
        self._making, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._keep_fresh, name="snapshots", daemon=True)

    def scope(self, tenant: str, workspace: str, domain: str) -> Scope:
        """A scope of `tenant`, if it is configured. Raises UnknownScopeError that names nothing of other tenants."""
        self.check_workspace(tenant, workspace)
        self.check_domain(domain)
        return Scope(tenant, workspace, domain)

    def check_domain(self, domain: str) -> None:
        """Raise UnknownScopeError, or InvalidNameError, unless there is such a domain."""
        if valid_name(domain, "domain") not in self._config.domains:
            known = ", ".join(sorted(self._config.domains))
            raise UnknownScopeError(f"domain must be one of {known}, but got {domain!r}; add it to pilotage.toml.")

    def check_workspace(self, tenant: str, workspace: str) -> None:
        """Raise UnknownScopeError, or InvalidNameError, unless `tenant` has this workspace."""
        settings = self._config.tenants.get(tenant)
        if settings is None:
            raise TenantRefusedError("the tenant of the key must be configured, but is not; add it to pilotage.toml.")
        if valid_name(workspace, "workspace") not in settings.workspaces:
            known = ", ".join(sorted(settings.workspaces))
            raise UnknownScopeError(
                f"workspace must be one of {known}, but got {workspace!r}; add it to pilotage.toml."
            )

    def scopes(self, tenant: str) -> list[Scope]:
        """Every configured scope of `tenant`, sorted."""
        return [scope for scope in self._config.scopes() if scope.tenant == tenant]

    async def soon(self, scope: Scope) -> Server:
        """`get` for the event loop, which goes on while a first call reads."""
        server = self._made.get(scope)
        return await to_thread.run_sync(self.get, scope) if server is None else server

    def get(self, scope: Scope) -> Server:
        """The server of a configured scope; the first call for it reads the record and the newest snapshot."""
        server = self._made.get(scope)
        if server is None:
            with self._making:
                server = self._made.get(scope) or self._make(scope)
        return server

    def serving(self) -> Mapping[Scope, str]:
        """Version of the policy that serves, by scope, of those that were asked for."""
        return {scope: server.router.serving.version for scope, server in self._made.copy().items()}

    def shares(self, scope: Scope) -> Mapping[str, float]:
        """Version -> share of users whom it serves, of a scope that was asked for; a canary has that of its stage."""
        server = self._made.get(scope)
        if server is None:
            return {}
        stable, canary = server.router.serving.version, server.canary
        share = 0.0 if canary is None else canary.order.share
        found = {stable: 1.0 - share} | ({} if canary is None else {canary.serving.version: share})
        return {version: part for version, part in found.items() if part > 0.0}

    def quarantined(self) -> Mapping[Scope, tuple[str, ...]]:
        """Arms that broke since the policy that serves was published, likewise."""
        return {scope: server.router.quarantined for scope, server in self._made.copy().items()}

    def standings(self, tenant: str, user: str, now: float) -> list[Standing]:
        """How the caps of a tenant, and of the user behind a pseudonym, stand. Raises LedgerError."""
        return [] if self._ledger is None else self._ledger.standings(tenant, user, now)

    def orders(self) -> Mapping[Scope, Order]:
        """What each of those scopes was last told to serve, where anybody said so."""
        found = {scope: server.order for scope, server in self._made.copy().items()}
        return {scope: order for scope, order in found.items() if order is not None}

    def faults(self) -> Mapping[Scope, str]:
        """What keeps a scope from its newest snapshot; while it stands here, an older policy goes on serving."""
        return self._faults.copy()

    def start(self) -> None:
        """Begin to look for newer snapshots."""
        self._thread.start()

    def stop(self) -> None:
        """End that, and wait until it has ended."""
        self._stop.set()
        self._thread.join()
        if self._ledger is not None:
            self._ledger.close()

    def _make(self, scope: Scope) -> Server:
        (rng,) = self._rng.spawn(1)  # of its own: a generator is not safe under threads, a router's lock is its own
        server = Server(self._home, self._config, scope, self._record, rng, self._clock, self._ledger)
        self._note(scope, server.last_error)
        self._made[scope] = server
        return server

    def _keep_fresh(self) -> None:
        while not self._stop.wait(self._pause_s()):
            for scope, server in self._made.copy().items():
                fault: Exception | None
                try:
                    server.refresh()
                    fault = server.last_error
                except (PilotageError, OSError) as error:  # a key file; the thread must outlive any of them
                    fault = error
                self._note(scope, fault)

    def _pause_s(self) -> float:
        """Until the next look, s: sooner while a canary serves."""
        return min([self._refresh_s, *(server.pause_s for server in self._made.copy().values())])

    def _note(self, scope: Scope, fault: Exception | None) -> None:
        """Keep what is at fault, and log it when it changes."""
        before = self._faults.pop(scope, None) if fault is None else self._faults.get(scope)
        if fault is not None and str(fault) != before:
            self._faults[scope] = str(fault)
            log.warning("%s", fault)
        elif fault is None and before is not None:
            log.info("%s is on its newest snapshot again", scope)
