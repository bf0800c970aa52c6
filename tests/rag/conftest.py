"""Skips what needs an environment that is not there; the wheel, built once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag import venvs
from rag.lightrag_house import install_wheel


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("venv"):
            if not venvs.is_there(mark.args[0]):
                how = f".venv/bin/python tests/rag/venvs.py {mark.args[0]}"
                item.add_marker(pytest.mark.skip(reason=f"needs LightRAG's environment: {how}"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "venv(name): needs .venv-rag/<name>, see venvs.py")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the built wheel of taximeter-rag is installed."""
    return install_wheel(tmp_path_factory.mktemp("wheel"))
