"""`make bench`: CPU per call of each proxy in one run, beside nginx as the floor; writes docs/benchmarks.md.

    python tests/bench/run.py [--only unary,stream] [--seconds 8] [--peers nginx,taximeter,…] [--no-write]

The proxy and all its processes are pinned to one core; wrk and the provider share the other. CPU is user + system
time of the whole process tree from /proc, so delivery, control and Valkey are in Taximeter's figure.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import paced
import peers
import processes
import tokenizing
import wrk
from peers import Running

import delivery

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"

STREAM_CHUNKS, CHUNK_GAP_MS = 100, 5


@dataclass(frozen=True)
class Scenario:
    """One kind of call: what is posted where, by how many connections."""

    name: str
    path: str
    body: bytes
    connections: int
    provider: list[str] = field(default_factory=list)


def chat(**more: object) -> bytes:
    message = {"role": "user", "content": "How much does a call cost?"}
    return json.dumps({"model": "gpt-4o-mini", "messages": [message], **more}).encode()


SCENARIOS = [
    Scenario("unary", "/chat/completions", chat(), 32),
    Scenario(
        "stream",
        "/chat/completions",
        chat(stream=True),
        64,
        ["--chunks", str(STREAM_CHUNKS), "--chunk-ms", str(CHUNK_GAP_MS)],
    ),
    Scenario(
        "embeddings 2 MB",
        "/embeddings",
        json.dumps({"model": "text-embedding-3-small", "input": ["text"] * 64}).encode(),
        8,
        ["--embedding-bytes", str(2 * 1024 * 1024)],
    ),
    Scenario("prompt 100 KB", "/chat/completions", chat(pad="x " * 50_000), 16),
]


@dataclass
class Result:
    """One proxy in one scenario."""

    peer: str
    scenario: str
    cpu_us: float
    split: dict[str, float]
    load: wrk.Load
    pss_mb: float
    metering: str


def provider(scenario: Scenario, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    port = processes.free_port()
    argv = [sys.executable, str(Path(__file__).with_name("provider.py")), "--port", str(port), *scenario.provider]
    process = processes.start(argv, processes.LOAD_CORE, log=folder / "provider.log")
    processes.until_open(port, process)
    return process, port


def taximeter(upstream_port: int, folder: Path, core: int | None = processes.PROXY_CORE) -> Running:
    """Taximeter as it is served: journal, delivery to Valkey and SQLite, Prometheus."""
    port, admin = processes.free_port(), processes.free_port()
    config = folder / "taximeter.toml"
    config.write_text(
        f'listen = "127.0.0.1:{port}"\nadmin_listen = "127.0.0.1:{admin}"\ndata_dir = "{folder}/data"\n'
        f'[[upstream]]\nname = "openai"\nbase_url = "http://127.0.0.1:{upstream_port}/v1"\nforward_credentials = true\n'
    )
    argv = [sys.executable, "-m", "taximeter", "serve", "--config", str(config)]
    process = processes.start(argv, core, log=folder / "taximeter.log")
    processes.until_open(port, process)
    until_ready(admin)
    return Running("taximeter", f"http://127.0.0.1:{port}/v1", process, "journal, Valkey, SQLite, Prometheus", admin)


def until_ready(admin: int, timeout_s: float = 20) -> None:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("taximeter did not become ready")


def until_delivered(running: Running, timeout_s: float = 60) -> None:
    """Wait until everything written is delivered, so that its CPU time is in the figure."""
    if running.admin_port is None:
        return
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        with urllib.request.urlopen(f"http://127.0.0.1:{running.admin_port}/healthz", timeout=10) as answer:
            if all(lag == 0 for lag in json.load(answer)["sinks"].values()):
                return
        time.sleep(0.2)
    raise RuntimeError("taximeter did not deliver everything in time")


def measure(start: Callable[[int, Path], Running], scenario: Scenario, seconds: int) -> Result:
    with tempfile.TemporaryDirectory(prefix="taximeter-bench-") as name:
        folder = Path(name)
        upstream, upstream_port = provider(scenario, folder)
        running = None
        try:
            running = start(upstream_port, folder)
            lua = wrk.script(folder / "post.lua", scenario.body, running.headers)
            url = running.url + scenario.path
            warm = wrk.script(folder / "warm.lua", chat(), running.headers)
            wrk.run(running.url + "/chat/completions", warm, connections=8, seconds=2)  # caches, first files
            until_delivered(running)
            before = processes.cpu(running.process.pid)
            if scenario.name == "stream":
                calls, rate, seen = paced.to_the_end(
                    url,
                    scenario.body,
                    connections=scenario.connections,
                    seconds=seconds,
                    headers=running.headers,
                )
                load = wrk.Load(calls, rate, seen.p50_ms, seen.p99_ms, 0)
            else:
                load = wrk.run(url, lua, connections=scenario.connections, seconds=seconds)
            until_delivered(running)
            used = processes.cpu(running.process.pid) - before
            pss = sum(processes.pss_bytes(running.process.pid).values()) / 2**20
        finally:
            if running is not None:
                processes.stop(running.process)
            processes.stop(upstream)
    if load.failed:
        raise RuntimeError(f"{running.name}, {scenario.name}: {load.failed} calls failed")
    split = {name: s / load.calls * 1e6 for name, s in used.by_title.items()}
    return Result(running.name, scenario.name, sum(split.values()), split, load, pss, running.metering)


END = b'"total_tokens": 46}}'
"""What the provider's chat answer ends with."""


