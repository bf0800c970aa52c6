"""What the OpenTelemetry sink costs: CPU a record in the control process, against a collector that takes everything.

python tests/bench/otel.py --records 20_000
"""

from __future__ import annotations

import argparse
import asyncio
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from random import Random

from bench.generate_history import records
from taximeter.config.settings import OtelSettings
from taximeter.sinks.otel import Otel
from taximeter.sinks.sink import Batch

BATCH = 500


class Collector(BaseHTTPRequestHandler):
    """Takes and forgets."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


async def nothing_before(journal_ids: object) -> dict[str, int]:
    return {"bench": 0}


async def measure(url: str, count: int) -> tuple[float, float]:
    """(µs of CPU a record until everything is exported, µs a record of them while delivering)."""
    sink = Otel(OtelSettings(endpoint=url), node="bench", start=nothing_before)
    some = list(records(count, 1, 50, Random(1)))
    started = time.process_time()
    for after in range(0, count, BATCH):
        part = some[after : after + BATCH]
        await sink.deliver([Batch(journal_id="bench", after=after, upto=after + len(part), records=part)])
    delivered = time.process_time() - started
    await sink.close()
    return (time.process_time() - started) / count * 1e6, delivered / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=lambda text: int(text.replace("_", "")), default=20_000)
    asked = parser.parse_args()
    server = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    whole, delivering = asyncio.run(measure(f"http://127.0.0.1:{server.server_port}", asked.records))
    print(f"{asked.records:,} records: {whole:.0f} µs of CPU a record, {delivering:.0f} µs of it while delivering")


if __name__ == "__main__":
    main()
