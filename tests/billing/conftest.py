"""A control plane that makes statements, over a real SQLite history."""

from pathlib import Path

import pytest

from control_plane import start
from taximeter.config import load

__all__ = ["start"]

SETTINGS = """
[billing]
currency = "EUR"

[[currency]]
code = "EUR"
rate = 0.5
decimals = 6

[[plan]]
name = "standard"
workspaces = ["ac*"]
markup_percent = 20

[[plan.price]]
code = "rag_embedding"
usd = 0.0002

[[plan.price]]
code = "rag_indexation"
usd = 0.001
"""


@pytest.fixture
async def billing(start, tmp_path, monkeypatch):
    """Asked when 2026-11 is over."""
    monkeypatch.chdir(tmp_path)
    Path("taximeter.toml").write_text(SETTINGS)
    return await start(load(None))
