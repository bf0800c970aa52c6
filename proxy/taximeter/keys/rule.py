"""Proxy keys: what is stored of one (never the key itself) and how a presented one is looked up.

The gateway and the control plane share this; files, Redis and the clock stay outside (see store.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from hashlib import sha256
from hmac import compare_digest

import msgspec

from taximeter.core.tags import is_valid
from taximeter.core.times import shown
from taximeter.core.union import union

PREFIX = "tm-"
"""Every proxy key begins so; a bearer token that does not is never one of ours (DESIGN §10)."""

SESSION_COOKIE = "taximeter_session"
"""Of a browser signed in to the control port; cookies know no ports, so it comes to the data port too."""

_SECRET_BYTES = 32
_is_digest = re.compile(r"[0-9a-f]{64}").fullmatch


class OldSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A secret that a key had before it was rotated."""

    sha256: str
    until: int
    """µs since epoch: first moment at which it no longer opens anything."""


class ProxyKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key as stored. Only the SHA-256 of the secret is kept; a secret of 256 random bits needs no salt."""

    id: str
    sha256: str
    """Hex, of the whole key with its `tm-`."""
    workspace: str
    models: tuple[str, ...] = ()
    """Patterns (`gpt-4o*`) of the models it may call; empty: all."""
    name: str = ""
    """What it is for, in the operator's words."""
    created_at: int = 0
    """µs since epoch; 0: declared in the configuration."""
    revoked_at: int = 0
    """µs since epoch; 0: in force. A revoked key stays listed, so that no other copy can bring it back."""
    expires_at: int = 0
    """µs since epoch: first moment at which it no longer opens anything; 0: never."""
    rotated_at: int = 0
    """µs since epoch; 0: it has the secret it was made with."""
    old: tuple[OldSecret, ...] = ()
    """Secrets of before that still open it, for a while. Id, budgets and sums of a key stay what they were."""

    def allows(self, model: str | None) -> bool:
        """Whether the key may call this model; with an allow-list, a call that names no model is not allowed."""
        if not self.models:
            return True
        return model is not None and any(fnmatchcase(model, pattern) for pattern in self.models)


def digest(secret: str | bytes) -> str:
    """What is stored of a secret: its SHA-256 in hex."""
    return sha256(secret.encode() if isinstance(secret, str) else secret).hexdigest()


def matches(secret: str | bytes, stored_sha256: str) -> bool:
    """Whether a secret is the one whose SHA-256 is stored; in constant time. Never true for an empty digest."""
    return bool(stored_sha256) and compare_digest(digest(secret), stored_sha256.lower())


def make(random: bytes) -> str:
    """A new key from at least 32 random bytes: `tm-` and 64 hex digits. Raises ValueError on fewer bytes."""
    if len(random) < _SECRET_BYTES:
        raise ValueError(f"a key needs {_SECRET_BYTES} random bytes, not {len(random)}")
    return PREFIX + random.hex()


class Keys:
    """All keys in force, by digest: one SHA-256 and one dict look-up a call (about 1 µs).

    Time plays no part in a look-up: what expires next is known (`changes_at`), and who follows the store makes this
    anew then.
    """

    def __init__(self, keys: Iterable[ProxyKey], now_us: int = 0) -> None:
        self._by_digest: dict[str, ProxyKey] = {}
        self._ended: dict[str, str] = {}
        ends: list[int] = []
        for key in keys:
            for stored, until in [(key.sha256, 0), *((old.sha256, old.until) for old in key.old)]:
                end = min((at for at in (key.expires_at, until) if at), default=0)
                if key.revoked_at:
                    self._ended[stored.lower()] = f"This proxy key ({key.id}) was revoked at {shown(key.revoked_at)}."
                elif end and end <= now_us:
                    self._ended[stored.lower()] = _expired(key, until, end)
                else:
                    self._by_digest[stored.lower()] = key
                    ends += [end] if end else []
        self.changes_at = min(ends, default=0)
        """µs since epoch: when a secret of these stops to open anything; 0: never."""

    def __len__(self) -> int:
        return len(self._by_digest)

    def why_not(self, secret: str | bytes) -> str:
        """Why a secret that `find` does not know opens nothing, in words for whoever presents it."""
        return self._ended.get(digest(secret), "This proxy key is not known here, or it was revoked.")

    def find(self, secret: str | bytes) -> ProxyKey | None:
        """The key in force that this secret is, else None.

        The look-up is by a hash the caller cannot steer, so its timing tells nothing about stored secrets.
        """
        return self._by_digest.get(digest(secret))


def _expired(key: ProxyKey, until: int, end: int) -> str:
    if end == until:
        return f"This secret of proxy key {key.id} was replaced by another and no longer holds since {shown(end)}."
    return f"This proxy key ({key.id}) expired at {shown(end)}. Ask for a new one (taximeter keys rotate {key.id})."


def bearer(authorization: bytes | None) -> bytes | None:
    """The token of an `Authorization: Bearer …` header value; None where there is none."""
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(b" ")
    token = token.strip()
    return token if token and scheme.lower() == b"bearer" else None


def is_stored(key: ProxyKey) -> bool:
    """Whether this is a key another node may have made."""
    digests = [key.sha256, *(old.sha256 for old in key.old)]
    return all(_is_digest(each) for each in digests) and is_valid(key.workspace)


def merge(*copies: Iterable[ProxyKey]) -> list[ProxyKey]:
    """Several copies of the stored keys as one: a revocation in any of them holds, and the latest rotation; see
    `union`."""
    return union(copies, "revoked_at", newer=_latest)


def _latest(one: ProxyKey, other: ProxyKey) -> ProxyKey:
    """Of two copies the one rotated last; where it is the same time, whichever, but always the same one."""
    return max(one, other, key=lambda key: (key.rotated_at, key.expires_at, key.sha256, _flat(key.old)))


def _flat(old: Iterable[OldSecret]) -> tuple[tuple[str, int], ...]:
    return tuple((each.sha256, each.until) for each in old)