def latency(seconds: int) -> list[str]:
    """Latency added by Taximeter: one call at a time, and at half of the rate at which one worker is saturated."""
    scenario = SCENARIOS[0]
    with tempfile.TemporaryDirectory(prefix="taximeter-bench-") as name:
        folder = Path(name)
        upstream, upstream_port = provider(scenario, folder)
        running = taximeter(upstream_port, folder)
        try:
            direct, through = f"http://127.0.0.1:{upstream_port}/v1/chat/completions", running.url + scenario.path
            lua = wrk.script(folder / "post.lua", scenario.body, {})
            half = wrk.run(through, lua, connections=64, seconds=3).rate / 2
            until_delivered(running)
            rows = []
            for what, ask in (
                ("one at a time", lambda url: paced.one_at_a_time(url, scenario.body, END, calls=3_000)),
                (f"{half:,.0f} calls/s", lambda url: paced.steady(url, scenario.body, END, rate=half, seconds=seconds)),
            ):
                with_us, without = ask(through), ask(direct)
                added = f"{(with_us.p50_ms - without.p50_ms) * 1000:,.0f} | {with_us.p99_ms - without.p99_ms:.2f}"
                rows.append(
                    f"| {what} | {without.p50_ms:.2f} | {with_us.p50_ms:.2f} | {without.p99_ms:.2f} "
                    f"| {with_us.p99_ms:.2f} | {added} |"
                )
        finally:
            processes.stop(running.process)
            processes.stop(upstream)
    return [
        "## latency",
        "",
        "A direct call to the provider, and the same through Taximeter; the steady rate is half of what saturates it.",
        "",
        "| load | direct p50 ms | through p50 ms | direct p99 ms | through p99 ms | added p50 µs | added p99 ms |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *rows,
        "",
    ]


def memory(streams: int = 1_000) -> list[str]:
    """What an open, slow stream costs the worker in memory."""
    slow = Scenario("slow", "/chat/completions", chat(stream=True), 1, ["--chunks", "24", "--chunk-ms", "500"])
    with tempfile.TemporaryDirectory(prefix="taximeter-bench-") as name:
        folder = Path(name)
        upstream, upstream_port = provider(slow, folder)
        running = taximeter(upstream_port, folder)
        try:
            paced.to_the_end(running.url + slow.path, slow.body, connections=4, seconds=1)
            before = processes.pss_bytes(running.process.pid)["worker"]
            at_work: list[int] = []
            paced.many_streams(
                running.url + slow.path,
                slow.body,
                count=streams,
                while_open=lambda: at_work.append(processes.pss_bytes(running.process.pid)["worker"]),
            )
        finally:
            processes.stop(running.process)
            processes.stop(upstream)
    each = (at_work[0] - before) / streams / 1024
    return [
        "## memory",
        "",
        f"{streams:,} slow streams open at once: worker PSS {before / 2**20:.0f} → {at_work[0] / 2**20:.0f} MB, "
        f"{each:.1f} KB a stream.",
        "",
    ]


