"""A worker stays lean: what it must not import is what would make it slow to start and large."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "litestar",
    "sqlalchemy",
    "genai_prices",
    "prometheus_client",
    "rich",
    "openai",
    "psycopg",
    "pydantic",
}


@pytest.mark.parametrize(
    ("module", "kept_out"),
    [
        ("taximeter.gateway.worker", HEAVY | {"tiktoken", "splintr", "redis"}),
        ("taximeter.supervisor", HEAVY | {"click", "redis", "uvicorn", "httptools", "uvloop", "httpx2", "tiktoken"}),
    ],
)
def test_a_process_imports_only_what_it_needs(module: str, kept_out: set[str]) -> None:
    script = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    environ = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ, check=True)
    assert kept_out & set(done.stdout.split()) == set()
