"""One Taximeter a directory, its node's name, and what it tells others."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from taximeter.core.errors import DataDirError
from taximeter.node.datadir import DataDir, Runtime, read_runtime

RUNTIME = Runtime(
    pid=1,
    version="0",
    node="n",
    listen="h:1",
    admin_listen="h:2",
    workers=1,
    redis_url="",
    redis_url_file="",
    started_at=1,
)


def test_a_directory_is_made_and_held_until_released(tmp_path: Path) -> None:
    path = tmp_path / "a/b"
    held = DataDir(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    with pytest.raises(DataDirError, match=rf"in use by another Taximeter \(process {os.getpid()}\)"):
        DataDir(path)
    held.release()
    DataDir(path).release()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    script = (
        "import sys, os; from pathlib import Path; from taximeter.node.datadir import DataDir\n"
        "DataDir(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environ, check=False).returncode == -9
    DataDir(tmp_path).release()


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirError, match=r"file.* cannot be used"):
        DataDir(tmp_path / "file")


def test_the_nodes_name_is_made_once_unless_configured(tmp_path: Path) -> None:
    held = DataDir(tmp_path)
    made = held.node("")
    assert made.startswith("node-")
    assert (held.node(""), held.node("mine")) == (made, "mine")
    (tmp_path / "node").write_text("not a name\n")
    assert held.node("") != "not a name"
    held.release()


def test_what_is_published_is_seen_while_its_process_lives(tmp_path: Path) -> None:
    held = DataDir(tmp_path)
    assert read_runtime(tmp_path) is None
    held.publish(RUNTIME)
    assert stat.S_IMODE((tmp_path / "runtime.json").stat().st_mode) == 0o600
    assert read_runtime(tmp_path) == RUNTIME
    left = (tmp_path / "runtime.json").read_bytes()
    held.release()
    (tmp_path / "runtime.json").write_bytes(left)  # as a killed process leaves it
    assert read_runtime(tmp_path) is None


def test_children_that_still_hold_their_port_are_waited_for(tmp_path: Path) -> None:
    held = DataDir(tmp_path)
    descriptor = held.children_lock()
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=[descriptor]
    ) as child:
        os.close(descriptor)
        with pytest.raises(DataDirError, match="do not end"):
            held.children_lock(timeout_s=0.05)
        assert child.stdin is not None
        child.stdin.close()
        os.close(held.children_lock())
    held.release()
