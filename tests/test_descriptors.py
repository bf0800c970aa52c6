"""The limit of open files: raised as far as it may be, and told where that is not far."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

SAYS = """
import logging, resource, sys
from taximeter.node.descriptors import raise_limit
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
soft, hard = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
assert raise_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "told"),
    [(256, 4096, ["INFO"]), (256, 1000, ["INFO", "WARNING"]), (900, 900, ["WARNING"]), (4096, 4096, [])],
)
def test_the_soft_limit_is_raised_to_the_hard_one(soft: int, hard: int, told: list[str]) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        pytest.skip("the hard limit here is lower")
    said = subprocess.run(
        [sys.executable, "-c", SAYS, str(soft), str(hard)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert said[-1] == f"{hard} {hard}"
    assert [line.split()[0] for line in said[:-1]] == told
