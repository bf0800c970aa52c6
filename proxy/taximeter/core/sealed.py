"""Entries that several nodes share where others may write too: JSON objects with a MAC as their last member.

A node without the secret reads them as if the MAC were not there. Pure; whose secret it is, config/secret.py says.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from typing import NamedTuple

_sealed = re.compile(rb"""(\{.+),"mac":"([0-9a-f]{64})"\}""", re.DOTALL).fullmatch
"""What `Seal.put` writes, and nothing else: the bytes before the MAC are those it was made of."""


class Opened(NamedTuple):
    """An entry that was sealed with one of our secrets."""

    entry: bytes
    current: bool
    """With the first of them: it need not be sealed again."""


class Seal:
    """Puts a MAC on entries, and looks at that of others. The first secret seals, all of them open."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets:
            raise ValueError("a seal needs a secret")
        self._secrets = tuple(secrets)

    def put(self, where: str, name: str, entry: bytes) -> bytes:
        """A JSON object that is not empty, sealed for its place: it is good under no other key and name."""
        mac = _mac(self._secrets[0], where, name.encode(), entry)
        return b'%b,"mac":"%b"}' % (entry[:-1], mac.encode())

    def open(self, where: str, name: bytes, value: bytes) -> Opened | None:
        """The entry as it was before it was sealed; None where none of our secrets has sealed it for this place."""
        found = _sealed(value)
        if found is None:
            return None
        entry = found[1] + b"}"
        for number, secret in enumerate(self._secrets):
            if hmac.compare_digest(_mac(secret, where, name, entry).encode(), found[2]):
                return Opened(entry, current=number == 0)
        return None


def _mac(secret: bytes, where: str, name: bytes, entry: bytes) -> str:
    """HMAC-SHA256 in hex; lengths first, so that no two places and entries make up the same text."""
    place = where.encode()
    return hmac.new(secret, b"%d:%b%d:%b%b" % (len(place), place, len(name), name, entry), "sha256").hexdigest()
