"""Reading through a content-encoding for metering only: gzip, deflate, brotli, zstd, unfolded piece by piece.

Upstreams are asked for `identity`; this is for those that encode all the same. The client gets the bytes as they came.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from taximeter.core.usage import Reading
from taximeter.flavors.meter import Countable, Meter

UNFOLDED_BYTES_PER_CHUNK = 4 * 1024 * 1024
"""Most an encoded chunk may unfold to before metering gives the answer up: a bomb, not an answer."""
_STEP_BYTES = 256 * 1024
_ZLIB_OR_GZIP = zlib.MAX_WBITS | 32
_RAW_DEFLATE = -zlib.MAX_WBITS

Unfold = Callable[[bytes], Iterator[bytes]]


class Encoding(NamedTuple):
    """How one answer is unfolded."""

    unfold: Unfold
    """Takes a chunk and gives what it unfolds to, in pieces of about _STEP_BYTES."""
    unreadable: type[Exception]
    """What it raises on anything else."""


class EncodedMeter:
    """Feeds another meter with what an encoded answer unfolds to."""

    __slots__ = ("_inner", "_unfold", "_unreadable", "terminal")

    def __init__(self, inner: Meter, encoding: Encoding) -> None:
        self.terminal = False
        self._inner = inner
        self._unfold: Unfold | None = encoding.unfold
        self._unreadable = encoding.unreadable

    def feed(self, chunk: bytes) -> bytes:
        """See `Meter.feed`: always the very same chunk."""
        if self._unfold is not None:
            room = UNFOLDED_BYTES_PER_CHUNK
            try:
                for piece in self._unfold(chunk):
                    self._inner.feed(piece)
                    room -= len(piece)
                    if room < 0:
                        self._unfold = None
                        break
            except self._unreadable:
                self._unfold = None
        self.terminal = self._inner.terminal
        return chunk

    def finish(self) -> bytes:
        """See `Meter.finish`: nothing is ever held."""
        self._inner.finish()
        self.terminal = self._inner.terminal
        return b""

    def reading(self) -> Reading:
        """See `Meter.reading`."""
        return self._inner.reading()

    def output(self) -> Countable:
        """See `Meter.output`."""
        return self._inner.output()

    def progress_tokens(self) -> int | None:
        """See `Meter.progress_tokens`."""
        return self._inner.progress_tokens()


def encoding(name: bytes) -> Encoding | None:
    """How to read a content-encoding (in lower case); None where it cannot be read."""
    make = _READERS.get(name)
    return None if make is None else make()


def _gzip() -> Encoding:
    inflate = zlib.decompressobj(_ZLIB_OR_GZIP)
    begun = False

    def unfold(chunk: bytes) -> Iterator[bytes]:
        nonlocal inflate, begun
        rest = chunk
        while rest:
            try:
                piece = inflate.decompress(rest, _STEP_BYTES)
            except zlib.error:
                if begun:
                    raise
                begun = True  # `deflate` is zlib by the standard and raw deflate by custom
                inflate = zlib.decompressobj(_RAW_DEFLATE)
                continue
            begun = True
            rest = inflate.unconsumed_tail
            if inflate.eof:
                rest = inflate.unused_data  # gzip may come in several members
                inflate = zlib.decompressobj(_ZLIB_OR_GZIP) if rest else inflate
            yield piece

    return Encoding(unfold, zlib.error)


def _brotli() -> Encoding:
    import brotli

    decoder = brotli.Decompressor()

    def unfold(chunk: bytes) -> Iterator[bytes]:
        yield decoder.process(chunk, output_buffer_limit=_STEP_BYTES)
        while not decoder.can_accept_more_data():
            yield decoder.process(b"", output_buffer_limit=_STEP_BYTES)

    return Encoding(unfold, brotli.error)


def _zstd() -> Encoding:
    if sys.version_info >= (3, 14):
        from compression.zstd import ZstdDecompressor, ZstdError
    else:
        from backports.zstd import ZstdDecompressor, ZstdError
    decoder = ZstdDecompressor()

    def unfold(chunk: bytes) -> Iterator[bytes]:
        nonlocal decoder
        rest = chunk
        while rest:
            if decoder.eof:  # one frame after another
                decoder = ZstdDecompressor()
            yield decoder.decompress(rest, _STEP_BYTES)
            while not (decoder.needs_input or decoder.eof):
                yield decoder.decompress(b"", _STEP_BYTES)
            rest = decoder.unused_data

    return Encoding(unfold, ZstdError)


_READERS: dict[bytes, Callable[[], Encoding]] = {
    b"gzip": _gzip,
    b"x-gzip": _gzip,
    b"deflate": _gzip,
    b"br": _brotli,
    b"zstd": _zstd,
}
