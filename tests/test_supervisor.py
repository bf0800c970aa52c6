"""A whole Taximeter under kill -9, SIGTERM and restarts: real processes, a provider in this one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from nodes import Node, gone, node
from taximeter.node.datadir import Runtime
from taximeter.supervisor import placing
from upstream import Provider
from waits import HANG_S, ended, happens, until

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc"),
    pytest.mark.xdist_group("processes"),
]

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello there"}]}
STREAM = CHAT | {"stream": True}
HEADERS = {"authorization": "Bearer sk-test", "x-workspace": "acme"}


@pytest.fixture
def served(tmp_path: Path, provider: Provider) -> Iterator[Node]:
    upstream = {"name": "openai", "base_url": provider.base_url, "forward_credentials": True}
    with node(tmp_path, TAXIMETER_UPSTREAM=json.dumps([upstream]), TAXIMETER_LIMITS__SHUTDOWN_S="20") as made:
        yield made


async def start(served: Node, *arguments: str) -> Runtime:
    return await asyncio.to_thread(served.start, *arguments)


async def soon(*args: Any) -> Any:
    """`until`, with the provider's loop going on."""
    return await asyncio.to_thread(until, *args)


async def chat(runtime: Runtime, **more: str) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=HANG_S) as client:
        return await client.post(f"http://{runtime.listen}/v1/chat/completions", json=CHAT, headers=HEADERS | more)


async def usage(runtime: Runtime) -> dict[str, Any]:
    async with httpx2.AsyncClient(timeout=HANG_S) as client:
        answer = await client.get(f"http://{runtime.admin_listen}/usage", params={"workspace": "acme"})
        return answer.raise_for_status().json()


async def test_a_call_is_relayed_and_counted_everywhere(served: Node, provider: Provider) -> None:
    runtime = await start(served, "serve", "--workers", "2")
    assert set(served.children()) == {"control", "valkey", "worker 1", "worker 2"}
    billed = (await chat(runtime)).json()["usage"]
    told = await usage(runtime)
    assert (told["usage"]["total_tokens"], told["complete"]) == (billed["total_tokens"], True)
    status = await asyncio.to_thread(served.run, "status", "--json")
    state = json.loads(status.stdout)
    assert (status.returncode, state["ready"], state["workers"]) == (0, True, 2)
    with redis.Redis.from_url(Path(state["redis_url_file"]).read_text().strip(), decode_responses=True) as client:
        await soon(lambda: client.hget("tm:{acme}:total", "requests") == "1", "the Redis counters")


@pytest.mark.parametrize("victim", ["worker 1", "control", "valkey"])
async def test_a_killed_child_is_replaced_and_nothing_is_lost_or_doubled(served: Node, victim: str) -> None:
    runtime = await start(served)
    assert (await chat(runtime)).status_code == 200
    before = served.child(victim)
    os.kill(before, signal.SIGKILL)
    await soon(lambda: gone(before), "the death")
    assert (await chat(runtime)).status_code == 200  # a worker's socket stays open while it is replaced
    assert await soon(lambda: served.child(victim, other_than=before), "a new child") != before
    assert (await chat(runtime)).status_code == 200
    await soon(lambda: served.run("status").returncode == 0, "readiness")
    told = await usage(runtime)
    assert (told["usage"]["requests"], told["complete"]) == (3, True)
    url = Path(runtime.redis_url_file).read_text().strip()
    with redis.Redis.from_url(url, decode_responses=True) as client:
        await soon(lambda: client.hget("tm:{acme}:total", "requests") == "3", "the Redis counters")
    assert served.stop() == 0


async def test_a_killed_workers_open_call_is_settled(served: Node, provider: Provider) -> None:
    runtime = await start(served)
    provider.script(asyncio.Event())  # says nothing until the test is over
    call = asyncio.ensure_future(chat(runtime))
    await provider.until(lambda: len(provider.requests) == 1)
    os.kill(served.child("worker 1"), signal.SIGKILL)
    with pytest.raises(httpx2.HTTPError):
        await call
    (record,) = await soon(served.records, "the settled call")
    assert (record["outcome"], record["workspace"], record.get("input_tokens")) == ("interrupted", "acme", None)


async def test_the_killed_supervisors_children_end_and_the_next_start_finds_everything_free(served: Node) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [probe.getsockname()[1], other.getsockname()[1]]
    served.environ |= {"TAXIMETER_LISTEN": f"127.0.0.1:{ports[0]}", "TAXIMETER_ADMIN_LISTEN": f"127.0.0.1:{ports[1]}"}
    runtime = await start(served)
    assert (await chat(runtime)).status_code == 200
    children = served.children()
    assert served.process is not None
    served.process.kill()
    served.process.wait()
    again = await start(served)  # at once: old children are still ending
    assert (await chat(again)).status_code == 200
    for pid in children.values():
        await soon(lambda pid=pid: gone(pid), f"the end of {pid}")
    assert (again.listen, again.node, again.redis_url) == (runtime.listen, runtime.node, runtime.redis_url)
    assert (await usage(again))["usage"]["requests"] == 2


