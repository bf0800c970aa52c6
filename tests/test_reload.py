"""Other settings for a running Taximeter: what applies, what waits for a restart, what is refused."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import pytest

import taximeter
from faults.faults import hears_hangup
from nodes import Node, node
from receiver import Receiver
from taximeter.node.datadir import Runtime, read_runtime
from taximeter.node.reloaded import read_reloaded
from upstream import Provider
from waits import HANG_S, ended, happens, until

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc"),
    pytest.mark.xdist_group("processes"),
]

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello there"}]}


class Reloaded:
    """A node with a settings file that a test writes anew."""

    def __init__(self, served: Node, provider: Provider, folder: Path) -> None:
        self.served, self.provider = served, provider
        self.file, self.env_file = folder / "taximeter.toml", folder / "secrets.env"
        self.env_file.write_text("PROVIDER_KEY='sk-one'\n")
        self.runtime: Runtime | None = None
        self.write()

    def write(self, top: str = "", tables: str = "") -> None:
        self.file.write_text(
            f'env_file = "{self.env_file}"\n{top}\n'
            f'[[upstream]]\nname = "openai"\nbase_url = "{self.provider.base_url}"\n'
            f'api_key_env = "PROVIDER_KEY"\n{tables}'
        )

    async def start(self) -> Runtime:
        self.runtime = await asyncio.to_thread(self.served.start)
        return self.runtime

    async def reload(self, code: int = 0) -> str:
        done = await asyncio.to_thread(self.served.run, "reload")
        assert done.returncode == code, done.stdout + done.stderr + self.served.log
        return done.stdout + done.stderr

    async def chat(self, **headers: str) -> httpx2.Response:
        assert self.runtime is not None
        async with httpx2.AsyncClient(timeout=HANG_S) as client:
            url = f"http://{self.runtime.listen}/v1/chat/completions"
            return await client.post(url, json=CHAT, headers={"x-workspace": "acme"} | headers)

    async def control(self, method: str, path: str, **more: Any) -> Any:
        assert self.runtime is not None
        async with httpx2.AsyncClient(timeout=HANG_S) as client:
            return await client.request(method, f"http://{self.runtime.admin_listen}{path}", **more)

    async def health(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.control("GET", "/healthz")).json()
        return found


@pytest.fixture
def running(tmp_path: Path, provider: Provider) -> Iterator[Reloaded]:
    with node(tmp_path) as made:
        yield Reloaded(made, provider, tmp_path)


async def test_a_key_exchanged_in_the_env_file_goes_with_new_calls(running: Reloaded) -> None:
    await running.start()
    await running.chat()
    running.env_file.write_text("# rotated\nexport PROVIDER_KEY=sk-two\n")
    assert "changed  env_file" in await running.reload()
    await running.chat()
    sent = [request.header("authorization") for request in running.provider.requests]
    assert sent == ["Bearer sk-one", "Bearer sk-two"]
    assert "sk-two" not in running.served.log
    (entry,) = (await running.control("GET", "/audit?action=settings.reload")).json()["data"]
    assert (entry["outcome"], entry["after"]) == ("ok", {"changed": ["env_file"], "waits_for_restart": []})
    assert "sk-two" not in str(entry)


async def test_what_both_ports_go_by_changes_together_and_counters_go_on(running: Reloaded, tmp_path: Path) -> None:
    """Prices, proxy keys, tags, the admin token, price codes, limits and the number of workers."""
    await running.start()
    await running.chat()
    key, token = "tm-" + "k" * 40, "secret"
    (tmp_path / "prices.toml").write_text(
        '[[price]]\nprovider = "openai"\nmodel = "gpt-4o-mini"\nfrom = 2020-01-01\nsource = "a test"\n'
        "input_usd_per_mtok = 1000\noutput_usd_per_mtok = 1000\n"
    )
    running.write(
        f'workers = 2\nprices_file = "{tmp_path}/prices.toml"\n'
        f'[auth]\nmode = "keys"\nadmin_token_sha256 = "{sha256(token.encode()).hexdigest()}"\n'
        f'[[auth.keys]]\nid = "first"\nsha256 = "{sha256(key.encode()).hexdigest()}"\nworkspace = "acme"\n'
        '[tags]\nheaders = {"x-step" = "task"}\n[price_codes]\nrag_embedding = 1\n[limits]\njson_body_bytes = 60000'
    )
    said = await running.reload()
    for path in ("workers", "prices_file", "auth.mode", "auth.keys", "tags.headers", "limits.json_body_bytes"):
        assert path in said, said
    assert (await running.chat()).status_code == 401
    assert (await running.chat(authorization=f"Bearer {key}", **{"x-step": "extract"})).status_code == 200
    assert set(running.served.children()) == {"control", "valkey", "worker 1", "worker 2"}
    assert (await running.control("GET", "/usage")).status_code == 401
    admin = {"authorization": f"Bearer {token}"}
    told = (await running.control("GET", "/usage?group_by=task", headers=admin)).json()
    assert told["usage"]["requests"] == 3, "two that were answered and the one refused"
    (of_task,) = [group for group in told["groups"] if group["task"] == "extract"]
    assert of_task["estimated_cost_usd"] > 0.001
    metrics = (await running.control("GET", "/metrics", headers=admin)).text
    counted = [line for line in metrics.splitlines() if line.startswith("taximeter_requests_total{")]
    assert sum(float(line.split()[-1]) for line in counted if 'outcome="ok"' in line) == 2
    running.write()
    await running.reload()
    assert (await running.chat()).status_code == 200
    await happens(lambda: "worker 2" not in running.served.children(), "the second worker gone")
    health = await running.health()
    assert health["workers"] == 1 and health["reload"]["applied"]


async def test_a_rate_that_is_added_holds_for_new_calls_and_one_that_is_gone_no_longer(running: Reloaded) -> None:
    await running.start()
    assert [(await running.chat()).status_code for _ in range(2)] == [200, 200]
    running.write(tables='[[rate]]\nname = "slow"\nrequests_per_minute = 1\n')
    assert "changed  rate" in await running.reload()
    assert [(await running.chat()).status_code for _ in range(2)] == [200, 429]
    running.write()
    await running.reload()
    assert (await running.chat()).status_code == 200


async def test_a_call_in_flight_ends_by_the_settings_it_began_with(running: Reloaded) -> None:
    await running.start()
    old = running.served.child("worker 1")
    gate = asyncio.Event()
    answer = b'{"id":"c","object":"chat.completion","model":"gpt-4o-mini","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}'  # noqa: E501
    running.provider.script(gate, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer)
    call = asyncio.ensure_future(running.chat())
    await running.provider.until(lambda: len(running.provider.requests) == 1)
    running.write("[limits]\nshutdown_s = 0.1")
    await running.reload()
    assert (await running.chat()).status_code == 200, "the new worker takes calls while the old one waits"
    running.provider.requests.clear()
    gate.set()
    assert (await call).json()["usage"]["total_tokens"] == 12
    await happens(lambda: old not in running.served.children().values(), "the old worker gone")
    records = await asyncio.to_thread(
        until, lambda: len(found := running.served.records()) == 2 and found, "both records"
    )
    assert {record["outcome"] for record in records} == {"ok"}


async def test_what_needs_a_restart_is_named_and_waits(running: Reloaded) -> None:
    await running.start()
    running.write('listen = "127.0.0.1:9"\nusage_headers = true\n[history]\nretention_days = 7\nurl = "sqlite:///x.db"')
    running.served.environ.pop("TAXIMETER_LISTEN")
    said = await running.reload()
    assert "history.url changed: restart to apply" in said
    assert "usage_headers" in said and "history.retention_days" in said
    assert "x-taximeter-input-tokens" in (await running.chat()).headers
    told = (await running.health())["reload"]
    assert told["restart"] == ["history.url"], "its own environment says where it listens"


@pytest.mark.parametrize(
    ("top", "why"),
    [
        ("limits = 3", "limits"),
        ("this is no TOML", "not valid TOML"),
        ('[webhook]\nurl = "http://127.0.0.1:1"\ntoken_env = "NO_SUCH_TOKEN"', "NO_SUCH_TOKEN is not set"),
        ('prices_file = "bad.toml"', "bad.toml"),
        ('[[upstream]]\nname = "tls"\nca_file = "bad.toml"', "no certificate (PEM) can be read from it"),
    ],
)
async def test_bad_settings_are_refused_whole_and_say_why(
    running: Reloaded, tmp_path: Path, top: str, why: str
) -> None:
    (tmp_path / "bad.toml").write_text("[[price]]\nnonsense = 1")
    await running.start()
    before = running.served.children()
    running.write(f"usage_headers = true\n{top}")
    said = await running.reload(2)
    assert "REFUSED: the settings of before go on" in said and why in said
    answer = await running.chat()
    assert answer.status_code == 200 and "x-taximeter-input-tokens" not in answer.headers
    assert running.served.children() == before
    told = (await running.health())["reload"]
    assert told["applied"] is False and why in told["problems"][0]
    (entry,) = (await running.control("GET", "/audit?action=settings.reload")).json()["data"]
    assert entry["outcome"] == "failed" and why in entry["problem"]
    assert "The settings are not taken, the ones of before go on" in running.served.log


async def test_a_worker_that_cannot_start_refuses_them_all(running: Reloaded) -> None:
    await running.start()
    before = running.served.children()
    keys = running.served.data_dir / "keys.json"
    keys.write_text("no JSON")
    running.write("[control]\nopen_metrics = true")
    said = await running.reload(2)
    assert "worker 1 does not start" in said and str(keys) in said
    assert running.served.children() == before
    keys.unlink()
    assert (await running.chat()).status_code == 200


async def test_a_webhook_is_added_exchanged_and_taken_away(running: Reloaded) -> None:
    await running.start()
    async with Receiver() as first, Receiver() as second:
        for receiver in (first, second):
            running.write(f'[webhook]\nurl = "{receiver.url}"\nidle_s = 0.2')
            await running.reload()
            await running.chat(**{"x-track-id": "t"})
            await happens(partial(len, receiver.accepted), "the segment")
        running.write()
        await running.reload()
        sinks = (await running.health())["sinks"]
        assert "webhook" not in sinks and "history" in sinks
    assert [len(receiver.accepted) for receiver in (first, second)] == [1, 1]


async def test_a_changed_file_is_read_where_that_is_switched_on(running: Reloaded) -> None:
    running.write("reload_on_change = true")
    await running.start()
    running.env_file.write_text("PROVIDER_KEY=sk-two\n")

    async def told() -> Any:
        return (await running.health())["reload"]

    reloaded = await happens(told, "the change seen")
    assert (reloaded["asked_by"], reloaded["applied"], reloaded["changed"]) == ("file", True, ["env_file"])
    await running.chat()
    assert running.provider.requests[-1].header("authorization") == "Bearer sk-two"


async def test_sighup_to_every_process_as_a_service_manager_sends_it_ends_none(running: Reloaded) -> None:
    """`systemctl kill -s HUP`, `pkill -HUP -f taximeter`."""
    await running.start()
    gate = asyncio.Event()
    running.provider.script(gate, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    call = asyncio.ensure_future(running.chat())
    await running.provider.until(lambda: len(running.provider.requests) == 1)
    before = running.served.children()
    for pid in before.values():
        os.kill(pid, signal.SIGHUP)
    await running.reload()
    gate.set()
    assert (await call).status_code == 200
    now = running.served.children()
    assert (now["control"], now["valkey"]) == (before["control"], before["valkey"])
    assert "SIGHUP" not in running.served.log


async def test_where_nothing_runs_reload_says_so(running: Reloaded) -> None:
    assert "No Taximeter runs on" in await running.reload(3)


async def test_sighup_in_the_first_moments_of_a_start_is_a_reload_too(running: Reloaded) -> None:
    """Long before settings are read: from then on it is held back until somebody listens."""
    served = running.served
    with served.log_file.open("wb") as log:
        process = served.process = subprocess.Popen(
            [sys.executable, "-m", "taximeter", "serve"],
            stdout=log,
            stderr=log,
            env=served.environ,
            cwd=served.directory,
        )
    await happens(lambda: hears_hangup(process.pid), "its first moment")
    process.send_signal(signal.SIGHUP)
    told = await happens(lambda: read_reloaded(served.data_dir), "the reload")
    assert (told.asked_by, told.applied) == ("signal", True)
    running.runtime = await happens(lambda: read_runtime(served.data_dir), "readiness")
    await running.chat()
    assert process.poll() is None


def in_a_terminal() -> None:
    """Standard input becomes the controlling terminal; who ignores hang-ups, as `nohup` has it, has been told so."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize("closed", [False, True], ids=["by hand", "its terminal is closed"])
