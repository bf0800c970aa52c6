"""scripts/probe.py, the image's health check, beside a whole node."""

from __future__ import annotations

import ast
import json
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deploy.tools import REPO
from nodes import node

PROBE = REPO / "scripts/probe.py"


def probed(data_dir: Path) -> subprocess.CompletedProcess[str]:
    """As the image runs it."""
    command = [sys.executable, "-I", "-S", str(PROBE)]
    environ = {"TAXIMETER_DATA_DIR": str(data_dir)}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def test_it_says_whether_a_node_is_ready(tmp_path: Path) -> None:
    assert probed(tmp_path / "data").returncode == 1
    with node(tmp_path) as running:
        running.start()
        done = probed(running.data_dir)
        assert (done.returncode, done.stderr) == (0, "")
        left = (running.data_dir / "runtime.json").read_bytes()
    (running.data_dir / "runtime.json").write_bytes(left)  # as a killed node leaves it
    done = probed(running.data_dir)
    assert done.returncode == 1 and done.stderr.startswith("not ready: ")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 Service Unavailable\r\n\r\n", b"HTTP/1.1 200", b"", b"hello\r\n"])
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_anything_but_200_is_not_ready(answer: bytes, address: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        told = {"admin_listen": f"{address}:{server.getsockname()[1]}"}
        (tmp_path / "runtime.json").write_text(json.dumps(told))

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                asked = connection.recv(65536)
                assert re.match(rb"GET /readyz HTTP/1.1\r\nHost: localhost\r\n", asked)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        done = probed(tmp_path)
        thread.join()
    assert done.returncode == (0 if answer == b"HTTP/1.1 200" else 1), done.stderr


def test_it_loads_next_to_nothing() -> None:
    """It is started every few seconds, for ever."""
    names = {
        name for node in ast.walk(ast.parse(PROBE.read_text())) if isinstance(node, ast.Import) for name in node.names
    }
    assert {name.name for name in names} == {"json", "os", "socket", "sys"}
    assert not [node for node in ast.walk(ast.parse(PROBE.read_text())) if isinstance(node, ast.ImportFrom)]


def test_the_image_runs_it() -> None:
    dockerfile = (REPO / "Dockerfile").read_text()
    [copied] = re.findall(r"^COPY scripts/probe\.py (\S+)$", dockerfile, re.MULTILINE)
    [check] = re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", dockerfile, re.MULTILINE)
    assert json.loads(check) == ["python", "-I", "-S", copied]