async def test_sigterm_lets_an_open_stream_end(served: Node, provider: Provider) -> None:
    runtime = await start(served)
    gate = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    counted = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    last = _chunk({"choices": [], "model": "gpt-4o-mini", "usage": counted})
    first_word = _chunk({"choices": [{"index": 0, "delta": {"content": "a"}}]})
    provider.script(head + first_word, gate, last, _DONE)
    async with httpx2.AsyncClient(timeout=HANG_S) as client:
        url = f"http://{runtime.listen}/v1/chat/completions"
        async with client.stream("POST", url, json=STREAM, headers=HEADERS) as answer:
            received = answer.aiter_bytes()
            first = await anext(received)
            assert served.process is not None
            served.process.terminate()
            await soon(lambda: _refused(runtime.listen), "the data port to close")
            gate.set()
            rest = b"".join([part async for part in received])
    assert b"[DONE]" in first + rest
    assert await asyncio.to_thread(ended, served.process) == 0
    (record,) = served.records()
    assert (record["outcome"], record["input_tokens"], record["output_tokens"]) == ("ok", 5, 7)
    assert served.children() == {}
    assert served.run("status").returncode == 3


async def test_a_stream_that_does_not_end_is_cut_at_the_bound_and_settled(served: Node, provider: Provider) -> None:
    served.environ["TAXIMETER_LIMITS__SHUTDOWN_S"] = "0.2"
    runtime = await start(served)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    provider.script(head + _chunk({"choices": [{"index": 0, "delta": {"content": "word"}}]}), asyncio.Event())
    async with httpx2.AsyncClient(timeout=HANG_S) as client:
        url = f"http://{runtime.listen}/v1/chat/completions"
        async with client.stream("POST", url, json=STREAM, headers=HEADERS) as answer:
            await anext(answer.aiter_bytes())
            assert await asyncio.to_thread(served.stop) == 0
    (record,) = served.records()
    assert record["partial"] is True


async def test_a_second_sigterm_ends_at_once(served: Node, provider: Provider) -> None:
    runtime = await start(served)
    provider.script(asyncio.Event())
    call = asyncio.ensure_future(chat(runtime))
    await provider.until(lambda: len(provider.requests) == 1)
    children = served.children()
    assert served.process is not None
    served.process.terminate()
    await soon(lambda: _refused(runtime.listen), "the data port to close")
    served.process.terminate()
    assert await asyncio.to_thread(ended, served.process) == 128 + signal.SIGTERM
    with pytest.raises(httpx2.HTTPError):
        await call
    for pid in children.values():
        await soon(lambda pid=pid: gone(pid), f"the end of {pid}")
    again = await start(served)
    assert [record["outcome"] for record in await soon(served.records, "the settled call")] == ["interrupted"]
    assert (await usage(again))["usage"]["requests"] == 1


@pytest.mark.parametrize("seen", ["valkey", "worker 1", "control"])
async def test_a_stop_during_the_start_ends_everything(served: Node, seen: str) -> None:
    served.spawn()
    served.child(seen)  # it has started, and is not ready yet
    children = served.children()
    assert await asyncio.to_thread(served.stop) == 0
    assert [pid for pid in children.values() if not gone(pid)] == []
    assert (await chat(await start(served))).status_code == 200


async def test_a_key_made_at_run_time_opens_the_data_port_and_a_revoked_one_does_not(served: Node) -> None:
    served.environ["TAXIMETER_AUTH__MODE"] = "keys"
    runtime = await start(served)
    assert (await chat(runtime)).status_code == 401
    async with httpx2.AsyncClient(base_url=f"http://{runtime.admin_listen}", timeout=HANG_S) as control:
        made = (await control.post("/keys", json={"workspace": "acme"})).raise_for_status().json()
        key = {"x-taximeter-key": made["key"]}

        async def answered(status: int) -> bool:
            return (await chat(runtime, **key)).status_code == status

        await happens(lambda: answered(200), "the key's call")
        (await control.delete(f"/keys/{made['id']}")).raise_for_status()
        await happens(lambda: answered(401), "the revoked key's refusal")


async def test_a_port_in_use_is_named(served: Node) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for setting, variable in (("listen", "TAXIMETER_LISTEN"), ("admin_listen", "TAXIMETER_ADMIN_LISTEN")):
            done = await asyncio.to_thread(served.run, "serve", **{variable: f"127.0.0.1:{port}"})
            assert done.returncode == 1
            assert f"Error: {setting} = '127.0.0.1:{port}': port {port} is in use by another program." in done.stderr
            assert variable in done.stderr
    assert not list(served.data_dir.glob("valkey"))  # nothing was started


