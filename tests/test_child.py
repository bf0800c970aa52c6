"""A child's end of the conversation with its supervisor, in a process of its own with real pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import msgspec

from taximeter.node.child import READY, Slot

SERVES = """
from taximeter.node.child import Child
Child("worker").ready()
print("goes on")
"""


def test_a_child_whose_supervisor_died_while_it_started_goes_on_to_end_in_order():
    """An exception here would end the journal while connections are being accepted."""
    read, write = os.pipe()
    os.close(read)  # the supervisor's end
    slot = msgspec.json.encode(Slot(number=1, socket_fd=-1, boot_fds=[], lock_fd=-1)).decode()
    done = subprocess.run([sys.executable, "-c", SERVES, slot], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert done.returncode == 0 and done.stderr.endswith(b" INFO worker 1: goes on\n") and done.stderr.count(b"\n") == 1


HANGS = """
import asyncio
from taximeter.node.child import Child
child = Child("control")
async def run():
    child.on_stop(lambda: print("hangs"), orphan_s=1)
    child.ready()
    await asyncio.Event().wait()
asyncio.run(run())
"""


def test_a_child_that_hangs_does_not_outlive_its_supervisor_for_ever():
    slot = msgspec.json.encode(Slot(number=1, socket_fd=-1, boot_fds=[], lock_fd=-1)).decode()
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HANGS, slot], stdin=pipe, stdout=pipe, stderr=pipe) as child:
        assert child.stdout is not None and child.stdout.readline() == READY
        _, said = child.communicate()  # closes its stdin: the supervisor is gone
    assert child.returncode == -signal.SIGALRM and b"hangs" in said
