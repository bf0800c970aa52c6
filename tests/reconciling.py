"""A comparison of records in a real history with a scripted provider."""

import asyncio

from control_plane import NOON_US
from taximeter.config.settings import ReconcileSettings, Settings, UpstreamSettings
from taximeter.reconcile.pulling import Puller, pullers
from taximeter.reconcile.service import ReconcileService
from taximeter.sinks.batch import Batch

DAY_US = 86_400_000_000
NOW_US = NOON_US + 4 * DAY_US
"""2026-11-07T12:00:00Z: the days of `record` are settled."""
UPSTREAMS = [
    UpstreamSettings(name="openai", api_key_env="CALLS"),
    UpstreamSettings(name="openai-eu", api_key_env="CALLS_EU"),
    UpstreamSettings(name="anthropic", provider="anthropic"),
    UpstreamSettings(name="openrouter", provider="openrouter", api_key_env="CALLS_OR"),
]
ENVIRON = {"ADMIN": "admin-secret", "CALLS": "sk-proj-abcdWXYZ", "CALLS_EU": "sk-proj-efghEUEU", "CALLS_OR": "sk-or-1"}


class House:
    """One node's comparisons, or several nodes' on one history."""

    def __init__(self, history):
        self.history = history
        self.now_us = NOW_US
        self._seq = 0

    async def add(self, *records):
        for each in records:
            self._seq += 1
            each.event_id = f"j1:{self._seq}"
        batch = Batch(journal_id="j1", after=self._seq - len(records), upto=self._seq, records=list(records))
        await self.history.deliver([batch])

    def pullers(self, billing, **given) -> list[Puller]:
        told = {"name": "bill", "kind": "openai", "api_key_env": "ADMIN"} | given
        if billing is not None:
            told["base_url"] = billing.url
        settings = Settings(upstream=UPSTREAMS, reconcile=[ReconcileSettings(**told)])
        return pullers(settings, ENVIRON, pause=asyncio.sleep if billing is None else billing.pause)

    def service(self, billing, node="n1", **given) -> ReconcileService:
        return ReconcileService(self.pullers(billing, **given), self.history, node=node, now_us=lambda: self.now_us)
