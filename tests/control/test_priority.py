"""What the running control process is to the scheduler, beside a running worker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nodes import node
from taximeter.control.process.priority import NICENESS

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc"),
    pytest.mark.xdist_group("processes"),
]


def test_the_control_process_gives_way_to_workers(tmp_path: Path) -> None:
    """Every one of its threads: on Linux niceness and policy are each thread's own."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with node(tmp_path) as served:
        served.start()
        processes = served.children()
        control, worker = processes["control"], processes["worker 1"]
        threads = [int(task.name) for task in Path(f"/proc/{control}/task").iterdir()]
        assert len(threads) > 1
        for thread in threads:
            assert os.getpriority(os.PRIO_PROCESS, thread) == min(19, own + NICENESS)
            assert os.sched_getscheduler(thread) == os.SCHED_BATCH
        assert len({os.getsid(pid) for pid in processes.values()}) == 1  # niceness weighs within a session only
        assert os.getpriority(os.PRIO_PROCESS, worker) == own
        assert os.sched_getscheduler(worker) == os.sched_getscheduler(0)
