"""A provider in a thread that answers with mutated recordings, in mutated framing, unless told not to."""

from __future__ import annotations

import random
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fuzz.data_port import RECORDINGS, mutated
from recordings import body

_GOOD = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'


@contextmanager
def mutating(chance: random.Random) -> Iterator[str]:
    """The base URL, without its /v1."""

    class Answering(socketserver.StreamRequestHandler):
        timeout = 3

        def handle(self) -> None:
            with suppress(OSError):
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = self.rfile.readline(70_000)
                    if not line:
                        return
                    head += line
                self.wfile.write(_whole(_GOOD) if b"x-fuzz: off" in head.lower() else answer(chance))

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def answer(chance: random.Random) -> bytes:
    """An answer, more or less wrong in its framing or in what it says."""
    record = chance.choice(RECORDINGS)
    said = body(record)
    if chance.random() < 0.7:
        said = mutated(said, chance)
    kind = record["response_content_type"].encode()
    match chance.randrange(4):
        case 0:
            whole = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n\r\n" % kind + said
        case 1:
            whole = _whole(said, kind)
        case 2:
            head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n" % kind
            whole = head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(said), said)
        case _:
            whole = b"HTTP/1.1 100 Continue\r\n\r\n" * chance.choice((1, 30)) + _whole(said, kind)
    return mutated(whole, chance) if chance.random() < 0.3 else whole


def _whole(said: bytes, kind: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n" % (kind, len(said)) + said