def start_and_idle(times: int = 5) -> list[str]:
    """From `taximeter serve` to ready with the embedded Valkey, and what the node takes when nothing happens."""
    took_s, pss = [], {}
    for _ in range(times):
        with tempfile.TemporaryDirectory(prefix="taximeter-bench-") as name:
            begun = time.monotonic()
            running = taximeter(processes.free_port(), Path(name), core=None)
            took_s.append(time.monotonic() - begun)
            pss = {title: used / 2**20 for title, used in processes.pss_bytes(running.process.pid).items()}
            processes.stop(running.process)
    parts = ", ".join(f"{title} {used:.0f}" for title, used in sorted(pss.items(), key=lambda item: -item[1]))
    return [
        "## start",
        "",
        f"Ready {statistics.median(took_s):.2f} s after the command (median of {times}, longest {max(took_s):.2f} s); "
        f"idle it takes {sum(pss.values()):.0f} MB PSS: {parts}.",
        "",
    ]


def table(results: list[Result], scenario: str) -> list[str]:
    rows = [r for r in results if r.scenario == scenario]
    floor = next((r.cpu_us for r in rows if r.peer == "nginx"), None)
    lines = [
        "| proxy | CPU µs a call | × nginx | calls/s | p50 ms | p99 ms | PSS MB | metering in that figure |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for r in rows:
        times = f"{r.cpu_us / floor:.1f}" if floor else "-"
        lines.append(
            f"| {r.peer} | {r.cpu_us:,.0f} | {times} | {r.load.rate:,.0f} | {r.load.p50_ms:.2f} | {r.load.p99_ms:.2f} "
            f"| {r.pss_mb:.0f} | {r.metering} |"
        )
    for r in rows:
        if len([s for s in r.split.values() if s >= 1]) > 1:
            parts = ", ".join(f"{n} {s:.0f}" for n, s in sorted(r.split.items(), key=lambda i: -i[1]) if s >= 0.5)
            lines.append(f"\n{r.peer}, by process: {parts} µs.")
    return lines


def page(results: list[Result], seconds: int) -> str:
    lines = ["# Benchmarks", "", __doc__.split("\n\n")[2].strip(), ""]
    wrk_version = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout.split("\n")[0]
    lines += [
        f"Written by `make bench` on {time.strftime('%Y-%m-%d')}: {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, taximeter {version('taximeter')}, uvicorn {version('uvicorn')}, "
        f"{wrk_version.split(' Copyright')[0]}; {seconds} s a row.",
        "",
    ]
    for scenario in dict.fromkeys(r.scenario for r in results):
        lines += [f"## {scenario}", "", *table(results, scenario), ""]
    return "\n".join(lines)


EXTRA: dict[str, Callable[[int], list[str]]] = {
    "latency": latency,
    "memory": lambda _: memory(),
    "delivery": lambda _: ["## delivery", "", delivery.measure(60_000), ""],
    "tokenizing": lambda _: ["## tokenizing", "", *tokenizing.measure(), ""],
    "start": lambda _: start_and_idle(),
}
"""What is measured of Taximeter alone: name -> lines for the page, given the seconds a row."""

STARTS: dict[str, Callable[[int, Path], Running]] = {**peers.PEERS, "taximeter": taximeter}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument(
        "--only", default=",".join([*(s.name for s in SCENARIOS), "latency", "memory"]), help="by comma"
    )
    options.add_argument("--peers", default="nginx,taximeter", help=f"of {', '.join(STARTS)}")
    options.add_argument("--seconds", type=int, default=8)
    options.add_argument("--no-write", action="store_true", help="print only")
    asked = options.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("make bench: wrk is not installed: apt-get install wrk (or your system's package)")
    results = []
    for scenario in SCENARIOS:
        if scenario.name not in asked.only.split(","):
            continue
        for name in asked.peers.split(","):
            try:
                result = measure(STARTS[name], scenario, asked.seconds)
            except FileNotFoundError as missing:
                print(f"make bench: {name} left out: {missing}", file=sys.stderr)
                continue
            results.append(result)
            print(f"{scenario.name}: {name} {result.cpu_us:,.0f} µs a call, {result.load.rate:,.0f}/s", file=sys.stderr)
    parts = asked.only.split(",")
    text = page(results, asked.seconds)
    for name, lines in EXTRA.items():
        if name in parts:
            text += "\n".join(lines(asked.seconds)) + "\n"
    print(text)
    if not asked.no_write:
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
