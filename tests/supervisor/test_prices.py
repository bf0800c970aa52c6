"""Compiled prices are kept until what they are made of changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from taximeter.config import Settings
from taximeter.core.errors import ConfigError
from taximeter.node.audit import AuditLog
from taximeter.supervisor.prices import ensure

PRICE = '[[price]]\nprovider = "openai"\nmodel = "m"\nfrom = 2025-01-01\ninput_usd_per_mtok = {}\nsource = "x"\n'


def test_prices_are_compiled_once_and_again_when_a_source_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, compiled = tmp_path / "prices.toml", tmp_path / "prices.json"
    file.write_text(PRICE.format(1.0))
    settings = Settings(prices_file=str(file))
    assert [ensure(settings, compiled), ensure(settings, compiled)] == [True, False]
    before = compiled.read_bytes()
    file.write_text(PRICE.format(2.0))
    assert [ensure(settings, compiled), ensure(settings, compiled)] == [True, False]
    assert compiled.read_bytes() != before
    (entry,) = AuditLog(tmp_path).waiting()
    assert (entry.action, entry.target, entry.actor) == ("prices.change", str(file), "system")
    assert entry.before["digest"] != entry.after["digest"] and len(entry.after["digest"]) == 12
    monkeypatch.setenv("LIGHTRAG_EMBEDDING_PRICE_PER_1K", "0.1")
    assert [ensure(settings, compiled), ensure(settings, compiled)] == [True, False]


def test_a_source_that_cannot_be_read_leaves_no_stale_key(tmp_path: Path) -> None:
    file, compiled = tmp_path / "prices.toml", tmp_path / "prices.json"
    file.write_text(PRICE.format(1.0))
    settings = Settings(prices_file=str(file))
    ensure(settings, compiled)
    file.write_text("nonsense = ")
    with pytest.raises(ConfigError):
        ensure(settings, compiled)
    file.write_text(PRICE.format(1.0))
    assert ensure(settings, compiled) is True
