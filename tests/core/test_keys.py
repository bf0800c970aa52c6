import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from present import present
from taximeter.keys import rule as keys
from taximeter.keys.rule import Keys, OldSecret, ProxyKey

NOON_US = 1_793_707_200_000_000
"""2026-11-03T12:00:00Z"""


def key(id="k1", secret="tm-one", **more):
    return ProxyKey(id=id, sha256=keys.digest(secret), workspace=more.pop("workspace", "acme"), **more)


def test_a_key_is_found_by_its_secret_and_by_nothing_else():
    found = Keys([key(), key("k2", "tm-two", workspace="beta")])
    assert present(found.find("tm-two")).workspace == "beta"
    assert present(found.find(b"tm-one")).id == "k1"
    assert found.find("tm-three") is None
    assert found.find(present(found.find("tm-one")).sha256) is None


def test_a_revoked_key_is_not_found():
    assert Keys([key(revoked_at=5)]).find("tm-one") is None


def test_a_digest_in_capitals_works_as_well():
    stored = msgspec.structs.replace(key(), sha256=keys.digest("tm-one").upper())
    assert present(Keys([stored]).find("tm-one")).id == "k1"


@pytest.mark.parametrize(
    ("patterns", "model", "allowed"),
    [((), "gpt-4o", True), ((), None, True), (("gpt-4o*",), "gpt-4o-mini", True), (("gpt-4o*",), "o1", False),
     (("gpt-4o",), "GPT-4o", False), (("a", "b"), "b", True), (("a",), None, False)],
)  # fmt: skip
def test_the_allow_list_of_models(patterns, model, allowed):
    assert key(models=patterns).allows(model) is allowed


def test_a_made_key_carries_its_prefix_and_all_its_randomness():
    assert keys.make(bytes(range(32))) == "tm-" + bytes(range(32)).hex()
    with pytest.raises(ValueError, match="32 random bytes"):
        keys.make(b"short")


def test_matches_compares_with_the_digest_and_never_with_an_empty_one():
    stored = hashlib.sha256(b"admin").hexdigest()
    assert keys.matches("admin", stored) and keys.matches(b"admin", stored.upper())
    assert not keys.matches("Admin", stored)
    assert not keys.matches("", "")


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (b"Bearer abc", b"abc"),
        (b"bearer  abc ", b"abc"),
        (b"Basic abc", None),
        (b"Bearer ", None),
        (b"abc", None),
        (None, None),
    ],
)
def test_bearer_token(value, token):
    assert keys.bearer(value) == token


stored = st.builds(
    lambda n, at: ProxyKey(id=f"k{n}", sha256=f"{n:064x}", workspace="w", created_at=n, revoked_at=at),
    st.integers(0, 5),
    st.integers(0, 3),
)
copies = st.lists(stored, max_size=6)


@given(copies, copies, copies)
def test_merging_copies_does_not_depend_on_their_order(a, b, c):
    assert keys.merge(a, b) == keys.merge(b, a)
    assert keys.merge(keys.merge(a, b), c) == keys.merge(a, keys.merge(b, c))
    assert keys.merge(a, a) == keys.merge(a)
    revoked = {each.id for each in (*a, *b) if each.revoked_at}
    assert {each.id for each in keys.merge(a, b) if each.revoked_at} == revoked


def test_a_key_that_expires_opens_nothing_from_that_moment_on_and_says_so():
    expiring = key(expires_at=NOON_US)
    assert present(Keys([expiring], NOON_US - 1).find("tm-one")).id == "k1"
    assert Keys([expiring], NOON_US - 1).changes_at == NOON_US
    ended = Keys([expiring], NOON_US)
    assert ended.find("tm-one") is None and ended.changes_at == 0
    assert "(k1) expired at 2026-11-03T12:00:00Z" in ended.why_not("tm-one")
    assert "not known here" in ended.why_not("tm-two")
    assert "was revoked at 2026-11-03T12:00:00Z" in Keys([key(revoked_at=NOON_US)]).why_not("tm-one")


def test_a_rotated_keys_old_secret_opens_the_same_key_until_its_time_is_over():
    rotated = key(secret="tm-new", old=(OldSecret(sha256=keys.digest("tm-old"), until=NOON_US),))
    both = Keys([rotated], NOON_US - 1)
    assert {both.find(secret) for secret in ("tm-old", "tm-new")} == {rotated} and both.changes_at == NOON_US
    one = Keys([rotated], NOON_US)
    assert one.find("tm-old") is None and one.find("tm-new") is rotated
    assert "was replaced by another and no longer holds since 2026-11-03" in one.why_not("tm-old")


@st.composite
def turned(draw):
    """A copy of one of a few keys, as some node may have it: rotated or not, expiring or not, revoked or not."""
    number, at = draw(st.integers(0, 2)), draw(st.integers(0, 3))
    old = (OldSecret(sha256=f"{draw(st.integers(0, 2)):064x}", until=draw(st.integers(1, 3))),) if at else ()
    return ProxyKey(
        id=f"k{number}", sha256=f"{at + 10 * number:064x}", workspace="w", created_at=number,
        revoked_at=draw(st.integers(0, 2)), expires_at=draw(st.integers(0, 2)), rotated_at=at, old=old,
    )  # fmt: skip


turns = st.lists(turned(), max_size=6)


@given(turns, turns, turns)
def test_the_latest_rotation_holds_in_whatever_order_copies_meet(a, b, c):
    assert keys.merge(a, b) == keys.merge(b, a)
    assert keys.merge(keys.merge(a, b), c) == keys.merge(a, keys.merge(b, c))
    assert keys.merge(a, a) == keys.merge(a)
    for each in keys.merge(a, b):
        assert each.rotated_at == max(one.rotated_at for one in (*a, *b) if one.id == each.id)


def test_a_key_from_another_node_is_believed_only_with_sound_hashes():
    assert keys.is_stored(key(old=(OldSecret(sha256=keys.digest("tm-old"), until=1),)))
    assert not keys.is_stored(key(old=(OldSecret(sha256="tm-old", until=1),)))
