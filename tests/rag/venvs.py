"""Builds the environments the tests in this folder run LightRAG in: .venv-rag/<name>, from hash-pinned lock files.

    .venv/bin/python tests/rag/venvs.py              # all of them; or name some: 1.5.7 1.5.4 examples
    .venv/bin/python -m pytest tests/rag

Each lock is made by `uv pip compile --universal --generate-hashes --no-emit-index-url` from the .in file beside it.
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
EXAMPLES = "examples"


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
    for name in sys.argv[1:] or (*VERSIONS, EXAMPLES):
        make(name)
        print(f"{ROOT / name} is there")
