"""A child's end of the conversation with its supervisor, in a process of its own with real pipes."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec

from taximeter.node.child import Slot

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
