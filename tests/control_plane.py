"""A control plane on a real socket for tests: the application, its services, and records to ask about."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from taximeter.billing.service import Billing
from taximeter.config import Settings
from taximeter.control.app import create
from taximeter.control.services.audit import AuditTrail
from taximeter.control.services.interfaces import Readiness
from taximeter.control.services.live import Live
from taximeter.control.services.services import Services
from taximeter.core.hosts import Hosts
from taximeter.core.record import Operation, Outcome, Record, Source
from taximeter.keys.store import KeyStore
from taximeter.node.audit import AuditLog
from taximeter.server.asgi import asgi
from taximeter.server.server import Server
from taximeter.sinks.batch import Batch
from taximeter.sinks.history.sink import History
from waits import HANG_S

NOON_US = 1_793_707_200_000_000
"""2026-11-03T12:00:00Z"""
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
CLOSING_US = NOON_US + 40 * DAY_US
"""When statements are closed: 2026-11 is over."""


def record(number: int, **given: Any) -> Record:
    """A settled call; every figure can be given."""
    ended_at = given.pop("ended_at", NOON_US + number * 1_000_000)
    told = {
        "request_id": f"req-{number}",
        "started_at": ended_at - 250_000,
        "ended_at": ended_at,
        "duration_ms": 250.0,
        "workspace": "acme",
        "upstream": "openai",
        "provider": "openai",
        "api": "chat",
        "operation": Operation.LLM,
        "request_model": "gpt-4o-mini",
        "outcome": Outcome.OK,
        "status": 200,
        "input_source": Source.REPORTED,
        "output_source": Source.REPORTED,
        "input_tokens": 100,
        "cached_input_tokens": 20,
        "output_tokens": 30,
        "reasoning_output_tokens": 10,
        "total_tokens": 130,
        "cost_nusd": 33_000,
        "usage": msgspec.Raw(b'{"prompt_tokens":100}'),
    }
    return Record(**(told | given))


def embedding(number: int, **given: Any) -> Record:
    told = {
        "api": "embeddings", "operation": Operation.EMBEDDING, "request_model": "text-embedding-3-small",
        "input_tokens": 16, "cached_input_tokens": None, "output_tokens": None, "reasoning_output_tokens": None,
        "output_source": Source.NONE, "total_tokens": 16, "cost_nusd": 320, "embedding_inputs": 2,
    }  # fmt: skip
    return record(number, **(told | given))


@dataclass
class Waits:
    """Delivery's waits at the seam: what a test wants them to answer."""

    complete: bool = True
    lag_seconds: float = 0.0
    settles: bool = True
    flying: dict[tuple[str | None, str | None], int] = field(default_factory=dict)
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    async def drain(self, timeout_s: float, sinks: Any = ("history",)) -> Waits:
        self.asked.append(("drain", timeout_s, tuple(sinks)))
        return self

    async def settled(self, track: str, timeout_s: float, workspace: str | None = None) -> bool:
        self.asked.append(("settled", track, timeout_s, workspace))
        return self.settles

    def place(self, sink: str) -> int:
        return 0

    async def beyond(self, sink: str, place: int, timeout_s: float) -> bool:
        await asyncio.sleep(timeout_s)
        return False

    def in_flight(self, workspace: str | None = None, track: str | None = None) -> int:
        return self.flying.get((workspace, track), 0)


@dataclass
class NodeState:
    troubles: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def health(self) -> dict[str, Any]:
        return {
            "node": "n1",
            "redis_url": "redis://:***@127.0.0.1:6379",
            "redis_url_file": None,
            "workers": 1,
            "sinks": {},
        }

    def readiness(self) -> Readiness:
        return Readiness(problems=self.troubles, warnings=self.warnings)


class ControlPlane:
    """`async with ControlPlane(tmp_path, history) as control`: `control.client` asks, `control.add` records.

    It is an hour after noon, so that "the last seven days" hold the records of `record`; or what `now_us` says.
    """

    def __init__(
        self,
        data_dir: Any,
        history: Any,
        settings: Settings | None = None,
        random: Callable[[int], bytes] = secrets.token_bytes,
        wrapped: Callable[[Any], Any] = lambda history: history,
        **more: Any,
    ) -> None:
        """`wrapped`: makes of the history what the application gets."""
        self.settings = settings or Settings()
        self.history = history
        self.waits = Waits()
        self.node = NodeState()
        self.live = Live()
        moments, ids = count(NOON_US, 1_000_000), count(1)
        self.audit = AuditLog(
            data_dir, node="n1", now_us=lambda: next(moments), random=lambda n: next(ids).to_bytes(n, "big")
        )
        self.keys = KeyStore(data_dir, self.settings.auth, audit=self.audit, now_us=lambda: NOON_US, random=random)
        self.services = Services(
            settings=self.settings,
            hosts=Hosts(self.settings.control.allowed_hosts),
            history=wrapped(history),
            delivery=self.waits,
            keys=self.keys,
            live=self.live,
            node=self.node,
            **{
                "metrics": lambda accept: (b"up 1\n", "text/plain; version=0.0.4"),
                "prices": list,
                "now_us": lambda: NOON_US + HOUR_US,
                "audit": self.audit,
                "trail": AuditTrail(self.audit, history),
                "billing": (
                    Billing(history, self.waits, now_us=lambda: CLOSING_US) if isinstance(history, History) else None
                ),
                "evidence": history,
                **more,
            },
        )
        self._seq = 0

    def use(self, delivery: Any) -> None:
        """Wait on the real delivery instead of the seam; before it is started."""
        self.services = replace(self.services, delivery=delivery)

    async def add(self, *records: Record) -> None:
        """Deliver records to history and to the watchers, as delivery does."""
        for each in records:
            self._seq += 1
            each.event_id = f"j1:{self._seq}"
        after = self._seq - len(records)
        batch = Batch(journal_id="j1", after=after, upto=self._seq, records=list(records))
        assert await self.history.deliver([batch]) == {"j1": self._seq}
        await self.live.deliver([batch])

    async def __aenter__(self) -> ControlPlane:
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._server = Server(asgi(create(self.services)), self.settings.limits)
        self._serving = asyncio.create_task(self._server.serve([listener]))
        self.client = httpx2.AsyncClient(base_url=self.url, timeout=HANG_S)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()
        await self.live.close()
        self._server.stop()
        await self._serving

    async def get(self, path: str, **params: Any) -> Any:
        """The JSON of a 200 answer."""
        answer = await self.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()


Start = Callable[..., Awaitable[ControlPlane]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """`await start(settings, **services)`: a running control plane with an empty SQLite history."""
    async with AsyncExitStack() as stack:

        async def begin(settings: Settings | None = None, **more: Any) -> ControlPlane:
            history = History(f"sqlite:///{tmp_path / 'history.db'}")
            stack.push_async_callback(history.close)
            await history.prepare()
            return await stack.enter_async_context(ControlPlane(tmp_path, history, settings, **more))

        yield begin


@pytest.fixture
async def control(start: Start) -> ControlPlane:
    """The control plane of an installation without an admin token."""
    return await start()


def bearing(token: str | None) -> dict[str, str]:
    """The headers of who has this token, or none."""
    return {"authorization": f"Bearer {token}"} if token else {}
