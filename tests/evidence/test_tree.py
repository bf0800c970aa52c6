"""The tree against RFC 6962's known roots, and its proofs."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.evidence import tree

INPUTS = [
    bytes.fromhex(each)
    for each in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
"""Those of the reference implementation of Certificate Transparency."""
ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


def leaves_of(count):
    return [sha256(b"\x00" + each).digest() for each in INPUTS[:count]]


@pytest.mark.parametrize("count", ROOTS)
def test_roots_are_those_of_the_rfc(count):
    assert tree.root(leaves_of(count)).hex() == ROOTS[count]
    assert tree.root([]) == sha256().digest()


@given(size=st.integers(1, 70), data=st.data())
def test_each_leaf_has_a_proof_and_no_other_has_it(size, data):
    leaves = [sha256(bytes([number])).digest() for number in range(size)]
    index = data.draw(st.integers(0, size - 1))
    proof = tree.path(leaves, index)
    assert len(proof) <= (size - 1).bit_length()
    assert tree.climb(leaves[index], index, size, proof) == tree.root(leaves)
    for other in {0, size - 1, index ^ 1} - {index}:
        try:
            assert tree.climb(leaves[index], other, size, proof) != tree.root(leaves)
        except ValueError:  # another place needs another number of hashes
            continue
    for wrong in (proof[1:], [*proof, leaves[0]]):
        if len(wrong) != len(proof):
            with pytest.raises(ValueError, match="the proof has too"):
                tree.climb(leaves[index], index, size, wrong)


def test_a_place_that_is_none():
    with pytest.raises(ValueError, match="no leaf 3 among 3"):
        tree.climb(b"", 3, 3, [])
