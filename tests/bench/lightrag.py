"""Section `lightrag`: what a query of LightRAG costs with the plugin and without, through the same proxy, in turns."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.figures import LeftOut, Spread
from rag import venvs
from rag.lightrag_house import LightRAG, Node, install_wheel
from rag.lightrag_provider import LightRAGProvider, document
from waits import cpu_s

QUERIES = 30
"""Of a turn, one after the other; each embeds its question and asks the model once (mode naive)."""
WITHOUT, WITH = "LightRAG", "LightRAG with the plugin"


def measure(turns: int) -> list[str]:
    """Lines for the page. Raises LeftOut where LightRAG's environment is not there."""
    if not venvs.is_there(venvs.NEWEST):
        raise LeftOut(f"LightRAG is not installed: .venv/bin/python tests/rag/venvs.py {venvs.NEWEST}")
    with TemporaryDirectory(prefix="taximeter-bench-") as folder:
        return asyncio.run(_measure(Path(folder), turns))


async def _measure(folder: Path, turns: int) -> list[str]:
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(LightRAGProvider())
        node = await stack.enter_async_context(Node(folder, provider))
        site, direct = install_wheel(folder), f"{node.url}/v1"
        off = {"TAXIMETER_PROXY_URL": "", "LLM_BINDING_HOST": direct, "EMBEDDING_BINDING_HOST": direct}
        servers = {
            WITHOUT: LightRAG(folder / "off", node, site, environ=off),
            WITH: LightRAG(folder / "on", node, site),
        }
        numbers = itertools.count(1)
        for rag in servers.values():
            await stack.enter_async_context(rag)
            uploaded = await rag.upload(document("docbench1mark", 6), "bench.txt")
            await rag.until_ended(uploaded["track_id"])
            await _turn(rag, numbers)  # warm
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
        for _ in range(turns):
            for name, rag in servers.items():
                taken[name].append(await _turn(rag, numbers))
    return _table(taken)


async def _turn(rag: LightRAG, numbers: itertools.count[int]) -> tuple[float, float]:
    """CPU ms of LightRAG's processes a query, and the median query's ms from question to answer."""
    assert rag.process is not None
    begun_s, waits_ms = cpu_s(rag.process.pid), []
    for number in itertools.islice(numbers, QUERIES):
        asked_s = time.perf_counter()
        await rag.query(f"What about qrybench{number}mark ?", mode="naive")
        waits_ms.append((time.perf_counter() - asked_s) * 1e3)
    return (cpu_s(rag.process.pid) - begun_s) * 1e3 / QUERIES, statistics.median(waits_ms)


def _table(taken: dict[str, list[tuple[float, float]]]) -> list[str]:
    lines = ["| server | CPU ms a query | p50 ms |", "|---|---:|---:|"]
    for name, turns in taken.items():
        cpu, wait = (Spread.of(each) for each in zip(*turns, strict=True))
        lines.append(f"| {name} | {cpu.shown(1)} | {wait.shown(1)} |")
    pairs = zip(taken[WITHOUT], taken[WITH], strict=True)
    cpu, wait = (Spread.of(each) for each in zip(*((b[0] - a[0], b[1] - a[1]) for a, b in pairs), strict=True))
    told = [
        f"The plugin adds {cpu.shown(1)} ms of CPU and {wait.shown(1)} ms to a query: tags on its calls, one read of",
        "its figures from the control port before the answer, and the end of its track beside it.",
        f"{len(taken[WITH])} rounds of {QUERIES} queries, one after the other.",
    ]
    return [*lines, "", *told]
