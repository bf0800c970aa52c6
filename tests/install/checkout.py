"""A clean checkout in a folder of its own, a user's environment, and what an environment has installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from install.conftest import LOCKS, ROOT, normal, pins

INSTALL_S = 600
"""The slowest: pip unpacking and compiling the development lock on a loaded machine."""


def checkout(folder: Path) -> Path:
    """The files git tracks (and those it does not ignore yet), copied."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def environment(home: Path, **told: str) -> dict[str, str]:
    """Of a user who has set nothing: no cache, no settings of pip's and uv's but those told."""
    ours = ("PIP_", "UV_", "TAXIMETER_", "PYTHON", "VIRTUAL_ENV", "MAKE", "MFLAGS", "XDG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    home.mkdir(exist_ok=True)
    no_cache = {"PIP_NO_CACHE_DIR": "1", "UV_NO_CACHE": "1", "PIP_CONFIG_FILE": os.devnull}
    return {**kept, "HOME": str(home), **no_cache, "PYTHONDONTWRITEBYTECODE": "1", **told}


def offline(wheels: Path) -> dict[str, str]:
    """pip and uv ask this folder and no index."""
    return {
        **{"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)},
        **{"UV_NO_INDEX": "1", "UV_FIND_LINKS": str(wheels)},
    }


def run(command: list[str], folder: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What it printed and how it ended; stderr is in stdout."""
    return subprocess.run(
        command, cwd=folder, env=environ, check=False, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=INSTALL_S,
    )  # fmt: skip


def installed(venv: Path) -> dict[str, str]:
    """Each package of an environment and its version, without pip and what it was installed with."""
    python = str(venv / "bin/python")
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"],
        check=True, capture_output=True, text=True, env={"PATH": os.environ["PATH"]},
    ).stdout  # fmt: skip
    found = {normal(one["name"]): one["version"] for one in json.loads(listed)}
    return {name: version for name, version in found.items() if name not in ("pip", "setuptools", "uv", "taximeter")}


def as_locked() -> dict[str, str]:
    """Every version that some lock names."""
    return {normal(name): version for lock in LOCKS for name, version in pins(lock).items()}
