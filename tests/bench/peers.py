"""What stands beside Taximeter in the bench: nginx, the floor, and the gateways one can install.

Each peer is a function that starts it in front of an upstream and says how to call it. Nothing is downloaded here
but by the package managers, and only when a peer is asked for by name. Each raises LeftOut where it cannot be had.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench import processes
from bench.figures import LeftOut


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

    def named(self, body: bytes) -> bytes:
        """A request's body with the model's name as it goes there."""
        for name, other in self.models.items():
            body = body.replace(f'"{name}"'.encode(), f'"{other}"'.encode())
        return body


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
    log = folder / "nginx.log"
    process = processes.start(["nginx", "-p", str(folder), "-c", str(conf)], processes.PROXY_CORE, log=log)
    processes.until_open(port, process)
    return Running("nginx", f"http://127.0.0.1:{port}/v1", process, "none")


def vllm_router(upstream_port: int, folder: Path) -> Running:
    """A Rust router that reads every body to route it and meters nothing; retries and circuit breaker off."""
    binary = _venv("vllm-router", f"vllm-router=={VLLM_ROUTER}") / "vllm-router"
    port, metrics = processes.free_port(), processes.free_port()
    argv = [
        str(binary),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--worker-urls",
        f"http://127.0.0.1:{upstream_port}",
    ]
    argv += ["--policy", "round_robin", "--disable-retries", "--disable-circuit-breaker", "--log-level", "error"]
    argv += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics)]
    return _started(f"vllm-router {VLLM_ROUTER}", port, argv, folder, "none")


def litellm(upstream_port: int, folder: Path) -> Running:
    """LiteLLM's proxy by its production page, without a database: cost of a request in memory and headers."""
    binary = _venv("litellm", f"litellm[proxy]=={LITELLM}") / "litellm"
    port, key = processes.free_port(), "sk-bench-0123456789abcdef"
    models = [
        {
            "model_name": name,
            "litellm_params": {
                "model": f"openai/{name}",
                "api_base": f"http://127.0.0.1:{upstream_port}/v1",
                "api_key": "sk-bench",
            },
        }
        for name in ("gpt-4o-mini", "text-embedding-3-small")
    ]
    config = folder / "litellm.json"  # JSON is YAML
    general = {"disable_error_logs": True}
    settings = {"request_timeout": 600, "num_retries": 0, "json_logs": True}
    config.write_text(json.dumps({"model_list": models, "litellm_settings": settings, "general_settings": general}))
    env = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    env |= {"LITELLM_MASTER_KEY": key, "LITELLM_TELEMETRY": "False"}
    argv = [str(binary), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    running = _started(f"LiteLLM {LITELLM}", port, argv, folder, "cost in memory", env)
    running.headers["Authorization"] = f"Bearer {key}"
    return running


def portkey(upstream_port: int, folder: Path) -> Running:
    """Portkey's open-source gateway (Node): no usage store, no cost."""
    home = HOME / "portkey"
    server = home / "node_modules/@portkey-ai/gateway/build/start-server.js"
    if not server.exists():
        if shutil.which("npm") is None:
            raise LeftOut("portkey needs node and npm: apt-get install nodejs npm (or your system's packages)")
        home.mkdir(parents=True, exist_ok=True)
        # what newer versions of these answer to streams is a 500 (the gateway's issue 1389)
        pins = {"@hono/node-server": "1.13.5", "hono": "4.9.7", "@hono/node-ws": "1.2.0"}
        (home / "package.json").write_text(json.dumps({"private": True, "overrides": pins}))
        argv = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", f"@portkey-ai/gateway@{PORTKEY}"]
        subprocess.run(argv, cwd=home, check=True, stdout=sys.stderr)
    port = processes.free_port()
    env = {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"}
    argv = ["node", str(server), f"--port={port}", "--headless"]
    running = _started(f"Portkey {PORTKEY}", port, argv, folder, "none", env)
    running.headers["x-portkey-provider"] = "openai"
    running.headers["x-portkey-custom-host"] = f"http://127.0.0.1:{upstream_port}/v1"
    return running


def tensorzero(upstream_port: int, folder: Path) -> Running:
    """TensorZero's gateway (Rust) as its wheel carries it, started by a Python process that then sleeps.

    Observability is off: it would need ClickHouse. The cost of a call is computed and told in its answer only.
    """
    python = _venv("tensorzero", f"tensorzero=={TENSORZERO}") / "python"
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


LITELLM, PORTKEY, TENSORZERO, VLLM_ROUTER = "1.106.2", "1.15.2", "2026.6.0", "0.1.17"
HOME = Path(os.environ.get("TAXIMETER_BENCH_PEERS", Path(tempfile.gettempdir()) / "taximeter-bench-peers"))
"""Where peers that are asked for are installed; kept for the next run."""


def _venv(name: str, requirement: str) -> Path:
    """The `bin` of a virtual environment of the peer's own."""
    folder = HOME / name
    stamp = folder / ".requirement"
    if not stamp.exists() or stamp.read_text() != requirement:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin/pip"), "install", "-qq", requirement], check=True, stdout=sys.stderr)
        stamp.write_text(requirement)
    return folder / "bin"


def _started(
    name: str, port: int, argv: list[str], folder: Path, metering: str, env: dict[str, str] | None = None
) -> Running:
    process = processes.start(argv, processes.PROXY_CORE, env=env, log=folder / "peer.log")
    try:
        processes.until_open(port, process)
    except BaseException:
        processes.stop(process)
        raise
    return Running(name, f"http://127.0.0.1:{port}/v1", process, metering)


def _told(log: Path, pattern: str, process: subprocess.Popen[bytes], timeout_s: float = 60) -> str:
    """What a starting process says of itself. Stops it and raises RuntimeError where it does not."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until and process.poll() is None:
        if found := re.search(pattern, log.read_text(errors="replace"), re.M):
            return found[1]
        time.sleep(0.05)
    processes.stop(process)
    raise RuntimeError(f"{process.args!r} did not start: {log.read_text(errors='replace')[-1000:]}")


PEERS: dict[str, Callable[[int, Path], Running]] = {
    "nginx": nginx,
    "vllm-router": vllm_router,
    "tensorzero": tensorzero,
    "portkey": portkey,
    "litellm": litellm,
}
