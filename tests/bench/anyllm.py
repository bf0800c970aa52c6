"""any-llm's gateway: virtual keys, budgets, and a row in SQLite for each call, written within the call.

The last release that holds it; what followed it is published as source and images only.
"""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from bench import books, processes
from bench.installing import venv
from bench.running import Running

VERSION = "1.14.0"
MASTER_KEY = "sk-bench-0123456789abcdef"
MODELS = {
    "gpt-4o-mini": "openai:gpt-4o-mini",
    "text-embedding-3-small": "openai:text-embedding-3-small",
    "claude-sonnet-4-5": "anthropic:claude-sonnet-4-5",
}
CONNECTIONS = 8
"""A call holds one of its 15 database sessions as long as it lasts, and who waits for one holds up the whole loop: with
more calls at once than that, all stand still for 30 s at a time."""
COUNTED = "SELECT count(*), sum(total_tokens) FROM usage_logs WHERE status = 'success'"


def anyllm(upstream_port: int, folder: Path) -> Running:
    """One worker, all it can have. Raises LeftOut, OSError."""
    command = venv("any-llm", f"any-llm-sdk[gateway,openai,anthropic]=={VERSION}") / "any-llm-gateway"
    port, provider, database = processes.free_port(), f"http://127.0.0.1:{upstream_port}", folder / "gateway.db"
    price = {"input_price_per_million": 0.15, "output_price_per_million": 0.60}
    config = folder / "any-llm.json"  # JSON is YAML
    config.write_text(
        json.dumps(
            {
                **{"database_url": f"sqlite:///{database}", "host": "127.0.0.1", "port": port},
                **{"master_key": MASTER_KEY, "pricing": dict.fromkeys(MODELS.values(), price)},
                "providers": {
                    "openai": {"api_key": "sk-bench", "api_base": f"{provider}/v1"},
                    "anthropic": {"api_key": "sk-bench", "api_base": provider},
                },
            }
        )
    )
    errors_only = "40"
    argv = [str(command), "serve", "--config", str(config), "--log-level", errors_only]
    process = processes.serving(argv, port, log=folder / "peer.log")
    try:
        key = _key(port)
    except BaseException:
        processes.stop(process)
        raise
    return Running(
        f"any-llm gateway {VERSION}",
        f"http://127.0.0.1:{port}/v1",
        process,
        f"a row a call and the user's spend in SQLite; {CONNECTIONS} connections",
        headers={"Authorization": f"Bearer {key}"},
        models=MODELS,
        most_connections=CONNECTIONS,
        books=books.of_sqlite(database, COUNTED),
    )


def _key(port: int) -> str:
    """A virtual key of a user of its own."""
    _admin(port, "/v1/users", {"user_id": "bench"})
    key: str = _admin(port, "/v1/keys", {"key_name": "bench", "user_id": "bench"})["key"]
    return key


def _admin(port: int, path: str, body: dict[str, str]) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", "X-AnyLLM-Key": f"Bearer {MASTER_KEY}"}
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(asked, timeout=30) as answer:
        told: dict[str, Any] = json.loads(answer.read())
        return told
