"""Counts tokens where no usage was reported, without ever blocking the event loop.

The work is done by another process (tokenizing.py), started when first needed and ended when idle: a worker that never
counts pays nothing. Whatever goes wrong there, the answer is an estimate from the text's bytes, and says so.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import PurePath
from typing import NamedTuple

import msgspec

from taximeter.core.record import Source
from taximeter.flavors.meter import Countable
from taximeter.gateway.metering.estimate import estimated_tokens
from taximeter.gateway.metering.tokenizing import LENGTH, Answer, Part, framed
from taximeter.gateway.metering.vocabularies import is_tokenizer_file, tokenizer_problem, vocabulary_of

_log = logging.getLogger("taximeter.tokenizers")

PART_CHARS = 64 * 1024
"""Most text handled in one turn of the loop: encoding and writing it takes well under a millisecond."""
ESTIMATED_CHARS = 16 * 1024
"""Likewise for an estimate."""
WAITING_CHARS = 64 * 1024 * 1024
"""Most text that waits for the process; beyond it texts are estimated at once."""
JOB_S = 60.0
"""A job that takes longer is given up, its process with it: at 5 MB/s that is 300 MB."""
IDLE_S = 300.0
"""An idle process is ended, and its memory with it: 90 MB with one vocabulary, up to 300 MB with four."""


class Counted(NamedTuple):
    """How many tokens; by which tokenizer (a known name, or the tail of a tokenizer.json's path); a count or not."""

    tokens: int
    tokenizer: str | None
    source: Source


class Tokenizers:
    """The counter of one worker. For one event loop."""

    def __init__(self) -> None:
        self._process: _Process | None = None
        self._turn = asyncio.Lock()
        self._waiting_chars = 0
        self._idle: asyncio.TimerHandle | None = None
        self._warned: set[str] = set()
        self._closed = False

    async def count(self, countable: Countable, *, model: str | None, provider: str, tokenizer: str = "") -> Counted:
        """Count a request's or an answer's text. Never raises but for cancellation.

        `tokenizer` (the upstream's setting) is a name in VOCABULARIES or the path of a tokenizer.json and goes before
        what the model's name tells. Without a tokenizer the count is an estimate (`Source.ESTIMATED`).
        """
        chosen = vocabulary_of(model)
        if tokenizer and (why := tokenizer_problem(tokenizer)):
            self._warn(why)
        elif tokenizer:
            chosen = tokenizer
        if not any(countable.texts):
            return Counted(countable.tokens, None, Source.COUNTED)
        if chosen is not None:
            tokens = await self._counted(chosen, countable.texts)
            if tokens is not None:
                shown = "/".join(PurePath(chosen).parts[-2:]) if is_tokenizer_file(chosen) else chosen
                return Counted(countable.tokens + tokens, shown, Source.COUNTED)
        return Counted(countable.tokens + await _estimated(countable.texts), None, Source.ESTIMATED)

    def close(self) -> None:
        """End the process. Counts still under way become estimates."""
        self._closed = True
        self._retire()

    async def _counted(self, tokenizer: str, texts: list[str]) -> int | None:
        """By the process, one job after another; None where it could not."""
        chars = sum(map(len, texts))
        if self._closed or self._waiting_chars + chars > WAITING_CHARS:
            return None
        self._waiting_chars += chars
        try:
            async with self._turn:
                return await self._answered(tokenizer, texts)
        finally:
            self._waiting_chars -= chars

    async def _answered(self, tokenizer: str, texts: list[str]) -> int | None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        whole = False
        try:
            async with asyncio.timeout(JOB_S):
                if self._process is None:
                    self._process = await _Process.start()
                answer = await self._process.answer(tokenizer, texts)
            whole = True
        except (OSError, EOFError, TimeoutError, msgspec.DecodeError) as error:
            self._warn(f"the tokenizing process: {type(error).__name__} {error}")
            return None
        finally:
            if whole and not self._closed:
                self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._retire)
            else:
                self._retire()  # half a conversation cannot be gone on with
        if answer.error:
            self._warn(f"{tokenizer}: {answer.error}")
            return None
        return answer.tokens

    def _retire(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._process is not None:
            self._process.end()
            self._process = None

    def _warn(self, what: str) -> None:
        if len(self._warned) < 100 and what not in self._warned:
            self._warned.add(what)
            _log.warning("text is estimated instead of counted: %s", what)


class _Process:
    """The tokenizing process and the socket to it."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls) -> _Process:
        """Starting takes a few milliseconds of another thread."""
        starting = asyncio.get_running_loop().run_in_executor(None, _spawn)
        try:
            process, ours = await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_discard)
            raise
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        return cls(process, reader, writer)

    async def answer(self, tokenizer: str, texts: list[str]) -> Answer:
        """One job. Raises OSError or EOFError when the process is gone."""
        for part in _parts(tokenizer, texts):
            self._writer.write(framed(part))
            await self._writer.drain()
            await asyncio.sleep(0)  # drain returns at once while the buffer has room: let others run
        (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
        return msgspec.msgpack.decode(await self._reader.readexactly(length), type=Answer)

    def end(self) -> None:
        """Kill it; it holds nothing that could be lost."""
        self._writer.transport.abort()
        _kill(self._process)


def _spawn() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Our own interpreter and import path, and of the environment only what it needs: no credentials."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "LANG") if name in os.environ}
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(  # noqa: S603  our own module
            [sys.executable, "-m", "taximeter.gateway.metering.tokenizing", str(theirs.fileno())],
            env={**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    return process, ours


def _discard(starting: asyncio.Future[tuple[subprocess.Popen[bytes], socket.socket]]) -> None:
    """Nobody waits any more for a process that has just been started."""
    if not starting.cancelled() and starting.exception() is None:
        process, ours = starting.result()
        ours.close()
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    threading.Thread(target=process.wait, name="reap-tokenizer").start()  # its memory takes a while to be freed


def _parts(tokenizer: str, texts: list[str]) -> Iterator[Part]:
    """The texts in parts of at most PART_CHARS characters."""
    batch: list[str] = []
    chars = 0
    joins = False
    for text in texts:
        for start in range(0, len(text), PART_CHARS) or (0,):
            piece = _clean(text[start : start + PART_CHARS])
            if batch and (start or chars + len(piece) > PART_CHARS):
                yield Part(tokenizer, batch, joins, more=True)
                batch, chars, joins = [], 0, bool(start)
            batch.append(piece)
            chars += len(piece)
    yield Part(tokenizer, batch, joins, more=False)


def _clean(text: str) -> str:
    """Lone surrogates, which JSON may spell but UTF-8 cannot, become `?`, as they do on the way to a tokenizer."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


async def _estimated(texts: list[str]) -> int:
    tokens = chars = 0
    for text in texts:
        for start in range(0, len(text), ESTIMATED_CHARS):
            piece = text[start : start + ESTIMATED_CHARS]
            tokens += estimated_tokens(piece)
            chars += len(piece)
            if chars >= ESTIMATED_CHARS:
                chars = 0
                await asyncio.sleep(0)
    return tokens
