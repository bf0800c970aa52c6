"""LiteLLM's proxy as its page for production has it, and with all the metering that it has without PostgreSQL.

Its own spend log, virtual keys and daily tables need PostgreSQL through Prisma, whose query engine is fetched from a
host of its own at installation: no package index has it. What is left, and is on here: Prometheus (requests, tokens and
spend by key, user, team and model) and the provider's budget in Redis, which adds up every call's cost.
"""

from __future__ import annotations

import json
from pathlib import Path

from bench import books, processes
from bench.installing import venv
from bench.running import Running
from taximeter.node.embedded_valkey import binary

VERSION = "1.108.7"
"""The newest whose own requirements an index has: 1.110.2 asks for litellm-proxy 1.110.2, which is not published."""
KEY = "sk-bench-0123456789abcdef"
WITH_VALKEY = '"$0" --bind 127.0.0.1 --port "$1" --save "" --appendonly no --dir "$2" & shift 2; exec "$@"'
"""The shell starts Valkey and becomes LiteLLM, so that Valkey is its child, and in its figures."""


def litellm(upstream_port: int, folder: Path) -> Running:
    """All in Python."""
    return _serve(upstream_port, folder, f"LiteLLM {VERSION}", {})


def litellm_rust(upstream_port: int, folder: Path) -> Running:
    """With its Rust core, which has no more than Anthropic's /v1/messages of what is measured here.

    Authorisation, routing, callbacks and metering stay with Python; an answer that came through Rust says so.
    """
    running = _serve(upstream_port, folder, f"LiteLLM {VERSION}, Rust core", {"LITELLM_RUST": "1"})
    running.marks["x-litellm-rust"] = "true"
    return running


def _serve(upstream_port: int, folder: Path, name: str, more: dict[str, str]) -> Running:
    binaries = venv("litellm", f"litellm[proxy]=={VERSION}", "prometheus-client")
    port, valkey = processes.free_port(), processes.free_port()
    config = folder / "litellm.json"  # JSON is YAML
    config.write_text(json.dumps(_config(upstream_port, valkey)))
    env = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", **more}
    env |= {"LITELLM_MASTER_KEY": KEY, "LITELLM_TELEMETRY": "False"}
    argv = ["sh", "-c", WITH_VALKEY, str(binary()), str(valkey), str(folder)]
    argv += [str(binaries / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    process = processes.serving(argv, port, env=env, log=folder / "peer.log")
    headers = {"Authorization": f"Bearer {KEY}"}
    counters = "litellm_proxy_total_requests_metric_total", "litellm_total_tokens_metric_total"
    counted = books.of_prometheus(f"http://127.0.0.1:{port}/metrics/", *counters, headers)
    metering = "Prometheus (requests, tokens, spend), spend of the provider in Redis; no log of calls"
    return Running(name, f"http://127.0.0.1:{port}/v1", process, metering, headers=headers, books=counted)


def _config(upstream_port: int, valkey_port: int) -> dict[str, object]:
    provider = f"http://127.0.0.1:{upstream_port}"
    models = [
        {"model_name": name, "litellm_params": {"model": f"{kind}/{name}", "api_base": base, "api_key": "sk-bench"}}
        for name, kind, base in (
            ("gpt-4o-mini", "openai", f"{provider}/v1"),
            ("text-embedding-3-small", "openai", f"{provider}/v1"),
            ("claude-sonnet-4-5", "anthropic", provider),
        )
    ]
    budget = {"budget_limit": 1_000_000_000, "time_period": "30d"}
    return {
        "model_list": models,
        "litellm_settings": {
            **{"request_timeout": 600, "num_retries": 0, "json_logs": True, "callbacks": ["prometheus"]},
        },
        "router_settings": {
            **{"redis_host": "127.0.0.1", "redis_port": valkey_port},
            "provider_budget_config": {"openai": budget, "anthropic": budget},
        },
        "general_settings": {"disable_error_logs": True},
    }