async def test_sighup_reloads_unless_it_is_the_end_of_its_terminal(running: Reloaded, closed: bool) -> None:
    ours, theirs = pty.openpty()
    served = running.served
    with served.log_file.open("wb") as log:
        process = served.process = subprocess.Popen(
            [sys.executable, "-m", "taximeter", "serve"],
            stdin=theirs,
            stdout=log,
            stderr=log,
            env=served.environ,
            cwd=served.directory,
            start_new_session=True,
            preexec_fn=in_a_terminal,  # noqa: PLW1509
        )
    os.close(theirs)
    try:
        await asyncio.to_thread(until, lambda: read_runtime(served.data_dir), "readiness", process.pid)
        if not closed:
            process.send_signal(signal.SIGHUP)
            told = await happens(lambda: read_reloaded(served.data_dir), "the reload")
            assert (told.asked_by, told.applied) == ("signal", True)
            assert process.poll() is None
    finally:
        os.close(ours)
    assert await asyncio.to_thread(ended, process) == 0


async def test_other_prices_are_written_down_once_they_are_in_force_and_not_before(
    running: Reloaded, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.toml"

    def price(usd: int) -> None:
        prices.write_text(
            f'[[price]]\nprovider = "openai"\nmodel = "m"\nfrom = 2020-01-01\nsource = "a test"\n'
            f"input_usd_per_mtok = {usd}\n"
        )

    async def noted() -> int:
        entries = (await running.control("GET", "/audit?action=prices.change")).json()["data"]
        return len(entries)

    price(1)
    running.write(f'prices_file = "{prices}"')
    await running.start()
    keys = running.served.data_dir / "keys.json"
    keys.write_text("no JSON")  # no worker starts with it
    price(2)
    await running.reload(2)
    assert await noted() == 0
    keys.unlink()
    await running.reload()
    await happens(noted, "the change in the audit log")
    await running.reload()
    assert await noted() == 1


async def test_another_version_that_was_installed_meanwhile_waits_for_a_restart(
    running: Reloaded, tmp_path: Path
) -> None:
    """New workers would be of that version, under a supervisor and a control process of this one."""
    copy = tmp_path / "installed"
    shutil.copytree(Path(taximeter.__file__).parent, copy / "taximeter", ignore=shutil.ignore_patterns("__pycache__"))
    running.served.environ["PYTHONPATH"] = str(copy)
    await running.start()
    before = running.served.children()
    (copy / "taximeter/__init__.py").write_text('__version__ = "99.0"\n')
    assert f"Version 99.0 is installed and {taximeter.__version__} runs: restart" in await running.reload(2)
    assert running.served.children() == before
