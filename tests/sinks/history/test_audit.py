"""The audit log's table, on SQLite and on PostgreSQL."""

import pytest

from taximeter.core.audit import AuditEntry, AuditFilters
from taximeter.core.errors import BadRequest
from taximeter.sinks.history.sink import History


def entry(number, **more):
    told = {"id": f"{number:016x}", "at": 1_000 + number, "node": "n1", "actor": "admin token", "action": "key.create"}
    return AuditEntry(**(told | more))


async def test_entries_are_kept_once_and_found_by_what_they_say(url, closing):
    history = closing(History(url))
    assert await history.audit(AuditFilters()) == ([], None)  # there is no table yet
    odd = entry(2, action="key.revoke", target="a\0b\ud800", before={"models": ["gpt-*"], "x": "\0\ud800é"}, user="ops")
    await history.add_audit([entry(1), odd])
    await history.add_audit([entry(1), entry(3, outcome="refused", problem="no", actor="nobody", address="10.0.0.1")])
    found, more = await history.audit(AuditFilters())
    assert [each.id for each in found] == [f"{number:016x}" for number in (3, 2, 1)] and more is None
    assert found[0] == entry(3, outcome="refused", problem="no", actor="nobody", address="10.0.0.1")
    assert found[1] == entry(2, action="key.revoke", target="ab?", before=odd.before, user="ops")
    for asked, ids in (
        ({"action": ["key.revoke"]}, [2]), ({"actor": ["nobody"]}, [3]), ({"outcome": ["ok"]}, [2, 1]),
        ({"target": ["ab?"]}, [2]), ({"from_us": 1_002}, [3, 2]), ({"to_us": 1_002}, [1]),
    ):  # fmt: skip
        assert [int(each.id, 16) for each in (await history.audit(AuditFilters(**asked)))[0]] == ids, asked


async def test_pages_hold_every_entry_once_also_of_one_moment(url, closing):
    history = closing(History(url))
    await history.add_audit([entry(number, at=5) for number in range(7)])
    ids, page = [], None
    while True:
        found, page = await history.audit(AuditFilters(), 3, page)
        ids += [int(each.id, 16) for each in found]
        if page is None:
            break
    assert ids == [6, 5, 4, 3, 2, 1, 0]
    with pytest.raises(BadRequest, match="is no page"):
        await history.audit(AuditFilters(), 3, "x")


async def test_old_entries_go(url, closing):
    history = closing(History(url))
    await history.add_audit([entry(1), entry(2)])
    assert await history.prune_audit(1_002) == 1
    assert [each.at for each in (await history.audit(AuditFilters()))[0]] == [1_002]
