"""`taximeter status`, with the data directory in the environment, as a container's health check runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nodes import Node, node
from taximeter import __version__

HEAVY = {"asyncio", "click", "email", "http", "httpx2", "msgspec", "rich", "ssl", "taximeter.cli", "taximeter.config"}
SAY_WHAT_IS_IMPORTED = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
from taximeter.__main__ import main
sys.argv = ["taximeter", "status"]
main()
"""


def test_the_image_asks_it_and_names_the_data_directory() -> None:
    dockerfile = (Path(__file__).parents[1] / "Dockerfile").read_text()
    [check] = re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", dockerfile, re.MULTILINE)
    assert json.loads(check) == ["taximeter", "status"]
    assert re.search(r"^ +TAXIMETER_DATA_DIR=/data\b", dockerfile, re.MULTILINE)


@pytest.fixture
def served(tmp_path):
    with node(tmp_path) as made:
        yield made


@pytest.mark.xdist_group("processes")
def test_it_tells_of_a_running_node_the_same_whichever_way_it_finds_the_directory(served: Node) -> None:
    runtime = served.start()
    done = served.run("status")
    assert (done.returncode, done.stderr) == (0, "")
    first, *_ = done.stdout.splitlines()
    assert first == f"Taximeter {__version__}, node {runtime.node}, process {runtime.pid}: ready"
    assert f"  control port     http://{runtime.admin_listen}" in done.stdout
    state = json.loads(served.run("status", "--json").stdout)
    assert (state["ready"], state["problems"], state["pid"]) == (True, [], runtime.pid)
    assert set(state["sinks"]) >= {"history", "redis"}
    (served.directory / "some.toml").write_text(f'data_dir = "{served.data_dir}"\n')
    del served.environ["TAXIMETER_DATA_DIR"]
    by_settings = served.run("status", "--config", "some.toml")
    assert by_settings.stdout.splitlines()[0] == first, by_settings.stderr


@pytest.mark.xdist_group("processes")
def test_a_directory_that_refers_to_the_environment_is_the_servers(served: Node) -> None:
    served.environ |= {"PLACE": str(served.directory), "TAXIMETER_DATA_DIR": "${PLACE}/data"}
    served.start()
    assert ": ready" in served.run("status").stdout


@pytest.fixture
def silent(tmp_path):
    """A node that seems to run, whose control port does not answer."""
    made = Node(tmp_path)
    made.data_dir.mkdir()
    (made.data_dir / "runtime.json").write_text(json.dumps({
        "pid": 1, "version": "1", "node": "n", "listen": "127.0.0.1:1", "admin_listen": "127.0.0.1:1", "workers": 1,
        "redis_url": "", "redis_url_file": "", "started_at": 0,
    }))  # fmt: skip
    holds = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX);"
        "print('held', flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", holds, str(made.data_dir / "lock")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield made


def test_it_imports_nothing_heavy(silent: Node) -> None:
    argv = [sys.executable, "-c", SAY_WHAT_IS_IMPORTED]
    done = subprocess.run(argv, env=silent.environ, capture_output=True, text=True, check=False)
    assert (done.returncode, "NOT READY" in done.stdout) == (1, True), done.stderr
    assert not HEAVY & set(done.stderr.split())


def test_where_nothing_runs_it_says_so(tmp_path) -> None:
    done = Node(tmp_path).run("status")
    assert (done.returncode, "No Taximeter runs on" in done.stderr) == (3, True), done.stderr


def test_a_control_port_that_does_not_answer_is_a_problem(silent: Node) -> None:
    done = silent.run("status")
    assert done.returncode == 1 and "NOT READY" in done.stdout
    assert "  ! the control port does not answer: " in done.stdout
