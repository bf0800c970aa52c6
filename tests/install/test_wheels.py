"""The wheels alone: built, installed where nothing of the checkout is, and used there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import pytest

from install.checkout import checkout, environment, offline, run
from install.conftest import ROOT

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both distributions as wheels, made by the locked build tools."""
    folder = tmp_path_factory.mktemp("dist")
    sources = checkout(tmp_path_factory.mktemp("sources"))
    for project in (sources, sources / "proxy/taximeter_rag"):
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        subprocess.run(build, cwd=project, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def alone(built: Path, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the `taximeter` wheel and what that asks for."""
    return empty(tmp_path_factory.mktemp("alone"), wheels, str(next(built.glob("taximeter-*.whl"))))


def empty(folder: Path, wheels: Path, *wanted: str) -> Path:
    """A new environment with this installed by its own pip; its `bin`."""
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    pip = [str(folder / "venv/bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted]
    done = run(pip, folder, environment(folder / "home", **offline(wheels)))
    assert done.returncode == 0, done.stdout[-3000:]
    return folder / "venv/bin"


def test_the_demo_runs_from_the_wheel_alone(alone: Path, tmp_path: Path) -> None:
    done = run([str(alone / "taximeter"), "demo"], tmp_path, environment(tmp_path / "home"))
    assert done.returncode == 0, done.stdout
    assert "The provider's bill, /usage and the Redis counters agree" in done.stdout
    assert "rerank-v3.5" in done.stdout


def test_serve_runs_from_the_wheel_alone(alone: Path, tmp_path: Path) -> None:
    told = {"TAXIMETER_LISTEN": "127.0.0.1:0", "TAXIMETER_ADMIN_LISTEN": "127.0.0.1:0"}
    environ = environment(tmp_path / "home", **told)
    checked = run([str(alone / "taximeter"), "check"], tmp_path, environ)
    assert checked.returncode == 0, checked.stdout
    with subprocess.Popen(
        [str(alone / "taximeter"), "serve"], cwd=tmp_path, env=environ, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as serving:  # fmt: skip
        assert serving.stdout is not None
        try:
            [control] = re.findall(r"http://[\d.]+:\d+", _line_with("control port", serving.stdout))
            with urllib.request.urlopen(f"{control}/prices?model=rerank-v3.5") as answer:
                assert "rerank-v3.5" in json.dumps(json.load(answer))
            with urllib.request.urlopen(f"{control}/") as page:
                assert b"Taximeter" in page.read()
        finally:
            serving.send_signal(signal.SIGTERM)
    assert serving.returncode == 0


def _line_with(words: str, lines: Iterable[str]) -> str:
    told = []
    for line in lines:
        told.append(line)
        if words in line:
            return line
    raise AssertionError(f"ended before it said {words!r}: {told}")


def test_the_plugin_runs_from_its_wheel_alone(built: Path, wheels: Path, tmp_path: Path) -> None:
    bin_ = empty(tmp_path, wheels, str(next(built.glob("taximeter_rag-*.whl"))))
    done = run([str(bin_ / "taximeter-rag"), "--help"], tmp_path, environment(tmp_path / "home"))
    assert done.returncode == 0, done.stdout
    program = (
        "import importlib.metadata as m; from taximeter_rag import tags; "
        "[e] = m.entry_points(group='lightrag.parsers'); print(e.load())"
    )
    done = run([str(bin_ / "python"), "-c", program], tmp_path, environment(tmp_path / "home"))
    assert (done.returncode, "function register" in done.stdout) == (0, True), done.stdout


def test_the_plugins_install_command_in_its_guide_is_one_that_works(wheels: Path, tmp_path: Path) -> None:
    """It is in no index yet, so the guide installs it from the checkout."""
    [command] = re.findall(r"^ +(pip install \S*taximeter_rag)$", (ROOT / "docs/lightrag.md").read_text(), re.MULTILINE)
    folder = checkout(tmp_path / "taximeter")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    environ = environment(tmp_path / "home", **offline(wheels))
    environ["PATH"] = f"{tmp_path / 'venv/bin'}{os.pathsep}{environ['PATH']}"
    done = run(command.split(), folder, environ)
    assert done.returncode == 0, done.stdout
    assert run(["taximeter-rag", "--help"], tmp_path, environ).returncode == 0
