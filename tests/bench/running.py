"""A proxy that was started for a measurement: how it is called, what it meters, and how its books are read."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.figures import Books

CHAT, EMBEDDINGS, MESSAGES = "/chat/completions", "/embeddings", "/messages"


@dataclass(frozen=True)
class Running:
    """A started proxy: `url` stands for the provider's /v1."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    metering: str
    admin_port: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    """What its callers have to send."""
    models: dict[str, str] = field(default_factory=dict)
    """Models that go by another name there."""
    books: Callable[[], Books] | None = None
    """What it has counted so far. None: it keeps nothing, or nothing that can be read."""
    marks: dict[str, str] = field(default_factory=dict)
    """Headers of its answers without which they did not come the way that is measured."""

    most_connections: int = 0
    """What it bears of connections at once. 0: as many as a scenario has."""

    def connections(self, wanted: int) -> int:
        """How many connections load it where a scenario has `wanted`."""
        return min(wanted, self.most_connections or wanted)

    def named(self, body: bytes) -> bytes:
        """A request's body with the model's name as it goes there."""
        for name, other in self.models.items():
            body = body.replace(f'"{name}"'.encode(), f'"{other}"'.encode())
        return body
