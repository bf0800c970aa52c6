"""Creating, listing and revoking proxy keys: the file of this node and the keys the configuration declares.

The secret is shown once, when it is made; only its hash is kept. Blocking (a small file): call it in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from taximeter.config import Auth
from taximeter.core.errors import BadRequest, Forbidden, NotFound
from taximeter.core.tags import is_valid
from taximeter.keys import rule as keys
from taximeter.keys.file import KeyFile, declared, in_force
from taximeter.keys.rule import Keys, ProxyKey
from taximeter.node.stored_list import StoredRing

_ID_DIGITS = 12
"""Hex digits of the hash that name a key: 48 bits, so ids of one installation do not meet."""


class KeyRing(StoredRing[ProxyKey, Keys]):
    """All keys of this node."""

    def __init__(self, file: KeyFile, auth: Auth, *, now_us: Callable[[], int], random: Callable[[int], bytes]) -> None:
        """Raises DataDirError when the file is there and cannot be read."""
        self._auth = auth
        self._now_us = now_us
        self._random = random
        super().__init__(file, merge=keys.merge, view=lambda stored: in_force(auth, stored))

    def keys(self) -> Keys:
        """The keys in force now, for look-ups. One `stat` a call."""
        return self.current()

    def listing(self) -> list[ProxyKey]:
        """Every key, revoked ones too, those of the configuration first."""
        return [*declared(self._auth), *self.stored()]

    def create(self, workspace: str, *, name: str = "", models: Sequence[str] = ()) -> tuple[ProxyKey, str]:
        """A new key and its secret. Raises BadRequest on a workspace that cannot be a tag."""
        if not is_valid(workspace):
            raise BadRequest(
                f"workspace {workspace[:128]!r}: 1-128 characters of letters, digits and . _ : @ - are allowed.",
                param="workspace",
            )
        secret = keys.make(self._random(32))
        digest = keys.digest(secret)
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
        for key in self.listing():
            if key.id != key_id:
                continue
            if not key.created_at:
                raise Forbidden(f"Key {key_id!r} is declared in the configuration: remove it there.", param="id")
            revoked = msgspec.structs.replace(key, revoked_at=key.revoked_at or self._now_us())
            self.absorb([revoked])
            return revoked
        raise NotFound(f"No key {key_id[:128]!r}.", param="id")
