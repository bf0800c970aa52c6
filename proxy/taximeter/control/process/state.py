"""The state of this node, put together from delivery, the settings and Redis: what /healthz and /readyz tell."""

from __future__ import annotations

from typing import Any

from taximeter.config.addresses import masked
from taximeter.delivery import Delivery
from taximeter.node.child import Boot

LAG_S = 30.0
"""A sink further behind than this makes the node not ready; a query would not see its caller's own usage."""


class State:
    """Implements services.interfaces.Node."""

    def __init__(self, boot: Boot, delivery: Delivery) -> None:
        self._boot = boot
        self._delivery = delivery
        self.notes: dict[str, str] = {}
        """What upkeep has found wrong, by what it was doing."""

    def health(self) -> dict[str, Any]:
        """Node, Redis, workers that can write their journal, upstreams, each sink's lag in records (null: unknown)."""
        delivery = self._delivery.health()
        return {
            "node": self._boot.node,
            "redis_url": masked(self._boot.redis_url),
            "redis_url_file": self._boot.redis_url_file or None,
            "workers": self._workers(),
            "upstreams": {each.name: masked(each.base_url) for each in self._boot.settings.upstream},
            "sinks": {name: sink.lag_records for name, sink in delivery.sinks.items()},
        }

    async def problems(self) -> list[str]:
        """Why this node is not ready; empty: it is."""
        health = self._delivery.health()
        found = [f"{what}: {problem}" for what, problem in self.notes.items()]
        if (workers := self._workers()) < self._boot.settings.workers:
            found.append(f"{workers} of {self._boot.settings.workers} workers are running")
        if not health.journal_healthy:
            found.append("the journal cannot be written: records wait in memory")
        found += [f"journal file {file}: {why}" for file, why in health.halted.items()]
        for name, sink in health.sinks.items():
            if sink.failing:
                found.append(f"sink {name}: {sink.failing}")
            elif sink.lag_seconds > LAG_S:
                found.append(f"sink {name} is {sink.lag_seconds:.0f} s behind")
        return found

    def _workers(self) -> int:
        return len({status.worker for status in self._delivery.health().writers if status.worker != "control"})
