"""What any proxy in Python costs at least: bytes passed on between two sockets by uvloop. It knows no HTTP.

python tests/bench/pipe.py --port 8080 --to 9100
"""

from __future__ import annotations

import argparse
import asyncio
import gc
from typing import cast

import uvloop


class End(asyncio.Protocol):
    """One end of a connection; what comes to it leaves at the other."""

    def __init__(self, other: End | None = None, to: int = 0) -> None:
        self.other = other
        self.transport: asyncio.Transport | None = None
        self._to = to
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.other is None:
            loop = asyncio.get_running_loop()
            self._opening = loop.create_task(loop.create_connection(lambda: End(self), "127.0.0.1", self._to))
        else:
            self.other.other = self
            self.transport.write(self.other._waiting)

    def data_received(self, data: bytes) -> None:
        other = self.other
        if other is None or other.transport is None:
            self._waiting += data
        else:
            other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


async def main(port: int, to: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(lambda: End(to=to), "127.0.0.1", port)
    gc.freeze()
    await server.serve_forever()


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--to", type=int, required=True)
    asked = options.parse_args()
    uvloop.run(main(asked.port, asked.to))
