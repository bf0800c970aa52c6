"""The keys created at run time, in `<data_dir>/keys.json`: written by the control process, watched by the workers.

One small file, replaced atomically: a worker needs no Redis to authenticate, and a Redis that lost its data loses no
key. Where several nodes share a Redis, their control processes merge their copies through it (control/process/sync.py).
Keys for every start can also be declared in the configuration ([[auth.keys]]).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from taximeter.config import Auth
from taximeter.keys.rule import Keys, ProxyKey
from taximeter.node.stored_file import StoredFile


def declared(auth: Auth) -> list[ProxyKey]:
    """The keys of the configuration."""
    return [
        ProxyKey(id=key.id, sha256=key.sha256.lower(), workspace=key.workspace, models=tuple(key.models))
        for key in auth.keys
    ]


class KeyFile(StoredFile[ProxyKey]):
    """`keys.json`: all stored keys, revoked ones too."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir, "keys", ProxyKey, "proxy keys")


def in_force(auth: Auth, stored: Iterable[ProxyKey]) -> Keys:
    """Every key that opens the door now: the configuration's and the stored ones not revoked."""
    return Keys([*stored, *declared(auth)])
