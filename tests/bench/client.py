"""CPU time of the upstream client alone: µs per unary call, per streamed chunk, per MB of a large answer.

    python tests/bench/client.py [--calls 20000]

Starts tests/bench/provider.py as another process and reads this process's CPU time only.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from present import present
from taximeter import config
from taximeter.gateway.upstream.upstreams import Upstream

HEADERS = [
    (b"host", b"127.0.0.1:8000"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"connection", b"keep-alive"),
    (b"user-agent", b"AsyncOpenAI/Python 3.54.0"),
    (b"content-type", b"application/json"),
    (b"authorization", b"Bearer sk-client"),
    (b"x-stainless-lang", b"python"),
    (b"x-stainless-package-version", b"3.54.0"),
    (b"x-stainless-os", b"Linux"),
    (b"x-stainless-arch", b"x64"),
    (b"x-stainless-runtime", b"CPython"),
    (b"x-workspace", b"acme"),
    (b"content-length", b"150"),
]
BODY = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"' + b"hello " * 12 + b'"}]}'
STREAM = BODY[:-1] + b',"stream":true}'


async def unary(upstream: Upstream) -> int:
    response = await upstream.send(b"POST", b"/v1/chat/completions", HEADERS, BODY)
    size = 0
    while data := await response.read():
        size += len(data)
    return size


async def pulled(upstream: Upstream) -> int:
    response = await upstream.send(b"POST", b"/v1/chat/completions", HEADERS, STREAM)
    reads = 0
    while await response.read():
        reads += 1
    return reads


async def pushed(upstream: Upstream) -> int:
    response = await upstream.send(b"POST", b"/v1/chat/completions", HEADERS, STREAM)
    reads = 0

    def on_data(data: bytes) -> bool:
        nonlocal reads
        reads += 1
        return True

    await response.pipe(on_data)
    return reads


async def embedding(upstream: Upstream) -> int:
    response = await upstream.send(b"POST", b"/v1/embeddings", HEADERS, BODY)
    size = 0
    while data := await response.read():
        size += len(data)
    return size


async def measure(
    call: Callable[[Upstream], Awaitable[int]], upstream: Upstream, calls: int, width: int
) -> tuple[float, int]:
    """(CPU seconds, sum of what the calls returned)."""
    total = 0

    async def worker(count: int) -> None:
        nonlocal total
        for _ in range(count):
            got = await call(upstream)
            total += got

    await asyncio.gather(*(worker(2) for _ in range(width)))  # connections stand
    total = 0
    before = time.process_time()
    await asyncio.gather(*(worker(calls // width) for _ in range(width)))
    return time.process_time() - before, total


async def run(port: int, calls: int) -> None:
    settings = config.UpstreamSettings(base_url=f"http://127.0.0.1:{port}/v1", api_key_env="KEY")
    upstream = Upstream(settings, frozenset({b"x-workspace"}), {"KEY": "sk-bench"})
    for width in (1, 32):
        spent, _ = await measure(unary, upstream, calls, width)
        print(f"unary, {width:2} at once        {spent / (calls // width * width) * 1e6:8.1f} µs CPU a call")
    for name, call in (("pulled", pulled), ("pushed", pushed)):
        spent, reads = await measure(call, upstream, 640, 64)
        print(f"stream {name}, 64 at once {spent / reads * 1e6:8.1f} µs CPU a chunk ({reads} reads)")
    spent, size = await measure(embedding, upstream, 200, 4)
    print(f"2 MB answers, 4 at once   {spent / size * 1e12:8.1f} µs CPU a MB")
    await upstream.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=20_000)
    args = parser.parse_args()
    script = Path(__file__).with_name("provider.py")
    with subprocess.Popen([sys.executable, script, "--chunk-ms", "5"], stdout=subprocess.PIPE) as provider:
        try:
            uvloop.run(run(int(present(provider.stdout).readline()), args.calls))
        finally:
            provider.terminate()


if __name__ == "__main__":
    main()
