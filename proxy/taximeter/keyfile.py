"""The keys created at run time, in `<data_dir>/keys.json`: written by the control process, watched by the workers.

One small file, replaced atomically: a worker needs no Redis to authenticate, and a Redis that lost its data loses no
key. Where several nodes share a Redis, their control processes merge their copies through it (control/keysync.py).
Keys for every start can also be declared in the configuration ([[auth.keys]]).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from taximeter.config import Auth
from taximeter.core.errors import DataDirError
from taximeter.core.keys import Keys, ProxyKey

NAME = "keys.json"


class _Stored(msgspec.Struct):
    keys: list[ProxyKey] = []
    schema: int = 1


_decode = msgspec.json.Decoder(_Stored).decode


def declared(auth: Auth) -> list[ProxyKey]:
    """The keys of the configuration."""
    return [
        ProxyKey(id=key.id, sha256=key.sha256.lower(), workspace=key.workspace, models=tuple(key.models))
        for key in auth.keys
    ]


class KeyFile:
    """The file, and what it held when last read."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / NAME
        self._seen: tuple[int, int, int] | None = None

    def load(self) -> list[ProxyKey]:
        """All stored keys, revoked ones too; none where there is no file. Raises DataDirError on one not readable."""
        try:
            self._seen = self._stamp()
            return _decode(self.path.read_bytes()).keys
        except FileNotFoundError:
            return []
        except (OSError, ValueError, RecursionError) as error:
            raise DataDirError(f"{self.path}: cannot read the proxy keys: {error}") from error

    def save(self, keys: Iterable[ProxyKey]) -> None:
        """Replace the file (mode 0600), durable before it returns. Raises DataDirError when it cannot be written."""
        body = msgspec.json.format(msgspec.json.encode(_Stored(keys=list(keys))), indent=1)
        fresh = self.path.with_suffix(f".{os.getpid()}.new")
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError as error:
            raise DataDirError(f"{self.path}: cannot write the proxy keys: {error}") from error

    def changed(self) -> bool:
        """Whether the file is another than the one last read. One `stat`; call it about once a second."""
        return self._stamp() != self._seen

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size


def in_force(auth: Auth, stored: Iterable[ProxyKey]) -> Keys:
    """Every key that opens the door now: the configuration's and the stored ones not revoked."""
    return Keys([*stored, *declared(auth)])
