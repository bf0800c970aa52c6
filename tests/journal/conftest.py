"""A disk that can be full."""

from __future__ import annotations

import errno
import os

import pytest


class Disk:
    """os.write as the journal calls it, on a disk that can be full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self.bytes_left: int | None = None
        self._write = os.write
        monkeypatch.setattr("taximeter.journal.file.os.write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.bytes_left is not None:
            data, self.bytes_left = data[: self.bytes_left], max(0, self.bytes_left - len(data))
        return self._write(fd, data)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)
