"""The state of this node, put together from delivery, the settings and Redis: what /healthz and /readyz tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taximeter.config.addresses import masked
from taximeter.control.services.interfaces import Readiness
from taximeter.delivery import Delivery
from taximeter.node.child import Boot
from taximeter.node.reloaded import read_reloaded

LAG_S = 30.0
"""A query waits for its caller's own usage, but not so long as a sink that is further behind than this will take."""
ASKING_BUDGETS = "seeing that Redis knows of budgets"
"""The part of upkeep that fails while calls under hard budgets cannot be decided."""


class State:
    """Implements services.interfaces.Node."""

    def __init__(self, boot: Boot, delivery: Delivery) -> None:
        self.boot = boot
        """With the settings in force."""
        self.leaving = False
        """Told to stop; calls are still taken for limits.shutdown_delay_s."""
        self._delivery = delivery
        self.notes: dict[str, str] = {}
        """What upkeep has found wrong, by what it was doing."""

    def health(self) -> dict[str, Any]:
        """Node, Redis, workers that can write their journal, upstreams, each sink's lag in records (null: unknown), and
        what became of the last reload (null: there was none)."""
        delivery = self._delivery.health()
        return {
            "node": self.boot.node,
            "redis_url": masked(self.boot.redis_url),
            "redis_url_file": self.boot.redis_url_file or None,
            "workers": self._workers(),
            "upstreams": {each.name: masked(each.base_url) for each in self.boot.settings.upstream},
            "sinks": {name: sink.lag_records for name, sink in delivery.sinks.items()},
            "reload": read_reloaded(Path(self.boot.settings.data_dir)),
        }

    def readiness(self) -> Readiness:
        """Whether calls are relayed and written down. What is behind the journal makes nobody's call fail."""
        health, settings = self._delivery.health(), self.boot.settings
        problems: list[str] = []
        warnings = [f"{what}: {problem}" for what, problem in self.notes.items()]
        workers = self._workers()
        if self.leaving:
            problems.append("this node is about to stop (limits.shutdown_delay_s)")
        if workers < settings.workers:
            (warnings if workers else problems).append(f"{workers} of {settings.workers} workers are running")
        if not health.journal_healthy:
            problems.append("the journal cannot be written: records wait in memory")
        if settings.budget.on_unavailable == "refuse" and ASKING_BUDGETS in self.notes:
            problems.append("calls under hard budgets are refused (budget.on_unavailable)")
        warnings += [f"journal file {file}: {why}" for file, why in health.halted.items()]
        for name, sink in health.sinks.items():
            if sink.failing:
                warnings.append(f"sink {name}: {sink.failing}")
            elif sink.lag_seconds > LAG_S:
                warnings.append(f"sink {name} is {sink.lag_seconds:.0f} s behind")
        return Readiness(problems=problems, warnings=warnings)

    def _workers(self) -> int:
        return len({status.worker for status in self._delivery.health().writers if status.worker != "control"})
