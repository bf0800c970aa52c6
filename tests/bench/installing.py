"""Peers are installed from the package indexes, each into a folder of its own, and only when they are asked for."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bench.figures import LeftOut

HOME = Path(os.environ.get("TAXIMETER_BENCH_PEERS", Path(tempfile.gettempdir()) / "taximeter-bench-peers"))
"""Where they are installed; kept for the next run."""


def venv(name: str, *requirements: str) -> Path:
    """The `bin` of a virtual environment of the interpreter that the bench itself runs on. Raises LeftOut."""
    folder = HOME / name
    wanted = " ".join([*requirements, sys.base_prefix, platform.python_version()])
    stamp = folder / ".requirement"
    if not stamp.exists() or stamp.read_text() != wanted:
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            _install(folder / "bin" / "python", requirements)
        except subprocess.CalledProcessError as error:
            raise LeftOut(f"{' '.join(requirements)} could not be installed ({error})") from error
        stamp.write_text(wanted)
    return folder / "bin"


def _install(python: Path, requirements: tuple[str, ...]) -> None:
    """With uv where there is one and it reaches an index, which takes seconds; else with pip, which takes minutes."""
    uv = Path(sys.executable).with_name("uv")
    if uv.exists():
        argv = [str(uv), "pip", "install", "-q", "--compile-bytecode", "--python", str(python), *requirements]
        if not subprocess.run(argv, check=False, stdout=sys.stderr).returncode:
            return
    pip = [str(python), "-m", "pip", "install", "-qq", "--compile", *requirements]
    subprocess.run(pip, check=True, stdout=sys.stderr)


def node_package(name: str, package: str, pins: Mapping[str, str]) -> Path:
    """The `node_modules` that a package was installed into, with `pins` over what it asks for. Raises LeftOut."""
    folder = HOME / name
    stamp = folder / ".requirement"
    wanted = json.dumps([package, pins])
    if not stamp.exists() or stamp.read_text() != wanted:
        if shutil.which("npm") is None:
            raise LeftOut(f"{name} needs node and npm: apt-get install nodejs npm (or your system's packages)")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "package.json").write_text(json.dumps({"private": True, "overrides": pins}))
        argv = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", package]
        done = subprocess.run(argv, cwd=folder, check=False, stdout=sys.stderr)
        if done.returncode:
            raise LeftOut(f"{package} could not be installed (npm ended with {done.returncode})")
        stamp.write_text(wanted)
    return folder / "node_modules"
