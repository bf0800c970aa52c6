"""The embedded Valkey: real processes, real files."""

from __future__ import annotations

import os
import select
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from taximeter.node.embedded_valkey import EmbeddedValkey, ValkeyError
from waits import HANG_S


@pytest.fixture
def valkey(tmp_path: Path):
    server = EmbeddedValkey(tmp_path)
    yield server
    server.stop()


def test_it_persists_refuses_eviction_and_listens_on_loopback_with_a_password(valkey: EmbeddedValkey) -> None:
    with redis.Redis.from_url(valkey.start(), decode_responses=True) as client:
        wanted = {"bind": "127.0.0.1", "appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
        assert client.config_get(*wanted) == wanted
        assert client.config_get("dir") == {"dir": str(valkey.directory)}
    port = int(valkey.url.rsplit(":", 1)[1].split("/")[0])
    with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_its_url_is_in_a_file_only_the_owner_can_read(valkey: EmbeddedValkey) -> None:
    url = valkey.start()
    assert valkey.url_file.read_text() == url + "\n"
    assert stat.S_IMODE(valkey.url_file.stat().st_mode) == 0o600


def test_what_was_written_and_the_url_are_there_after_a_kill(valkey: EmbeddedValkey) -> None:
    url = valkey.start()
    with redis.Redis.from_url(url) as client:
        client.set("counted", 7)
    assert valkey.process is not None
    valkey.process.kill()
    valkey.process.wait()
    assert valkey.start() == url
    with redis.Redis.from_url(url) as client:
        assert client.get("counted") == b"7"


def test_a_server_left_in_the_directory_is_ended_first(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    with redis.Redis.from_url(valkey.start()) as client:
        client.set("counted", 8)
    left = valkey.process
    assert left is not None
    again = EmbeddedValkey(tmp_path)
    try:
        assert again.start() == valkey.url
        assert left.wait(0) == 0  # it ended in order, not by SIGKILL
        with redis.Redis.from_url(again.url) as client:
            assert client.get("counted") == b"8"
    finally:
        again.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from taximeter.node.embedded_valkey import EmbeddedValkey as E\n"
        "v = E(Path(sys.argv[1])); v.start(); print(v.process.pid, flush=True); sys.stdin.read()"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    ) as parent:
        assert parent.stdout is not None
        watched = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    assert select.select([watched], [], [], HANG_S)[0], "Valkey outlived its parent"
    os.close(watched)


def test_a_taken_port_is_named_with_the_log(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValkeyError, match=r"(?s)did not start.*Address already in use"):
            EmbeddedValkey(tmp_path, port=port).start()


def test_a_server_that_is_loading_its_file_is_waited_for_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Loading(EmbeddedValkey):
        """Says LOADING, as a server with a large file would, until it was asked 100 times, once a second."""

        asked = 0

        def ping(self) -> str:
            answer = super().ping()
            self.asked += answer == "PONG"
            return "LOADING" if answer == "PONG" and self.asked < 100 else answer

    server = Loading(tmp_path)
    monkeypatch.setattr("taximeter.node.embedded_valkey.time.monotonic", lambda: float(server.asked))
    server.start(timeout_s=60)
    server.stop()
    assert server.asked == 100


def test_a_stop_without_a_start_does_nothing(tmp_path: Path) -> None:
    EmbeddedValkey(tmp_path).stop()


def test_it_ends_in_order_on_sigterm(valkey: EmbeddedValkey) -> None:
    valkey.start()
    process = valkey.process
    assert process is not None
    valkey.stop()
    assert process.returncode == 0
