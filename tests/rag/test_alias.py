"""`lightrag.api.token_tracking` by an import hook: none of LightRAG's files is touched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rag import venvs
from rag.lightrag_house import install_wheel

PROJECT = Path(__file__).resolve().parents[2] / "proxy" / "taximeter_rag_alias"
PROGRAM = """
import site, sys, time
site.addsitedir(sys.argv[1])  # what Python does with site-packages at its start: it runs the .pth file
assert "taximeter_rag" not in sys.modules and "lightrag" not in sys.modules
from lightrag.api.token_tracking import TokenTrackingLightRAG, track_lightrag_operations
import lightrag.api, taximeter_rag.lightrag
assert TokenTrackingLightRAG is taximeter_rag.lightrag.TokenTrackingLightRAG
assert track_lightrag_operations is lightrag.api.token_tracking.track_lightrag_operations
assert taximeter_rag.lightrag.activate.__globals__["Active"].plugin is not None  # before a LightRAG is made
try:
    import lightrag.api.no_such_module
except ModuleNotFoundError:
    print("found")
"""


@pytest.mark.venv(venvs.NEWEST)
def test_the_name_is_found_where_lightrag_has_no_such_file(tmp_path: Path, site: Path) -> None:
    folder = install_wheel(tmp_path, PROJECT)
    assert {file.name for file in folder.iterdir() if file.is_file()} == {
        "taximeter_rag_alias.py",
        "taximeter_rag_alias.pth",
    }
    python = venvs.python(venvs.NEWEST)
    environ = {
        **os.environ,
        "PYTHONPATH": str(site),
        "TAXIMETER_PROXY_URL": "http://127.0.0.1:9",
    }
    found = subprocess.run(
        [str(python), "-c", PROGRAM, str(folder)],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == "found\n", found.stderr
    without = subprocess.run(
        [str(python), "-c", "import lightrag.api.token_tracking"],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert without.returncode == 1


def test_a_real_module_of_that_name_is_stronger(tmp_path: Path) -> None:
    (tmp_path / "lightrag" / "api").mkdir(parents=True)
    (tmp_path / "lightrag" / "api" / "token_tracking.py").write_text("real = True\n")
    program = "import taximeter_rag_alias, lightrag.api.token_tracking as found; print(found.real)"
    environ = {**os.environ, "PYTHONPATH": f"{PROJECT}:{tmp_path}"}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert found.stdout == "True\n", found.stderr
