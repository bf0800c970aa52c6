import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from present import present
from taximeter.budgets.rule import Budget
from taximeter.core.sealed import Seal
from taximeter.keys.rule import ProxyKey, digest

SEAL = Seal([b"a" * 32])
ENTRY = msgspec.json.encode({"id": "k", "n": 1})


def test_an_entry_is_opened_as_it_was_sealed():
    value = SEAL.put("tm:keys", "k", ENTRY)
    opened = present(SEAL.open("tm:keys", b"k", value))
    assert (opened.entry, opened.current) == (ENTRY, True)


@pytest.mark.parametrize(
    ("where", "name"), [("tm:budgets", b"k"), ("tm:keys", b"other"), ("tm:key", b"sk"), ("tm:keys1", b"k")]
)
def test_it_is_good_in_its_place_only(where, name):
    assert SEAL.open(where, name, SEAL.put("tm:keys", "k", ENTRY)) is None


@given(st.integers(0, 200), st.integers(1, 255))
def test_no_byte_of_it_can_be_changed(at, flip):
    value = bytearray(SEAL.put("tm:keys", "k", ENTRY))
    at %= len(value)
    value[at] ^= flip
    assert SEAL.open("tm:keys", b"k", bytes(value)) is None


@pytest.mark.parametrize(
    "value", [b"", b"{}", ENTRY, b'{"id":"k","mac":"0"}', b'{,"mac":"' + b"0" * 64 + b'"}', b"\xff"]
)
def test_what_is_not_sealed_is_not_opened(value):
    assert SEAL.open("tm:keys", b"k", value) is None


def test_another_secret_opens_nothing_and_an_older_one_is_to_be_sealed_anew():
    old = SEAL.put("tm:keys", "k", ENTRY)
    assert Seal([b"b" * 32]).open("tm:keys", b"k", old) is None
    opened = present(Seal([b"b" * 32, b"a" * 32]).open("tm:keys", b"k", old))
    assert (opened.entry, opened.current) == (ENTRY, False)


def test_who_has_no_secret_reads_it_all_the_same():
    key = ProxyKey(id="k", sha256=digest("tm-x"), workspace="acme", name='","mac":"' + "0" * 64, created_at=1)
    budget = Budget(id="b", workspace="acme", limit=7)
    for item in (key, budget):
        value = SEAL.put("tm:x", item.id, msgspec.json.encode(item))
        assert msgspec.json.decode(value, type=type(item)) == item
        opened = present(SEAL.open("tm:x", item.id.encode(), value))
        assert msgspec.json.decode(opened.entry, type=type(item)) == item


def test_a_seal_needs_a_secret():
    with pytest.raises(ValueError, match="secret"):
        Seal([])
