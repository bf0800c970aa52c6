"""An audit entry's shape, and names as they are stored."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from taximeter.core.audit import ACTIONS, NOBODY, Actor, AuditEntry, AuditFilters
from taximeter.core.lines import SCHEMA, End, Header, Line, Tick
from taximeter.core.names import NAME_BYTES, NAME_CHARS, clean


def test_an_entry_tells_what_is_known_and_comes_back_as_it_was() -> None:
    entry = AuditEntry(id="a1", at=5, node="n", actor=Actor(name="system").name, action="key.create", after={"id": "k"})
    said = msgspec.json.encode(entry)
    assert set(msgspec.json.decode(said)) == {"id", "at", "node", "actor", "action", "after"}
    assert msgspec.json.decode(said, type=AuditEntry) == entry
    assert entry.action in ACTIONS
    assert (NOBODY.name, NOBODY.address, AuditFilters().action) == ("nobody", "", None)


def test_a_journal_line_has_one_member_and_comes_back_as_it_was() -> None:
    for line in (
        Line(journal=Header(schema=SCHEMA, journal_id="j", node="n", worker="w", started_at=1)),
        Line(tick=Tick(request_id="r", at=2, bound_tokens=3)),
        Line(end=End(seq=4, at=5)),
    ):
        said = msgspec.json.encode(line)
        assert len(msgspec.json.decode(said)) == 1
        assert msgspec.json.decode(said, type=Line) == line


@given(st.text(max_size=300))
def test_a_name_is_cut_where_a_database_needs_it_and_nowhere_else(name: str) -> None:
    kept = clean(name)
    assert "\0" not in kept
    assert len(kept) <= NAME_CHARS
    assert len(kept.encode()) <= NAME_BYTES
    plain = name.replace("\0", "")
    assert kept == plain or len(plain) > NAME_CHARS or len(plain.encode("utf-8", "replace")) > NAME_BYTES


def test_a_name_of_wide_characters_is_cut_at_one_of_them() -> None:
    assert clean("é" * 200) == "é" * 180
    assert clean("x" * 201) == "x" * 200