async def test_a_second_taximeter_on_the_same_data_is_refused(served: Node) -> None:
    runtime = await start(served)
    done = await asyncio.to_thread(served.run, "serve")
    assert done.returncode == 1
    assert f"is in use by another Taximeter (process {runtime.pid})" in done.stderr
    assert (await chat(runtime)).status_code == 200


async def test_bad_settings_are_refused_before_anything_starts(served: Node) -> None:
    done = await asyncio.to_thread(lambda: served.run("serve", TAXIMETER_LISTEN="0.0.0.0:0", TAXIMETER_WORKERS="x"))
    assert (done.returncode, done.stderr.startswith("Error: TAXIMETER_WORKERS: workers: 'x'")) == (2, True)
    done = await asyncio.to_thread(lambda: served.run("serve", TAXIMETER_ADMIN_LISTEN="0.0.0.0:0"))
    assert (done.returncode, "without auth.admin_token_sha256" in done.stderr) == (2, True)
    assert not served.data_dir.exists()


async def test_serve_and_check_say_which_file_they_read(served: Node, tmp_path: Path) -> None:
    none = f"no file read (no config/taximeter.toml and no taximeter.toml in {tmp_path}): the defaults are in force"
    assert f"settings: {none}\n" in (await asyncio.to_thread(served.run, "check")).stdout
    (tmp_path / "taximeter.toml").write_text("workers = 2")
    (tmp_path / "other.toml").touch()
    checked = (await asyncio.to_thread(served.run, "check", "--config", "other.toml")).stdout
    assert f"settings: read from {tmp_path}/other.toml\n" in checked
    assert f"settings: NOT READ: {tmp_path}/taximeter.toml " in checked
    assert "\nworkers = 1\n" in checked
    assert (await start(served)).workers == 2
    assert f"  settings      read from {tmp_path}/taximeter.toml\n" in served.log
    assert "from the environment, over that: TAXIMETER_ADMIN_LISTEN, TAXIMETER_DATA_DIR, TAXIMETER_L" in served.log


@pytest.mark.parametrize("verb", ["serve", "check", "status", "stats", "keys list"])
def test_a_variable_that_is_no_setting_is_refused_by_every_verb_that_reads_settings(served: Node, verb: str) -> None:
    done = served.run(*verb.split(), TAXIMETER_AUTH_MODE="keys")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: TAXIMETER_AUTH_MODE: there is no such setting. Did you mean TAXIMETER_AUTH__MODE?\n"


async def test_a_data_directory_that_cannot_be_used_is_named(served: Node) -> None:
    served.data_dir.write_text("a file")
    done = await asyncio.to_thread(served.run, "serve")
    assert (done.returncode, str(served.data_dir) in done.stderr) == (1, True)


async def test_prices_that_cannot_be_read_stop_the_start(served: Node, tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text("[[price]]\nnonsense = 1")
    done = await asyncio.to_thread(lambda: served.run("serve", TAXIMETER_PRICES_FILE=str(prices)))
    assert done.returncode == 1
    assert str(prices) in done.stderr
    assert "Error: The prices cannot be used" in done.stderr


async def test_check_prints_the_settings_and_tries_what_they_name(served: Node) -> None:
    done = await asyncio.to_thread(served.run, "check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "limits.shutdown_s = 20.0" in done.stdout
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        bad = {
            "TAXIMETER_REDIS__URL": "redis://:hunter2@127.0.0.1:1/0",
            "TAXIMETER_LISTEN": f"127.0.0.1:{port}",
            "TAXIMETER_HISTORY__URL": "postgresql://u:hunter2@127.0.0.1:1/x",
        }
        done = await asyncio.to_thread(lambda: served.run("check", **bad))
    assert done.returncode == 1
    assert done.stdout.count("\nFAILED") == 3
    assert "hunter2" not in done.stdout + done.stderr


async def test_status_says_that_nothing_runs(served: Node) -> None:
    done = await asyncio.to_thread(served.run, "status")
    assert (done.returncode, "No Taximeter runs on" in done.stderr) == (3, True)


_DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def _chunk(payload: dict[str, Any]) -> bytes:
    event = b"data: " + json.dumps({"id": "c", "object": "chat.completion.chunk"} | payload).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def _refused(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return True
    return False


@pytest.mark.skipif(len(placing.allowed()) < 2, reason="needs two cores")
async def test_a_worker_has_a_core_of_its_own_where_that_is_asked_for(served: Node) -> None:
    served.environ["TAXIMETER_CORES"] = "apart"
    await start(served)
    cores = placing.allowed()
    processes = served.children()
    assert os.sched_getaffinity(processes["worker 1"]) == set(cores[-1:])
    for name in ("control", "valkey"):
        assert os.sched_getaffinity(processes[name]) == set(cores[:-1])
    assert placing.allowed() == cores
