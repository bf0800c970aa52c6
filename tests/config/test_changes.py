"""What differs between settings, and what of it waits for a restart."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from taximeter.config import HistorySettings, KeySettings, LimitSettings, RedisSettings, Settings, UpstreamSettings
from taximeter.config.changes import NEEDS_RESTART, changed, kept, need_restart


def test_paths_are_named_and_never_values() -> None:
    before = Settings(upstream=[UpstreamSettings(), UpstreamSettings(name="other")])
    after = Settings(
        upstream=[UpstreamSettings(), UpstreamSettings(name="other", base_url="https://h/v1")],
        limits=LimitSettings(shutdown_s=1.0),
    )
    assert changed(before, after) == ["upstream[1].base_url", "limits.shutdown_s"]
    assert changed(before, before) == []


def test_a_list_that_grew_is_named_as_a_whole() -> None:
    after = Settings()
    after.auth.keys = [KeySettings(id="a", sha256="0" * 64, workspace="w")]
    assert changed(Settings(), after) == ["auth.keys"]


@pytest.mark.parametrize(
    "change",
    [
        {"listen": "127.0.0.1:1"},
        {"admin_listen": "127.0.0.1:1"},
        {"data_dir": "/d"},
        {"node": "n"},
        {"env_file": "e"},
        {"redis": RedisSettings(url="redis://h")},
        {"redis": RedisSettings(embedded_port=7)},
        {"history": HistorySettings(url="sqlite:///x")},
    ],
    ids=str,
)
def test_what_needs_a_restart_stays_as_it_was(change: dict[str, Any]) -> None:
    after = structs.replace(Settings(workers=2), **change)
    paths = changed(Settings(), after)
    assert need_restart(paths) == [path for path in paths if path != "workers"] and set(paths) <= {
        *NEEDS_RESTART,
        "workers",
    }
    assert changed(Settings(), kept(Settings(), after)) == ["workers"]


def test_what_is_split_follows_a_reload_and_the_rest_of_redis_does_not() -> None:
    after = Settings(redis=RedisSettings(url="redis://h", split={"acme": 8}))
    assert need_restart(changed(Settings(), after)) == ["redis.url"]
    assert changed(Settings(), kept(Settings(), after)) == ["redis.split"]
