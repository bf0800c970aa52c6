"""Ends of journals: a node that never comes back has to have told of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from taximeter.delivery.deliver import _has


def test_who_has_every_record_may_not_know_yet_that_the_journal_has_ended():
    feed: Any = SimpleNamespace(ended=True, told_end=set(), cursors={"history": 3, "redis": 3})
    history: Any = SimpleNamespace(name="history", keeper=object())
    redis: Any = SimpleNamespace(name="redis", keeper=None)
    assert _has(history, feed, 3, ends=False)
    assert not _has(history, feed, 3, ends=True)
    assert _has(redis, feed, 3, ends=True)  # it keeps no journals
    feed.told_end.add("history")
    assert _has(history, feed, 3, ends=True)
    assert not _has(history, feed, 4, ends=True)
