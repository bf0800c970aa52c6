"""Every method with every form of target, over raw sockets to both ports of a real node: a bounded answer or a close.

What one request can make a process do is bounded too: its log stays short, and the node goes on answering.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from nodes import Node, node
from taximeter.node.datadir import Runtime
from waits import HANG_S

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc"),
    pytest.mark.xdist_group("processes"),
]

METHODS = [
    b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE",
    b"PROPFIND", b"SEARCH", b"LOCK", b"M-SEARCH", b"PURGE", b"SOURCE", b"QUERY", b"LINK", b"REPORT", b"NOTIFY",
    b"DESCRIBE", b"PRI", b"SM", b"BREW", b"get", b"Get", b"connect", b"GETX", b"\x00GET", b"G\x1bET", b"G\xc3\x89T",
    b"", b"X" * 5000,
]  # fmt: skip
TARGETS = [
    b"/v1/x", b"/usage", b"/", b"//x", b"//elsewhere/v1/x", b"///", b"/v1//x/", b"/v1/../x", b"/./", b"/v1/x?",
    b"/?a=b", b"?a=b", b"/v1/x#f", b"#", b"", b" ", b"/a b", b"/\tb", b"/\x00", b"/\x01\x1b[31m", b"/\x7f", b"/\x85",
    b"/\xff\xfe",
    "/é\u202e".encode(), b"/%", b"/%zz", b"/%00%0a%1b", b"/%ff%fe", b"/%c3", b"*", b"**", b"elsewhere:80",
    b"elsewhere:0", b":", b"[::1]:80", b"elsewhere", b"http://elsewhere/v1/x", b"HTTP://elsewhere", b"https://u:p@elsewhere:1/x",
    b"http://", b"http:/x", b"ftp://elsewhere/", b"x:y", b"\\v1\\x", b"/\\x", b"/" + b"x" * 5000, b"/" + b"%41" * 3000,
]  # fmt: skip
UPGRADES = {
    "none": b"",
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    "websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
}
ANSWER_BYTES = 16 * 1024
LOG_BYTES = 300
"""A request leaves at most so much of a log on the average; a traceback is several kilobytes."""
LARGER = (b"/", b"///", b"/./", b"/?a=b", b"/usage")
"""The dashboard and figures of the control port are whole pages."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    upstream = {"name": "nobody", "base_url": "http://127.0.0.1:9/v1"}
    with node(tmp_path_factory.mktemp("lines"), TAXIMETER_UPSTREAM=json.dumps([upstream])) as made:
        yield made


@pytest.fixture(scope="module")
def runtime(served: Node) -> Runtime:
    return served.start("serve")


def ask(address: str, *parts: bytes) -> bytes:
    """Send, and read until the node closes."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=HANG_S) as client:
        got = b""
        try:
            for part in parts:
                client.sendall(part)
            while part := client.recv(65536):
                got += part
        except ConnectionError:  # it closed before everything was sent
            pass
        return got


def alive(runtime: Runtime) -> None:
    for url in (f"http://{runtime.listen}/v1/models", f"http://{runtime.admin_listen}/healthz"):
        assert httpx2.get(url, timeout=HANG_S).status_code in (200, 502)


@pytest.mark.parametrize("port", ["listen", "admin_listen"])
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_every_method_and_target_gets_a_bounded_answer(served: Node, runtime: Runtime, port: str, upgrade: str) -> None:
    address = getattr(runtime, port)
    children = served.children()
    before = served.log_file.stat().st_size
    asked = 0
    for method in METHODS:
        for target in TARGETS if upgrade == "none" else TARGETS[:4]:
            closing = b"Connection: close\r\n" if upgrade == "none" else UPGRADES[upgrade]
            request = b"%b %b HTTP/1.1\r\nHost: localhost\r\n%bContent-Length: 0\r\n\r\n" % (method, target, closing)
            # What is still open is ended by a request that closes: a second answer is no part of what is looked at.
            follow = b"" if upgrade == "none" else b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            answer = ask(address, request + follow)
            asked += 1
            case = (method[:20], target[:40], answer[:200])
            if method == b"CONNECT" or method not in METHODS[:7]:
                assert answer == b"" or 400 <= int(answer[9:12]) < 500, case
            assert answer == b"" or answer.startswith(b"HTTP/1.1 "), case
            assert not answer or int(answer[9:12]) not in (500, 503), case
            assert len(answer) < ANSWER_BYTES or target in LARGER, case
            head, _, body = answer.partition(b"\r\n\r\n")
            if b"content-type: application/json" in head and method != b"HEAD":
                told = json.JSONDecoder().raw_decode(body.decode())[0]
                assert int(answer[9:12]) < 300 or told["error"].keys() == {"message", "type", "param", "code"}, case
    alive(runtime)
    assert served.children() == children
    assert served.log_file.stat().st_size - before < asked * LOG_BYTES, served.log[before:][:3000]


GET = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
CONNECT = b"CONNECT %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
OPENINGS = {
    "HTTP/2 with prior knowledge": PREFACE + SETTINGS * 1000,
    "HTTP/2 behind a request": GET + PREFACE + SETTINGS * 1000,
    "CONNECT behind a request": GET + CONNECT % b"/v1/x" + b"x" * 10_000,
    "CONNECT behind an upgrade": GET[:-2] + UPGRADES["h2c"] + b"\r\n" + CONNECT % b"/v1/x" + GET * 10,
    "an upgraded CONNECT": (CONNECT % b"/v1/x")[:-2] + UPGRADES["websocket"] + b"\r\n" + b"\x81\x80",
    "many of them": CONNECT % b"/v1/x" * 5000,
    "many upgrades": (GET[:-2] + UPGRADES["h2c"] + b"\r\n") * 2000,
    "many requests": GET * 5000,
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "SSH": b"SSH-2.0-OpenSSH_9.9\r\n",
    "SOCKS": b"\x05\x01\x00",
    "PROXY protocol": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + GET,
    "blank lines": b"\r\n" * 50_000 + b"x\r\n",
    "only blanks": b" " * 100_000,
    "zeros": bytes(100_000),
    "HTTP/0.9": b"GET /v1/x\r\n\r\n",
    "an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("port", ["listen", "admin_listen"])
def test_what_else_a_connection_may_open_with_gets_a_bounded_answer(served: Node, runtime: Runtime, port: str) -> None:
    for name, opening in OPENINGS.items():
        before = served.log_file.stat().st_size
        answer = ask(getattr(runtime, port), opening)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 "), (name, answer[:200])
        assert answer.count(b"HTTP/1.1 ") <= 34, name
        assert len(answer) < 34 * ANSWER_BYTES, name
        assert served.log_file.stat().st_size - before < 2 * LOG_BYTES, (name, served.log[before:][:2000])
    alive(runtime)
