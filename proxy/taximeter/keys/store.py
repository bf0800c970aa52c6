"""Creating, listing and revoking proxy keys: those in `<data_dir>/keys.json`, and those the configuration declares.

The secret is shown once, when it is made; only its hash is kept. Where several nodes share a Redis, their control
processes merge their files through it (control/process/sync.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from taximeter.config import AuthSettings
from taximeter.core.errors import BadRequest, Forbidden, NotFound
from taximeter.core.tags import is_valid
from taximeter.core.times import shown
from taximeter.keys import rule
from taximeter.keys.rule import Keys, ProxyKey
from taximeter.node.stored_list import StoredList

_ID_DIGITS = 12
"""Hex digits of the hash that name a key: 48 bits, so ids of one installation do not meet."""


class KeyInfo(msgspec.Struct, kw_only=True):
    """A proxy key as listed: never its secret."""

    id: str
    workspace: str
    name: str
    models: list[str]
    """Patterns of the models it may call; empty: all."""
    declared: bool
    """It stands in the configuration and can be revoked only there."""
    created_at: str | None
    revoked_at: str | None


class CreatedKey(KeyInfo, kw_only=True):
    """A new key with its secret, shown this once."""

    key: str


class KeyStore(StoredList[ProxyKey, Keys]):
    """All keys of this node."""

    def __init__(
        self,
        data_dir: Path,
        auth: AuthSettings,
        *,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Raises DataDirError when the file is there and cannot be read."""
        self._declared = [
            ProxyKey(id=key.id, sha256=key.sha256.lower(), workspace=key.workspace, models=tuple(key.models))
            for key in auth.keys
        ]
        self._now_us = now_us
        self._random = random
        super().__init__(
            data_dir,
            "keys",
            ProxyKey,
            merge=rule.merge,
            view=lambda stored: Keys([*stored, *self._declared]),
            is_sound=rule.is_stored,
        )

    def listing(self) -> list[ProxyKey]:
        """Every key, revoked ones too, those of the configuration first."""
        return [*self._declared, *self.stored()]

    def create(self, workspace: str, *, name: str = "", models: Sequence[str] = ()) -> tuple[ProxyKey, str]:
        """A new key and its secret. Raises BadRequest on a workspace that cannot be a tag."""
        if not is_valid(workspace):
            raise BadRequest(
                f"workspace {workspace[:128]!r}: 1-128 characters of letters, digits and . _ : @ - are allowed.",
                param="workspace",
            )
        secret = rule.make(self._random(32))
        digest = rule.digest(secret)
        key = ProxyKey(
            id=f"key_{digest[:_ID_DIGITS]}",
            sha256=digest,
            workspace=workspace,
            name=name,
            models=tuple(models),
            created_at=self._now_us(),
        )
        self.absorb([key])
        return key, secret

    def revoke(self, key_id: str) -> ProxyKey:
        """End a key; a second time changes nothing. NotFound, or Forbidden for one of the configuration."""
        key = next((key for key in self.listing() if key.id == key_id), None)
        if key is None:
            raise NotFound(f"No key {key_id[:128]!r}.", param="id")
        if not key.created_at:
            raise Forbidden(f"Key {key_id!r} is declared in the configuration: remove it there.", param="id")
        revoked = msgspec.structs.replace(key, revoked_at=key.revoked_at or self._now_us())
        self.absorb([revoked])
        return revoked


def info(key: ProxyKey) -> KeyInfo:
    """A key as listed."""
    return KeyInfo(
        id=key.id,
        workspace=key.workspace,
        name=key.name,
        models=list(key.models),
        declared=not key.created_at,
        created_at=shown(key.created_at or None),
        revoked_at=shown(key.revoked_at or None),
    )


def created(key: ProxyKey, secret: str) -> CreatedKey:
    """A new key as shown to whoever made it."""
    return CreatedKey(**msgspec.structs.asdict(info(key)), key=secret)
