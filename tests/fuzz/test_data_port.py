"""A fixed budget of mutated requests, answers and recordings; `make fuzz` goes on for as long as one likes."""

import json
import random

import pytest

from fuzz.data_port import RECORDINGS, batch, meter_a_mutation, request, send
from fuzz.provider import mutating
from fuzz.running import running_node
from present import present
from waits import until


def test_meters_take_any_bytes():
    batch(lambda chance: meter_a_mutation(RECORDINGS, chance), 1_500, random.Random(1))


@pytest.mark.xdist_group("processes")
@pytest.mark.timeout(300)
def test_the_data_port_takes_any_bytes_from_both_sides(tmp_path):
    with mutating(random.Random(1)) as base_url, running_node(tmp_path, **upstream(base_url)) as (node, _):
        runtime = present(node._ready())
        host, port = runtime.listen.split(":")
        worker = node.child("worker 1")
        batch(lambda chance: send((host, int(port)), request(chance)), 250, random.Random(1))
        assert node.child("worker 1") == worker
        good = b'{"model":"gpt-4o-mini","messages":[]}'
        lines = (b"POST /v1/chat/completions HTTP/1.1", b"Host: 127.0.0.1", b"Content-Type: application/json",
                 b"Connection: close", b"X-Fuzz: off", b"Content-Length: %d" % len(good), b"", good)  # fmt: skip
        answer = send((host, int(port)), b"\r\n".join(lines), patience_s=20)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        until(lambda: not opened(node) - closed(node), "every opened call to be closed")


def upstream(base_url):
    return {
        "TAXIMETER_UPSTREAM": f'[{{"name": "openai", "base_url": "{base_url}/v1", "forward_credentials": true, '
        '"connect_timeout_s": 2, "first_byte_timeout_s": 2, "idle_timeout_s": 2}]'
    }


def calls(node, kind):
    found = set()
    for file in (node.data_dir / "journal").glob("*.jsonl"):
        for line in file.read_bytes().splitlines():
            said = json.loads(line).get(kind)
            if said is not None:
                found.add((said["request_id"], said.get("attempt", 1)))
    return found


def opened(node):
    return calls(node, "open")


def closed(node):
    return calls(node, "close")
