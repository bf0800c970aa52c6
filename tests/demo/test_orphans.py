"""A demo that is killed takes everything it started along, whenever that is."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kept_demo import START_S
from nodes import Node
from waits import until

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc"),
    pytest.mark.xdist_group("processes"),
    pytest.mark.timeout(600),
]


def processes() -> dict[int, tuple[str, int, int]]:
    """Process id -> (state, parent, session)."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent, _, session = (directory / "stat").read_text().rpartition(")")[2].split()[:4]
            found[int(directory.name)] = state, int(parent), int(session)
    return found


def session_of_the_node(demo_pid: int) -> int | None:
    """The demo's only child is the leader of a session in which all others are."""
    return next(
        (pid for pid, (_, parent, session) in processes().items() if parent == demo_pid and session == pid), None
    )


def members(session_id: int) -> list[int]:
    """Processes of the session that have not ended; what nobody has waited for yet has."""
    return [pid for pid, (state, _, session) in processes().items() if session == session_id and state not in "ZX"]


def wait_until_gone(session_id: int) -> None:
    """Told by each process's end; what is started meanwhile is waited for too."""
    while found := members(session_id):
        for pid in found:
            wait_until_ended(pid)


def wait_until_ended(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        told = ended.poll(START_S * 1000)
        os.close(descriptor)
        assert told, f"process {pid} outlives the demo: {Path(f'/proc/{pid}/cmdline').read_bytes()!r}"


LEADER = """
import signal, subprocess, sys
signal.signal(signal.SIGHUP, lambda *_: None)  # caught and not ignored: what it starts does not ignore it either
child = subprocess.Popen(sys.argv[1:])
print(child.pid, flush=True)
while True:
    signal.pause()
"""
"""Starts a command as `make` does in a terminal of its own: it is told of what happens, and passes nothing on."""


@pytest.mark.parametrize("end", ["its terminal is closed", "who started it is killed"])
def test_a_kept_demo_ends_when_nobody_can_end_it_any_more(tmp_path: Path, end: str) -> None:
    terminal, inside = os.openpty()
    command = [sys.executable, "-c", LEADER, sys.executable, "-m", "taximeter", "demo", "--keep"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=inside, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as leader:
        os.close(inside)
        assert leader.stdout is not None
        demo_pid = int(leader.stdout.readline())
        try:
            while b"For a client:" not in leader.stdout.readline():
                assert leader.poll() is None
            node = session_of_the_node(demo_pid)
            assert node is not None
            if end == "its terminal is closed":
                os.close(terminal)
            else:
                leader.kill()
            wait_until_ended(demo_pid)
            wait_until_gone(node)
        finally:
            leader.kill()
    assert not (tmp_path / "data-demo").exists()


def serving(demo: Node) -> bool:
    return "For a client:" in demo.log


def starting(demo: Node) -> bool:
    """The node's first process is there; it imports, or starts its own."""
    return True


@pytest.mark.parametrize("moment", [starting, serving])
def test_a_killed_demo_leaves_no_process_and_no_folder(tmp_path: Path, moment: Callable[[Node], bool]) -> None:
    demo = Node(tmp_path)
    process = demo.spawn("demo", "--keep")
    session = 0
    try:
        session = until(lambda: session_of_the_node(process.pid), "its node", process.pid)
        until(lambda: moment(demo), moment.__name__, process.pid)
        assert len(members(session)) >= (4 if moment is serving else 1)
        process.kill()
        wait_until_gone(session)
        left = tmp_path / "data-demo"
        assert not left.exists(), sorted(left.rglob("*"))
    finally:
        process.kill()
        process.wait()
        for pid in members(session) if session else []:  # where the test has failed
            os.kill(pid, signal.SIGKILL)
