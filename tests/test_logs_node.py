"""The log of a whole node, as a machine reads it: every line an object, whichever process it comes from."""

import json
import os
import sys

import pytest

from faults.running import Node
from waits import HANG_S, run

pytestmark = pytest.mark.xdist_group("processes")

CONFIG = '[log]\nformat = "json"\nlevel = "debug"\ncalls = true\n'


async def test_every_process_logs_objects_and_a_call_is_one_of_them(tmp_path):
    import httpx2

    async with Node(tmp_path, config=CONFIG, workers=1) as node:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.port}", timeout=HANG_S) as client:
            body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "a-prompt-of-no-concern"}]}
            answered = await client.post(
                "/w/acme/v1/chat/completions", json=body, headers={"authorization": "Bearer sk-a-provider-s"}
            )
        request_id = answered.headers["x-taximeter-request-id"]
        node.kill("valkey")

        async def told():
            return "it is replaced" in node.log.read_text() and request_id in node.log.read_text()

        await node.until(told, "the call and what became of Valkey in the log")
    written = node.log.read_text()
    entries = [json.loads(line) for line in written.splitlines()]
    assert {entry["process"] for entry in entries} >= {"supervisor", "control", "valkey"}
    assert all(entry["time"].endswith("Z") and entry["level"] and entry["message"] for entry in entries)
    assert any(entry["message"].startswith("Taximeter ") and entry.get("listen") for entry in entries)
    (call,) = [entry["call"] for entry in entries if entry["logger"] == "taximeter.calls"]
    assert (call["request_id"], call["workspace"], call["outcome"], call["status"]) == (request_id, "acme", "ok", 200)
    assert "a-prompt-of-no-concern" not in written and "sk-a-provider-s" not in written
    assert not [entry for entry in entries if "exception" in entry]  # a Redis that is away is no fault of ours


def test_settings_that_are_unsafe_to_serve_are_told_as_an_object_too(tmp_path):
    """As soon as it is known how to log."""
    file = tmp_path / "taximeter.toml"
    file.write_text(f'data_dir = "{tmp_path}/data"\n{CONFIG}[[upstream]]\napi_key_env = "NO_SUCH_KEY"\n')
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TAXIMETER_")}
    done = run([sys.executable, "-m", "taximeter", "serve", "--config", str(file)], env=environ, cwd=tmp_path)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, json.loads(line)["level"]) == (2, "critical") and "NO_SUCH_KEY" in line
