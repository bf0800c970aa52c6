"""Tests of one `xdist_group` run in one worker: two whole nodes at a time would be too much for a small machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FILE = """
import os, pathlib, pytest
pytestmark = pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("number", range(8))
def test_one(number):
    pathlib.Path(__file__).with_name(os.environ["PYTEST_XDIST_WORKER"]).touch()
"""


def test_a_group_stays_in_one_worker(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(FILE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "-n", "2"]
    done = subprocess.run(
        [*command, "--dist", "loadgroup", str(tmp_path)], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.glob("gw*"))) == 1
