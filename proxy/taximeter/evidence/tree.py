"""The Merkle tree of RFC 6962 §2.1 over leaves that are hashes already: its root, and proofs of inclusion. Pure.

A proof has at most log2(n) hashes: a record's place under a root can be shown without the other records.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

_NODE = b"\x01"


def root(leaves: Sequence[bytes]) -> bytes:
    """The hash that stands for all leaves in their order; of none, SHA-256 of nothing."""
    if not leaves:
        return sha256().digest()
    level = list(leaves)
    while len(level) > 1:
        level = _above(level)
    return level[0]


def path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """What has to be known beside a leaf to come to the root, from the leaf up."""
    level, found = list(leaves), []
    while len(level) > 1:
        beside = index ^ 1
        if beside < len(level):
            found.append(level[beside])
        level, index = _above(level), index // 2
    return found


def climb(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that a leaf at `index` of `size` has with this proof. Raises ValueError where the proof has not as
    many hashes as such a place needs."""
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} among {size}")
    hashes, last = list(proof), size - 1
    while last:
        if index & 1 or index < last:  # with neither it is alone on its level, and goes up as it is
            if not hashes:
                raise ValueError("the proof has too few hashes")
            beside = hashes.pop(0)
            leaf = _node(beside, leaf) if index & 1 else _node(leaf, beside)
        index, last = index // 2, last // 2
    if hashes:
        raise ValueError("the proof has too many hashes")
    return leaf


def _above(level: Sequence[bytes]) -> list[bytes]:
    pairs = [_node(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
    return pairs + list(level[len(pairs) * 2 :])


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(_NODE + left + right).digest()
