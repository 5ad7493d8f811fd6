"""Counts for Prometheus. Labels are names of the configuration, never people, prompts or decisions.

The counts are of the whole process. What names a scope is shown to the key of its own tenant alone, so an operator
scrapes with a key of each tenant.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from bandits.rollout.machine import Order
from bandits.types import Decision, Outcome, Scope

EDGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # s; one stands at the promise of 0.1
KINDS = ("quality", "vote", "cost_usd", "latency_s")


def quiet() -> None:
    """Leave out a second series for each counter, which nobody reads."""
    disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """What has happened in this app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._decisions = Counter(
            "pilotage_decisions", "Decisions made and recorded.", ["domain", "arm", "slot"], registry=self.registry
        )
        self._seconds = Histogram(
            "pilotage_decision_duration_seconds",
            "Time from a decision's context to its durable record.",
            buckets=EDGES,
            registry=self.registry,
        )
        self._outcomes = Counter(
            "pilotage_outcomes", "Measurements that came back, by kind.", ["kind"], registry=self.registry
        )
        self._errors = Counter(
            "pilotage_errors", "Requests that were refused or failed, by HTTP status.", ["code"], registry=self.registry
        )
        for kind in KINDS:
            self._outcomes.labels(kind)

    def decided(self, decision: Decision, seconds: float) -> None:
        """Count a decision, and how long it took."""
        self._decisions.labels(decision.scope.domain, decision.arm, str(decision.slot)).inc()
        self._seconds.observe(seconds)

    def reported(self, outcome: Outcome) -> None:
        """Count each measurement of an outcome."""
        for kind in KINDS:
            if getattr(outcome, kind) is not None:
                self._outcomes.labels(kind).inc()

    def refused(self, status: int) -> None:
        """Count an answer that is an error."""
        self._errors.labels(str(status)).inc()

    def render(
        self,
        serving: Mapping[Scope, str],
        quarantined: Mapping[Scope, Sequence[str]],
        pilot: Mapping[str, Any],
        orders: Mapping[Scope, Order] = MappingProxyType({}),
    ) -> bytes:
        """The text format. serving: policy version by scope.   quarantined: arms, likewise; orders: of what serves.
        pilot: see Counters.
        """
        now = _Now([*_snapshots(serving), _quarantined(quarantined), *_rollouts(orders), *_pilot(pilot)])
        return generate_latest(self._counted()) + generate_latest(now)

    def _counted(self) -> CollectorRegistry:
        """The counts of this process, or of all workers together where there are several (run.TOGETHER)."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return self.registry
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return together


class _Now(Collector):
    """Families that are made when asked for."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """See Collector."""
        return self._families


def _snapshots(serving: Mapping[Scope, str]) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "pilotage_snapshot_info", "The policy that serves a scope; always 1.", labels=["scope", "version"]
    )
    for scope, version in sorted(serving.items()):
        info.add_metric([str(scope), version], 1.0)
    yield info


def _quarantined(arms: Mapping[Scope, Sequence[str]]) -> Metric:
    broken = GaugeMetricFamily(
        "pilotage_quarantined_arms", "Arms that broke and are only probed until they recover.", labels=["scope"]
    )
    for scope, names in sorted(arms.items()):
        broken.add_metric([str(scope)], float(len(names)))
    return broken


def _rollouts(orders: Mapping[Scope, Order]) -> Iterator[Metric]:
    share = GaugeMetricFamily(
        "pilotage_rollout_share", "Share of users whom a canary may serve; 0 where there is none.", labels=["scope"]
    )
    info = GaugeMetricFamily(
        "pilotage_rollout_info",
        "The newest order of what serves a scope; its value is the order's number.",
        labels=["scope", "phase", "candidate"],
    )
    for scope, order in sorted(orders.items()):
        share.add_metric([str(scope)], order.share)
        info.add_metric([str(scope), order.phase, order.candidate or "explore"], float(order.number))
    yield share
    yield info


def _pilot(pilot: Mapping[str, Any]) -> Iterator[Metric]:
    steps = CounterMetricFamily(
        "pilotage_pilot_steps", "Steps of pilot runs that ended, by result.", labels=["step", "result"]
    )
    for step, numbers in pilot.get("steps", {}).items():
        for result in ("completed", "failed", "skipped"):
            steps.add_metric([step, result], numbers[result])
    yield steps
    yield GaugeMetricFamily(
        "pilotage_pilot_in_flight", "Pilot runs under way.", value=float(pilot.get("runs_in_flight", 0))
    )
