"""Builds the environments the tests in this folder run other packages in: .venv-rag/<name>, from locks.

    .venv/bin/python tests/rag/venvs.py              # all of them; or name some: 1.5.7 1.5.4 examples clients
    .venv/bin/python -m pytest tests/rag

Each lock is made by `uv pip compile --universal --generate-hashes --no-emit-index-url` from the .in file beside it,
and names each package by its hash.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1] / ".venv-rag"
INSTALL = HERE.parents[1] / "scripts/install.py"
NEWEST, OLDEST = "1.5.7", "1.5.4"
VERSIONS = (NEWEST, OLDEST)
EXAMPLES, CLIENTS = "examples", "clients"


def python(name: str) -> Path:
    """The interpreter of an environment, there or not."""
    return ROOT / name / "bin" / "python"


def is_there(name: str) -> bool:
    return python(name).exists()


def make(name: str) -> None:
    """Create an environment, or bring it to what its lock says."""
    lock = HERE / f"requirements-{name}.lock"
    subprocess.run([sys.executable, str(INSTALL), "--venv", str(ROOT / name), "--lock", str(lock)], check=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or (*VERSIONS, EXAMPLES, CLIENTS):
        make(name)
        print(f"{ROOT / name} is there")
