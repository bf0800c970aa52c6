"""Creating, listing, rotating, revoking proxy keys: those in `<data_dir>/keys.json`, and those of the configuration.

The secret is shown once, when it is made; only its hash is kept. Where several nodes share a Redis, their control
processes merge their files through it (control/process/sync.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from taximeter.config import AuthSettings
from taximeter.config.settings import KeySettings
from taximeter.core.errors import BadRequest, Forbidden, NotFound
from taximeter.core.tags import is_valid
from taximeter.core.times import moment_us, shown, zone
from taximeter.keys import rule
from taximeter.keys.rule import Keys, OldSecret, ProxyKey
from taximeter.node.audit import AuditLog
from taximeter.node.stored_list import StoredList

OVERLAP_S = 86_400.0
"""How long the secret before a rotation holds, where nothing else is said: a day to change clients in."""
UTC = zone("UTC")

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
    expires_at: str | None
    """From then on it opens nothing; null: never."""
    rotated_at: str | None
    """When it got its present secret; null: when it was made."""
    old_secret_until: str | None
    """Until then the secret before the present one opens it too; null: it does not."""
    state: Literal["active", "expired", "revoked"]


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
        audit: AuditLog | None = None,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`audit`: where changes are written down. Raises DataDirError when the file is there and cannot be read."""
        self._declared = [_declared(key) for key in auth.keys]
        self._audit = audit or AuditLog()
        self._now_us = now_us
        self._random = random
        super().__init__(
            data_dir,
            "keys",
            ProxyKey,
            merge=rule.merge,
            view=lambda stored: Keys([*stored, *self._declared], self._now_us()),
            is_sound=rule.is_stored,
        )

    def in_force(self) -> Keys:
        """See StoredList; what has expired meanwhile is no longer in it."""
        keys = super().in_force()
        if keys.changes_at and keys.changes_at <= self._now_us():
            keys = self._in_force = self._view(self._stored)
        return keys

    def info(self, key: ProxyKey) -> KeyInfo:
        """A key as listed."""
        return info(key, self._now_us())

    def listing(self) -> list[ProxyKey]:
        """Every key, revoked ones too, those of the configuration first."""
        return [*self._declared, *self.stored()]

    def create(
        self, workspace: str, *, name: str = "", models: Sequence[str] = (), expires_at: int = 0
    ) -> tuple[ProxyKey, str]:
        """A new key and its secret. `expires_at`: µs since epoch; 0: never. Raises BadRequest on a workspace that
        cannot be a tag, or an end that is past."""
        with self._audit.act("key.create", f"workspace {workspace}") as change:
            key, secret = self._create(workspace, name, models, expires_at)
            change.target, change.after = key.id, self.info(key)
        return key, secret

    def _create(self, workspace: str, name: str, models: Sequence[str], expires_at: int) -> tuple[ProxyKey, str]:
        if not is_valid(workspace):
            raise BadRequest(
                f"workspace {workspace[:128]!r}: 1-128 characters of letters, digits and . _ : @ - are allowed.",
                param="workspace",
            )
        self._check_end(expires_at)
        secret = rule.make(self._random(32))
        digest = rule.digest(secret)
        key = ProxyKey(
            id=f"key_{digest[:_ID_DIGITS]}",
            sha256=digest,
            workspace=workspace,
            name=name,
            models=tuple(models),
            created_at=self._now_us(),
            expires_at=expires_at,
        )
        self.absorb([key])
        return key, secret

    def rotate(
        self, key_id: str, *, overlap_s: float = OVERLAP_S, expires_at: int | None = None
    ) -> tuple[ProxyKey, str]:
        """Give a key another secret: its id, budgets and sums stay. The one it has holds for `overlap_s` more,
        and those before it as long as was said when they were replaced; with 0 all end at once.

        `expires_at`: of the key, from now on; None: it lasts as long again as it was made for. Raises NotFound,
        BadRequest on a revoked one, Forbidden for one of the configuration.
        """
        with self._audit.act("key.rotate", key_id) as change:
            key = self._own(key_id, "declare another key beside it, change clients, then remove this one")
            if key.revoked_at:
                raise BadRequest(f"Key {key_id!r} was revoked: make a new one.", param="id")
            change.before = self.info(key)
            now_us = self._now_us()
            if expires_at is None:
                expires_at = now_us + key.expires_at - (key.rotated_at or key.created_at) if key.expires_at else 0
            self._check_end(expires_at)
            until = now_us + int(overlap_s * 1_000_000)
            until = min(until, key.expires_at) if key.expires_at else until
            secret = rule.make(self._random(32))
            rotated = msgspec.structs.replace(
                key,
                sha256=rule.digest(secret),
                rotated_at=now_us,
                expires_at=expires_at,
                old=_replaced(key, until, now_us),
            )
            self.absorb([rotated])
            change.after = self.info(rotated)
        return rotated, secret

    def revoke(self, key_id: str) -> ProxyKey:
        """End a key; a second time changes nothing. NotFound, or Forbidden for one of the configuration."""
        with self._audit.act("key.revoke", key_id) as change:
            key = self._own(key_id, "remove it there")
            revoked = msgspec.structs.replace(key, revoked_at=key.revoked_at or self._now_us())
            change.before = self.info(key)
            self.absorb([revoked])
            change.after = self.info(revoked)
        return revoked

    def _own(self, key_id: str, instead: str) -> ProxyKey:
        """The key of this id, if it was made at run time. Raises NotFound, Forbidden."""
        key = next((key for key in self.listing() if key.id == key_id), None)
        if key is None:
            raise NotFound(f"No key {key_id[:128]!r}.", param="id")
        if not key.created_at:
            raise Forbidden(f"Key {key_id!r} is declared in the configuration: {instead}.", param="id")
        return key

    def _check_end(self, expires_at: int) -> None:
        if expires_at and expires_at <= self._now_us():
            raise BadRequest(f"expires_at: {shown(expires_at)} is past.", param="expires_at")


def _declared(key: KeySettings) -> ProxyKey:
    return ProxyKey(
        id=key.id,
        sha256=key.sha256.lower(),
        workspace=key.workspace,
        models=tuple(key.models),
        expires_at=moment_us(key.expires, UTC, "expires") if key.expires else 0,
    )


def info(key: ProxyKey, now_us: int) -> KeyInfo:
    """A key as listed."""
    expired = 0 < key.expires_at <= now_us
    old = [each.until for each in key.old if each.until > now_us]
    return KeyInfo(
        id=key.id,
        workspace=key.workspace,
        name=key.name,
        models=list(key.models),
        declared=not key.created_at,
        created_at=shown(key.created_at or None),
        revoked_at=shown(key.revoked_at or None),
        expires_at=shown(key.expires_at or None),
        rotated_at=shown(key.rotated_at or None),
        old_secret_until=shown(max(old, default=None)),
        state="revoked" if key.revoked_at else "expired" if expired else "active",
    )


def created(shown_as: KeyInfo, secret: str) -> CreatedKey:
    """A new key as shown to whoever made it."""
    return CreatedKey(**msgspec.structs.asdict(shown_as), key=secret)


def _replaced(key: ProxyKey, until: int, now_us: int) -> tuple[OldSecret, ...]:
    """What opens a key beside its next secret: the one it has, until then, and those before it, as was promised.

    Nothing where that ends at once, as when a secret got out; nor does that wait for a node whose clock is behind.
    """
    if until <= now_us:
        return ()
    return (OldSecret(sha256=key.sha256, until=until), *(each for each in key.old if each.until > now_us))
