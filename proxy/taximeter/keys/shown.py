"""How a proxy key is shown: never its secret, but in the answer that made it. Pure; the CLI uses it too."""

from __future__ import annotations

import msgspec

from taximeter.core.times import shown
from taximeter.keys.rule import ProxyKey


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
