"""Configuration: every setting (settings.py), read (reading.py) and checked (checks.py) before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from taximeter.config.settings import (
    AuthSettings,
    BudgetSettings,
    ControlSettings,
    EvidenceSettings,
    HistorySettings,
    JournalSettings,
    KeySettings,
    LimitSettings,
    RateSettings,
    RedisSettings,
    Section,
    Settings,
    TagSettings,
    UpstreamSettings,
    WebhookSettings,
)

if TYPE_CHECKING:
    from taximeter.config.found import Found

__all__ = [
    "AuthSettings",
    "BudgetSettings",
    "ControlSettings",
    "EvidenceSettings",
    "HistorySettings",
    "JournalSettings",
    "KeySettings",
    "LimitSettings",
    "RateSettings",
    "RedisSettings",
    "Section",
    "Settings",
    "TagSettings",
    "UpstreamSettings",
    "WebhookSettings",
    "load",
    "load_found",
]


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings: `TAXIMETER_SECTION__KEY` over the TOML file over the defaults.

    `path` None: `config/taximeter.toml` in the working directory if it is there, else `taximeter.toml`, else no file
    (`found.find` says which). `environ` None: the process's own. Raises ConfigError, which names the file or variable,
    the setting's path, the value and what is allowed. Refusals that concern serving only (DESIGN §10) are in
    `checks.before_serving`.
    """
    return load_found(path, environ)[0]


def load_found(path: Path | None = None, environ: Mapping[str, str] | None = None) -> tuple[Settings, Found]:
    """`load`, and where the settings come from."""
    import os

    from taximeter.config.reading import read  # workers get their settings ready-made and never import this

    return read(path, os.environ if environ is None else environ)
