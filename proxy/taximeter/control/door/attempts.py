"""How often somebody may try a token: by address and in all, in bounded memory. Must not know tokens or HTTP."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import TypeVar

T = TypeVar("T")

OF_ADDRESS = 10
"""Wrong tokens an address may send at once; then one more every OF_ADDRESS_S."""
OF_ADDRESS_S = 6.0
IN_ALL = 100
"""Wrong tokens all addresses together may send at once; then one more every IN_ALL_S."""
IN_ALL_S = 0.6
MOST_ADDRESSES = 10_000
"""Remembered; beyond them the one that was quiet longest is forgotten, and IN_ALL is what bounds a flood."""


class Bucket:
    """A number of tries that fills up again by itself."""

    def __init__(self, most: int, every_s: float, now_s: float) -> None:
        self._most = most
        self._every_s = every_s
        self._left = float(most)
        self._at_s = now_s

    def wait_s(self, now_s: float) -> float:
        """Seconds until a try is left; 0: now."""
        self._left = min(self._most, self._left + (now_s - self._at_s) / self._every_s)
        self._at_s = now_s
        return 0.0 if self._left >= 1 else (1 - self._left) * self._every_s

    def take(self, now_s: float) -> bool:
        """Use one. True: it was the last for now."""
        self.wait_s(now_s)
        self._left = max(0.0, self._left - 1)
        return self._left < 1


class Attempts:
    """Wrong tokens, counted. What is refused for their number is not looked at, so it is not counted either."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._in_all = Bucket(IN_ALL, IN_ALL_S, now_s())
        self._by_address: dict[str, Bucket] = {}
        self._good: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._by_address) + len(self._good)

    def wait_s(self, address: str) -> int:
        """Whole seconds this address has to wait before its next try is looked at; 0: none.

        An address a good token has come from is bound by its own number only: others cannot keep it out.
        """
        now_s, name = self._now_s(), network(address)
        bucket = self._by_address.get(name)
        own_s = 0.0 if bucket is None else bucket.wait_s(now_s)
        all_s = 0.0 if name in self._good else self._in_all.wait_s(now_s)
        return math.ceil(max(own_s, all_s))

    def failed(self, address: str) -> bool:
        """A wrong token came from there. True: the next one has to wait."""
        now_s, name = self._now_s(), network(address)
        bucket = self._by_address.pop(name, None) or Bucket(OF_ADDRESS, OF_ADDRESS_S, now_s)
        _put(self._by_address, name, bucket)
        in_all = self._in_all.take(now_s)
        return bucket.take(now_s) or in_all

    def succeeded(self, address: str) -> None:
        """A good token came from there."""
        name = network(address)
        self._good.pop(name, None)
        _put(self._good, name, None)


def network(address: str) -> str:
    """What counts as one address: of IPv6 the /64, which a single machine has for itself."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(IPv6Address(int(parsed) >> 64 << 64))
    return str(parsed)


def _put(among: dict[str, T], name: str, value: T) -> None:
    """Add as the newest, forgetting the oldest where there are too many."""
    while len(among) >= MOST_ADDRESSES:
        del among[next(iter(among))]
    among[name] = value
