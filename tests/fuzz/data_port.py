"""Mutated requests and mutated answers at the data port, and mutated recordings at the meters.

What must hold: no line of the log is a traceback, no process dies, a good call works afterwards, and every call that
was opened is closed. Meters do not raise, pass each byte on, and count nothing below zero.
"""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from recordings import body, corpus, headers
from taximeter.flavors import find
from taximeter.flavors.meter import Answer

NUMBERS = (b"-1", b"0", b"1e999", b"9" * 400, b"99999999999999999999", b"1.5", b"null", b"true", b'"7"', b"[]", b"{}")
BITS = (
    b"\r\n", b"\n", b"\0", b"\xff", b"\xed\xa0\x80", b"data: ", b"data:[DONE]", b"event: error\n", b"\n\n", b"}", b"]",
    b"[" * 3_000, b'{"usage":' * 2_000, b'"usage":{"prompt_tokens":7}', b": ", b"," * 50, b"0\r\n\r\n", b"\xe2\x80\xa8",
)  # fmt: skip

HEADS = (
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: chunked\r\n" * 2,
    b"Host: x\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"Expect: 100-continue\r\n",
    b"X-Workspace: a b\r\n", b"X-Track-Id: \xff\r\n", b"Content-Encoding: gzip\r\n",
    b"Content-Type: application/json; charset=utf-16\r\n", b"A: " + b"x" * 70_000 + b"\r\n",
    b" folded\r\n", b"No-Colon\r\n", b": empty\r\n",
    b"Authorization: Bearer tm-none\r\n", b"Authorization: Bearer x\r\n",
)  # fmt: skip

TARGETS = (
    b"/v1/chat/completions", b"/v1/embeddings", b"/v1/responses", b"/v1/messages", b"/v1/rerank", b"/v1/completions",
    b"/w/acme/t/t-1/v1/chat/completions", b"/w/a%00/v1/chat/completions", b"/../v1/x", b"/v1/%2e%2e/%2e%2e/x",
    b"//v1/x", b"http://127.0.0.1/v1/x", b"*", b"/v1/models", b"/v1beta/models/gemini-1:generateContent",
    b"/u/none/v1/x", b"/", b"/v1/chat/completions?api_key=x", b"/" + b"a" * 9_000, b"127.0.0.1:443",
)  # fmt: skip

METHODS = (b"POST",) * 8 + tuple(b"GET PUT DELETE PATCH OPTIONS HEAD TRACE CONNECT post".split()) + (b"X" * 50,)


def mutated(whole: bytes, chance: random.Random) -> bytes:
    """A text with some of its bytes changed, cut, doubled, or replaced by what has meaning."""
    text = bytearray(whole)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(text) + 1)
        to = min(len(text), at + chance.choice((0, 1, 3, 20, 400)))
        match chance.randrange(7):
            case 0:
                del text[at:to]
            case 1:
                text[at:to] = text[at:to] * 2
            case 2:
                text[at:at] = chance.choice(BITS)
            case 3:
                text[at:to] = chance.randbytes(to - at)
            case 4:
                del text[at:]
            case 5:
                digits = [place for place, byte in enumerate(text) if 48 <= byte <= 57]
                if digits:
                    place = chance.choice(digits)
                    text[place : place + 1] = chance.choice(NUMBERS)
            case 6:
                text[at:at] = text[: chance.choice((10, 200))]
    return bytes(text)


def cuts(whole: bytes, chance: random.Random) -> list[bytes]:
    places = sorted({0, len(whole), *(chance.randrange(len(whole) + 1) for _ in range(chance.choice((0, 1, 5))))})
    return [whole[start:end] for start, end in pairwise(places)] or [b""]


def meter_a_mutation(records: Sequence[dict[str, Any]], chance: random.Random) -> None:
    """Feed a meter one mutated recording, its request mutated too; raises AssertionError where a rule does not hold."""
    record = chance.choice(records)
    method, path = record["method"].encode(), record["path"].encode()
    flavor = find(method, path)
    request = record["request_body"].encode()
    answer = mutated(body(record), chance)
    if chance.random() < 0.3:
        request = mutated(request, chance)
    if chance.random() < 0.2:
        path = mutated(path, chance)
    kind = chance.choice((record["response_content_type"].encode(), b"text/event-stream", b"application/json", b""))
    told = Answer(status=chance.choice((record["status"], 200, 500)), content_type=kind, headers=headers(record))
    prepared = flavor.prepare(request, path, inject=chance.random() < 0.5)
    flavor.whole(prepared, told, record["provider"], answer)
    metering = flavor.meter(prepared, told, record["provider"])
    for piece in cuts(answer, chance):
        metering.feed(piece)
        assert (metering.progress_tokens() or 0) >= 0
    metering.finish()
    reading = metering.reading()
    metering.output()
    for name in reading.__struct_fields__:
        value = getattr(reading, name)
        assert not isinstance(value, int) or value >= 0, (record["id"], name, value)


def request(chance: random.Random) -> bytes:
    """A request to the data port, more or less wrong."""
    said = {"model": "gpt-4o-mini", "stream": chance.random() < 0.5, "messages": [{"role": "user"}]}
    content = json.dumps(said).encode()
    if chance.random() < 0.5:
        content = mutated(content, chance)
    lines = [b"Host: 127.0.0.1\r\n", b"Content-Type: application/json\r\n", b"Content-Length: %d\r\n" % len(content)]
    lines.append(b"Connection: close\r\n")
    if chance.random() < 0.5:
        lines.insert(chance.randrange(4), chance.choice(HEADS))
    if chance.random() < 0.1:
        del lines[chance.randrange(len(lines))]
    head = b"%s %s HTTP/1.1\r\n" % (chance.choice(METHODS), chance.choice(TARGETS)) + b"".join(lines) + b"\r\n"
    whole = head + content
    return mutated(whole, chance) if chance.random() < 0.3 else whole


def send(address: tuple[str, int], data: bytes, patience_s: float = 0.5) -> bytes:
    """What comes back until the other end closes, or says nothing for so long: some requests wait for more of it."""
    got = b""
    with socket.create_connection(address, timeout=patience_s) as connection:
        try:
            connection.sendall(data)
            while piece := connection.recv(65_536):
                got += piece
        except (ConnectionError, TimeoutError):
            return got
    assert not got or got.startswith(b"HTTP/1."), got[:100]
    return got


def batch(act: Callable[[random.Random], object], count: int, chance: random.Random) -> None:
    """`count` tries, each of which can be had again by its own seed, which a failure tells."""
    for _ in range(count):
        seed = chance.getrandbits(48)
        try:
            act(random.Random(seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error


RECORDINGS = corpus() or [
    {
        "id": "own", "method": "POST", "path": "/v1/chat/completions", "provider": "openai", "status": 200,
        "request_body": '{"model":"m","stream":true}', "response_content_type": "text/event-stream",
        "response_encoding": "text",
        "response_body": 'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
        'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":1,"total_tokens":8}}\n\ndata: [DONE]\n\n',
    },
    {
        "id": "own, whole", "method": "POST", "path": "/v1/messages", "provider": "anthropic", "status": 200,
        "request_body": '{"model":"m"}', "response_content_type": "application/json", "response_encoding": "text",
        "response_body": '{"content":[{"type":"text","text":"hi"}],"usage":{"input_tokens":7,"output_tokens":1}}',
    },
]  # fmt: skip
