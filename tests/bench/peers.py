"""What stands beside Taximeter in the bench: nginx, the floor, and the gateways one can install.

Each peer is a function that starts it in front of an upstream, with all the metering on that it has, and says how to
call it. What one has to install is installed first. Each raises LeftOut where it cannot be had.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import books, processes
from bench.anyllm import anyllm
from bench.figures import LeftOut
from bench.installing import node_package, venv
from bench.litellm import litellm, litellm_rust
from bench.running import CHAT, EMBEDDINGS, MESSAGES, Running

PORTKEY, TENSORZERO, VLLM_ROUTER = "1.15.2", "2026.6.0", "0.1.17"


def nginx(upstream_port: int, folder: Path) -> Running:
    """A plain reverse proxy with kept-alive upstream connections; reads no body, counts nothing."""
    if shutil.which("nginx") is None:
        raise LeftOut("nginx is not installed: apt-get install nginx-light (or your system's package)")
    port = processes.free_port()
    conf = folder / "nginx.conf"
    (folder / "tmp").mkdir()
    temp = "".join(
        f"{kind}_temp_path {folder}/tmp/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    conf.write_text(f"""
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log warn;
events {{ worker_connections 8192; multi_accept on; }}
http {{
  access_log off; {temp}
  client_max_body_size 64m; client_body_buffer_size 1m; tcp_nodelay on;
  keepalive_timeout 75s; keepalive_requests 1000000;
  upstream provider {{ server 127.0.0.1:{upstream_port}; keepalive 512; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
""")
    process = processes.serving(["nginx", "-p", str(folder), "-c", str(conf)], port, log=folder / "nginx.log")
    return Running("nginx", f"http://127.0.0.1:{port}/v1", process, "none")


def pipe(upstream_port: int, folder: Path) -> Running:
    """What any proxy in Python costs at least: bytes passed on by uvloop, which knows no HTTP."""
    port = processes.free_port()
    argv = [sys.executable, str(Path(__file__).with_name("pipe.py")), "--port", str(port), "--to", str(upstream_port)]
    process = processes.serving(argv, port, log=folder / "pipe.log")
    return Running("bytes passed on by uvloop", f"http://127.0.0.1:{port}/v1", process, "none, no HTTP")


def vllm_router(upstream_port: int, folder: Path) -> Running:
    """A Rust router that reads every body to route it and counts requests; retries and circuit breaker off."""
    binary = venv("vllm-router", f"vllm-router=={VLLM_ROUTER}") / "vllm-router"
    port, metrics = processes.free_port(), processes.free_port()
    argv = [str(binary), "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--worker-urls", f"http://127.0.0.1:{upstream_port}", "--policy", "round_robin"]
    argv += ["--disable-retries", "--disable-circuit-breaker", "--log-level", "error"]
    argv += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics)]
    process = processes.serving(argv, port, log=folder / "peer.log")
    counted = books.of_prometheus(f"http://127.0.0.1:{metrics}/metrics", "vllm_router_requests_total", None)
    name, metering = f"vllm-router {VLLM_ROUTER}", "Prometheus (requests); no tokens"
    return Running(name, f"http://127.0.0.1:{port}/v1", process, metering, books=counted)


def portkey(upstream_port: int, folder: Path) -> Running:
    """Portkey's open-source gateway (Node): no usage store, no cost."""
    # what newer versions of these answer to streams is a 500 (the gateway's issue 1389)
    pins = {"@hono/node-server": "1.13.5", "hono": "4.9.7", "@hono/node-ws": "1.2.0"}
    modules = node_package("portkey", f"@portkey-ai/gateway@{PORTKEY}", pins)
    port = processes.free_port()
    env = {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"}
    argv = ["node", str(modules / "@portkey-ai/gateway/build/start-server.js"), f"--port={port}", "--headless"]
    process = processes.serving(argv, port, env=env, log=folder / "peer.log")
    host = f"http://127.0.0.1:{upstream_port}/v1"
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": host}
    return Running(f"Portkey {PORTKEY}", f"http://127.0.0.1:{port}/v1", process, "none", headers=headers)


def tensorzero(upstream_port: int, folder: Path) -> Running:
    """TensorZero's gateway (Rust) as its wheel carries it, started by a Python process that then sleeps.

    Observability is off: it needs ClickHouse, or PostgreSQL with tables that only the gateway's own program can make,
    and neither is in a package index. The cost of a call is computed and told in its answer only.
    """
    python = venv("tensorzero", f"tensorzero=={TENSORZERO}") / "python"
    config, serve = folder / "tensorzero.toml", folder / "serve.py"
    provider = f'type = "openai"\napi_base = "http://127.0.0.1:{upstream_port}/v1/"\napi_key_location = "none"\n'
    tables = ["[gateway]\nobservability.enabled = false\ndisable_pseudonymous_usage_analytics = true\n"]
    models = {}
    for name, kind, mark in (
        ("gpt-4o-mini", "models", "model_name"),
        ("text-embedding-3-small", "embedding_models", "embedding_model_name"),
    ):
        models[name] = f"tensorzero::{mark}::{name}"
        cost = 'cost = [{ pointer = "/usage/prompt_tokens", cost_per_million = 0.15, required = true }]\n'
        table = f'{kind}."{name}"'
        tables.append(
            f'[{table}]\nrouting = ["bench"]\n[{table}.providers.bench]\nmodel_name = "{name}"\n{provider}{cost}'
        )
    config.write_text("\n".join(tables))
    serve.write_text(
        "import signal, sys, tensorzero\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "no = dict(clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False)\n"
        "gateway = tensorzero._start_http_gateway(config_file=sys.argv[1], **no)\n"
        "print('at', gateway.base_url, flush=True)\nwhile True:\n    signal.pause()\n"
    )
    log = folder / "peer.log"
    argv = [str(python), str(serve), str(config)]
    process = processes.start(argv, processes.PROXY_CORE, env={"RUST_LOG": "error"}, log=log)
    url = _told(log, r"^at (http://[^/\s]+)", process)
    name, metering = f"TensorZero {TENSORZERO}", "cost in the answer only"
    return Running(name, f"{url}/openai/v1", process, metering, models=models)


def _told(log: Path, pattern: str, process: subprocess.Popen[bytes], timeout_s: float = 60) -> str:
    """What a starting process says of itself. Stops it and raises RuntimeError where it does not."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until and process.poll() is None:
        if found := re.search(pattern, log.read_text(errors="replace"), re.M):
            return found[1]
        time.sleep(0.05)
    processes.stop(process)
    raise RuntimeError(f"{process.args!r} did not start: {log.read_text(errors='replace')[-1000:]}")


@dataclass(frozen=True)
class Peer:
    """How one is started, given the provider's port and a folder of its own; what it serves of the bench's paths."""

    start: Callable[[int, Path], Running]
    paths: tuple[str, ...] = (CHAT, EMBEDDINGS, MESSAGES)


PEERS = {
    "nginx": Peer(nginx),
    "pipe": Peer(pipe),
    "vllm-router": Peer(vllm_router),
    "tensorzero": Peer(tensorzero, (CHAT, EMBEDDINGS)),
    "portkey": Peer(portkey, (CHAT, EMBEDDINGS)),
    "any-llm": Peer(anyllm),
    "litellm": Peer(litellm),
    "litellm-rust": Peer(litellm_rust, (MESSAGES,)),
}
