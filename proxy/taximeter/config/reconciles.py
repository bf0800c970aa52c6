"""What settings of `[[reconcile]]` mean together."""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import ceil

from taximeter.config.settings import ReconcileSettings, Settings
from taximeter.core import tags

_TAG = "it must be 1-128 characters of letters, digits and . _ : @ -"
_is_variable = re.compile(r"[A-Za-z_][A-Za-z0-9_]*").fullmatch
_is_clock = re.compile(r"([01]\d|2[0-3]):[0-5]\d").fullmatch
OPENROUTER_DAYS = 30
"""Its activity is of so many whole days."""
MEANINGS = (
    "day", "end", "model", "key", "input_tokens", "cached_input_tokens", "cache_write_input_tokens", "output_tokens",
    "requests", "cost_usd",
)  # fmt: skip
"""What a column of a file may be named to mean."""


def reconcile_problems(settings: Settings) -> Iterable[tuple[str, str]]:
    """(path, what is wrong with the value there)."""
    names: set[str] = set()
    upstreams = {each.name for each in settings.upstream}
    for number, each in enumerate(settings.reconcile):
        path = f"reconcile[{number}]"
        if not tags.is_valid(each.name):
            yield f"{path}.name", _TAG
        if each.name in names:
            yield f"{path}.name", "two have this name"
        names.add(each.name)
        for at, name in enumerate(each.only_upstreams):
            if name not in upstreams:
                yield f"{path}.only_upstreams[{at}]", f"name one of {', '.join(sorted(upstreams))}"
        yield from ((f"{path}.{key}", why) for key, why in (_file if each.kind == "file" else _api)(each))
        if not _is_clock(each.at):
            yield f"{path}.at", "it must be a time of day (UTC) such as 06:00"


def _file(each: ReconcileSettings) -> Iterable[tuple[str, str]]:
    if not each.path:
        yield "path", "name the file"
    if not each.provider and not each.only_upstreams:
        yield "provider", "say whose calls the file is about"
    for key in ("base_url", "api_key_env", "api_key_file"):
        if getattr(each, key):
            yield key, "a file needs none"
    for meaning in each.columns:
        if meaning not in MEANINGS:
            yield f"columns.{meaning}", f"a column means one of {', '.join(MEANINGS)}"


def _api(each: ReconcileSettings) -> Iterable[tuple[str, str]]:
    if each.path or each.columns:
        yield "path" if each.path else "columns", 'that is for kind = "file"'
    if bool(each.api_key_env) == bool(each.api_key_file):
        yield "api_key_env", "name the credential, in api_key_env or in api_key_file"
    if each.api_key_env and not _is_variable(each.api_key_env):
        yield "api_key_env", "it must be the name of an environment variable, not the key itself"
    if each.kind == "openrouter" and each.by == "key":
        yield "by", "OpenRouter's activity does not tell our proxy keys; upstream can be told apart"
    if each.kind == "openrouter" and each.days + ceil(each.lag_h / 24) > OPENROUTER_DAYS:
        yield (
            "days",
            (
                f"OpenRouter tells the last {OPENROUTER_DAYS} days, and with lag_h these would reach further back: "
                "what it no longer tells would look as if it had not been billed"
            ),
        )
    if each.kind == "openrouter" and each.by == "workspace":
        yield "by", "only upstreams can be told apart there"
