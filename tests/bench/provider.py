"""A provider that costs as little as possible, so that a benchmark measures the proxy: fixed answers, one sum.

    python tests/bench/provider.py --port 0 --chunks 100 --chunk-ms 5 --embedding-bytes 2000000

Its first line of output is the port. A body with `"stream":true` gets the stream, a path with /embeddings in it the
embedding, one with /messages a message as Anthropic has it, anything else the chat answer. All answers carry usage;
a GET of any path tells how many calls were answered to their end, and their tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
from typing import cast

import httptools
import uvloop

USAGE = {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46}
MESSAGE_USAGE = {
    "input_tokens": 12,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 34,
}
_STREAM_MARKS = (b'"stream":true', b'"stream": true')


def _whole(kind: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\nx-request-id: req-bench\r\ncontent-length: %d\r\n\r\n"
    return head % (kind, len(body)) + body


def _chunk(payload: object) -> bytes:
    data = b"data: " + (payload if isinstance(payload, bytes) else json.dumps(payload).encode()) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


class Answers:
    """Every answer, made once; what has been answered so far."""

    def __init__(self, *, chunks: int, answer_bytes: int, embedding_bytes: int) -> None:
        head = {"id": "chatcmpl-bench", "created": 1_790_000_000, "model": "gpt-4o-mini"}
        message = {"role": "assistant", "content": "x" * answer_bytes}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        chat = {**head, "object": "chat.completion", "choices": choices, "usage": USAGE}
        self.chat = _whole(b"application/json", json.dumps(chat).encode())
        said = {
            **{"id": "msg-bench", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"},
            **{"content": [{"type": "text", "text": "x" * answer_bytes}], "usage": MESSAGE_USAGE},
            **{"stop_reason": "end_turn", "stop_sequence": None},
        }
        self.message = _whole(b"application/json", json.dumps(said).encode())
        self.calls = self.tokens = 0
        vector = "A" * max(8, embedding_bytes)
        data = [{"object": "embedding", "index": 0, "embedding": vector}]
        usage = {"prompt_tokens": 12, "total_tokens": 12}
        embedded = {"object": "list", "data": data, "model": "text-embedding-3-small", "usage": usage}
        self.embedding = _whole(b"application/json", json.dumps(embedded).encode())
        self.stream_head = (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-request-id: req-bench\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        part = {**head, "object": "chat.completion.chunk"}
        self.chunks = [
            _chunk({**part, "choices": [{"index": 0, "delta": {"content": f" word{n}"}, "finish_reason": None}]})
            for n in range(chunks)
        ]
        self.stream_end = (
            _chunk({**part, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            + _chunk({**part, "choices": [], "usage": USAGE})
            + _chunk(b"[DONE]")
            + b"0\r\n\r\n"
        )


class Connection(asyncio.Protocol):
    def __init__(self, answers: Answers, chunk_s: float) -> None:
        self.answers = answers
        self.chunk_s = chunk_s
        self.loop = asyncio.get_running_loop()
        self.parser = httptools.HttpRequestParser(self)
        self.timer: asyncio.TimerHandle | None = None
        self.at = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def on_message_begin(self) -> None:
        self.body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        answers = self.answers
        if self.parser.get_method() != b"POST":  # a proxy that looks whether it lives, or a question for the sum
            billed = {"calls": answers.calls, "tokens": answers.tokens}
            self.transport.write(_whole(b"application/json", json.dumps(billed).encode()))
        elif b"/embeddings" in self.url:
            self.whole(answers.embedding, 12)
        elif any(mark in piece for piece in self.body for mark in _STREAM_MARKS):
            self.stream()
        elif b"/messages" in self.url:
            self.whole(answers.message, 46)
        else:
            self.whole(answers.chat, 46)

    def whole(self, answer: bytes, tokens: int) -> None:
        self.answers.calls += 1
        self.answers.tokens += tokens
        self.transport.write(answer)

    def stream(self) -> None:
        if not self.chunk_s:
            self.whole(self.answers.stream_head + b"".join(self.answers.chunks) + self.answers.stream_end, 46)
            return
        self.at = 0
        self.transport.write(self.answers.stream_head)
        self.next_chunk()

    def next_chunk(self) -> None:
        if self.at == len(self.answers.chunks):
            self.timer = None
            self.whole(self.answers.stream_end, 46)
            return
        self.transport.write(self.answers.chunks[self.at])
        self.at += 1
        self.timer = self.loop.call_later(self.chunk_s, self.next_chunk)


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--chunks", type=int, default=100)
    parser.add_argument("--chunk-ms", type=float, default=5, help="0: the whole stream in one write")
    parser.add_argument("--answer-bytes", type=int, default=400, help="text in a unary chat answer")
    parser.add_argument("--embedding-bytes", type=int, default=2_000_000)
    args = parser.parse_args()
    answers = Answers(chunks=args.chunks, answer_bytes=args.answer_bytes, embedding_bytes=args.embedding_bytes)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(answers, args.chunk_ms / 1000), "127.0.0.1", args.port, backlog=4096
    )
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    gc.freeze()
    gc.disable()  # connections are the only cycles, and a pause of this process would look like one of the proxy
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main())
