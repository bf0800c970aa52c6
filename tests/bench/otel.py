"""Section `otel`: what a call costs with the OpenTelemetry export on and off, at a steady rate, in interleaved rounds.

As a program it is the collector: takes everything, and tells on GET how many spans it has had.

    PYTHONPATH=tests python -m bench.otel --port 4318
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import statistics
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import paced, processes, rounds
from bench.figures import LeftOut, Load, Measured, Spread, of_proxy
from bench.latency import END
from bench.node import taximeter, until_delivered
from bench.running import Running
from bench.scenarios import UNARY

CALLS_A_SECOND = 1_000
"""What the exporter keeps up with, so that no span is dropped and left out of the figure."""
EXPORTER_KEEPS_S = 1.0
"""taximeter.sinks.otel hands spans over at least this often."""
OFF, ON = "export off", "export on"


def measure(turns: int, seconds: float) -> list[str]:
    """Lines for the page. Raises LeftOut where the SDK is not installed."""
    if importlib.util.find_spec("opentelemetry") is None:
        raise LeftOut("OpenTelemetry's SDK is not installed: pip install 'taximeter[otel]'")
    with TemporaryDirectory(prefix="taximeter-bench-") as name, _collector(Path(name)) as port:
        export = f'[otel]\nendpoint = "http://127.0.0.1:{port}"\ninterval_s = 1.0\n'
        starts = {
            OFF: functools.partial(taximeter, name=OFF),
            ON: functools.partial(taximeter, name=ON, more=export),
        }
        measured = rounds.compare(
            UNARY, starts, rounds=turns, seconds=seconds, work=_work, settled=functools.partial(_until_exported, port)
        )
        calls, had = sum(turn.load.calls for turn in of_proxy(measured.turns, ON)), _spans(port)
    if had < calls:
        raise RuntimeError(
            f"of {calls} calls the collector has {had} spans: some were dropped, so the cost is not known"
        )
    return page(measured)


def _work(running: Running, _folder: Path, seconds: float) -> Load:
    seen = paced.steady(running.url + UNARY.path, UNARY.body, END, rate=CALLS_A_SECOND, seconds=seconds)
    return Load(seen.calls, seen.calls / seconds, seen.p50_ms, seen.p99_ms)


def _until_exported(collector_port: int, running: Running) -> None:
    """Delivered, and no span has come for longer than the exporter keeps any."""
    until_delivered(running)
    if running.name != ON:
        return
    had, since = _spans(collector_port), time.monotonic()
    while time.monotonic() - since < EXPORTER_KEEPS_S + 0.3:
        time.sleep(0.1)
        if (now := _spans(collector_port)) != had:
            had, since = now, time.monotonic()


def page(measured: Measured) -> list[str]:
    """The table: what the export adds is the difference within a round."""
    off, on = (of_proxy(measured.turns, name) for name in (OFF, ON))
    added = Spread.of(more.cpu_us - less.cpu_us for less, more in zip(off, on, strict=True))
    return [
        f"{CALLS_A_SECOND:,} unary calls a second; on: a span a call and the metrics each second, over OTLP/HTTP, "
        "until the collector has every span.",
        "",
        "| OpenTelemetry | CPU µs a call | added µs | of it in control µs | p99 ms |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {turns[0].proxy} | {Spread.of(turn.cpu_us for turn in turns).shown()} | {shown} "
            f"| {statistics.median(turn.cpu_s.get('control', 0.0) / turn.load.calls * 1e6 for turn in turns):,.0f} "
            f"| {statistics.median(turn.load.p99_ms for turn in turns):.2f} |"
            for turns, shown in ((off, "-"), (on, added.shown()))
        ),
    ]


# ── the collector ────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _collector(folder: Path) -> Iterator[int]:
    port, log = processes.free_port(), folder / "collector.log"
    argv = [sys.executable, "-m", "bench.otel", "--port", str(port)]
    process = processes.start(argv, processes.LOAD_CORE, log=log)
    try:
        processes.until_open(port, process)
        yield port
    finally:
        processes.stop(process)


def _spans(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        return int(answer.read())


class Collector(BaseHTTPRequestHandler):
    """Takes and forgets; counts spans."""

    protocol_version = "HTTP/1.1"
    spans = 0

    def do_POST(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path.endswith("/traces"):
            told = ExportTraceServiceRequest.FromString(body)
            Collector.spans += sum(len(scope.spans) for each in told.resource_spans for scope in each.scope_spans)
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(b"%d" % Collector.spans)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=4318)
    ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Collector).serve_forever()


if __name__ == "__main__":
    main()
