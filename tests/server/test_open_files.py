"""Running out of open files: clients are told, what is under way goes on, and it is over when some are free."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from taximeter.core.errors import TooManyOpenFiles
from taximeter.gateway.upstream.dial import Dialer, Origin, unreachable
from taximeter.journal.status import _SIZE_BYTES, Status
from taximeter.node import descriptors
from taximeter.node.descriptors import OpenFiles
from waits import HANG_S

SERVES = """
import asyncio, resource, sys
soft = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))
import socket, uvloop
from taximeter.config import LimitSettings
from taximeter.node.descriptors import OPEN_FILES
from taximeter.server.server import Server

async def answer(exchange):
    exchange.answer(200, [(b"content-length", b"0")], b"")

async def main():
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(answer, LimitSettings())
    server.on_started = lambda: print(listener.getsockname()[1], flush=True)
    asyncio.get_running_loop().add_reader(0, lambda: (sys.stdin.readline(), print(OPEN_FILES.ran_out, flush=True)))
    await server.serve([listener])

uvloop.run(main())
"""
ASK = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
LIMIT, CLIENTS = 256, 300


async def read(reader: asyncio.StreamReader) -> bytes:
    with contextlib.suppress(OSError):
        return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HANG_S)
    return b""


async def test_clients_are_turned_away_with_a_reason_and_taken_again_when_others_have_gone() -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < CLIENTS + 100:
        pytest.skip("the limit here is lower")
    argv = [sys.executable, "-c", SERVES, str(LIMIT)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        try:
            port = int(child.stdout.readline())
            opened = []
            for _ in range(CLIENTS):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                with contextlib.suppress(OSError):
                    writer.write(ASK)
                opened.append((reader, writer))
            heads = []
            for reader, _ in opened:
                with contextlib.suppress(asyncio.IncompleteReadError):
                    heads.append(await read(reader))
            served = [head for head in heads if head.startswith(b"HTTP/1.1 200 ")]
            told = [head for head in heads if b"x-taximeter-error: too_many_open_files" in head]
            assert len(served) > LIMIT // 2
            assert told and all(head.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in head for head in told)
            opened[0][1].write(ASK)
            assert (await read(opened[0][0])).startswith(b"HTTP/1.1 200 ")  # who is there is served on
            child.stdin.write("\n")
            child.stdin.flush()
            assert len(told) <= int(child.stdout.readline()) <= CLIENTS - len(served)
            for _, writer in opened:
                writer.transport.abort()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
            async with asyncio.timeout(HANG_S):
                while True:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                        writer.write(ASK)
                        if (await read(reader)).startswith(b"HTTP/1.1 200 "):
                            break
                    writer.close()
            writer.close()
            await writer.wait_closed()
        finally:
            child.kill()


def few(monkeypatch: pytest.MonkeyPatch) -> OpenFiles:
    """As if this process might open no more than it has."""
    free = os.dup(0)
    os.close(free)
    made = OpenFiles(free)
    for module in ("taximeter.gateway.upstream.dial", "taximeter.journal.lines"):
        monkeypatch.setattr(f"{module}.OPEN_FILES", made)
    return made


async def test_no_upstream_connection_takes_the_last_ones_and_its_name_is_not_blamed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = few(monkeypatch)
    dialer = Dialer(Origin("a-name.invalid", 80), 30.0, ())
    for _ in range(3):
        with pytest.raises(OSError, match="Too many open files") as caught:
            await dialer.dial(asyncio.Protocol)
        assert isinstance(unreachable("u", caught.value), TooManyOpenFiles)
    assert files.ran_out == 3
    assert caplog.text.count("LimitNOFILE") == 1  # not for each


def test_a_journal_file_that_cannot_be_opened_for_it_counts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = few(monkeypatch)
    assert files.tell_of(OSError(errno.ENFILE, "x"), "No new file of the journal")
    assert not files.tell_of(OSError(errno.ENOSPC, "x"), "No new file of the journal")
    assert (files.ran_out, "No new file of the journal: the limit of" in caplog.text) == (1, True)


def test_an_eighth_at_most_is_kept() -> None:
    many, few = OpenFiles(1024), OpenFiles(80)
    assert (many.turned_away_from, many.cut_off_from) == (960, 992)
    assert (few.turned_away_from, few.cut_off_from) == (70, 75)
    assert OpenFiles().limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_what_is_open_is_counted() -> None:
    before = OpenFiles().in_use()
    with open(os.devnull) as _one, open(os.devnull) as _two:
        after = OpenFiles().in_use()
    assert before is not None and after == before + 2
    assert descriptors.OPEN_FILES.in_use() == before


def test_a_writers_status_stays_in_its_sector_whatever_it_says() -> None:
    most: dict[str, Any] = dict.fromkeys(Status.__struct_fields__, 2**40) | {"healthy": False}
    assert len(msgspec.json.encode(Status(**most | {"node": "n" * 128, "worker": "w" * 32}))) < _SIZE_BYTES
