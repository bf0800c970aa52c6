"""What `taximeter check --connect` tries of each `[[reconcile]]`: the smallest question that needs the same right."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from math import ceil

from taximeter.cli.findings import Trouble
from taximeter.config import Settings
from taximeter.config.secret import reconcile_credential
from taximeter.config.settings import ReconcileSettings
from taximeter.core.errors import ConfigError
from taximeter.reconcile.pulling import Puller, pullers, scope_of
from taximeter.reconcile.rule import PullFailed, settled
from taximeter.reconcile.told import Span

LONGEST_S = 10.0
_DO = "see that the credential is one of an administrator, who may read usage, and that base_url is right"


def doubts(each: ReconcileSettings, path: str, settings: Settings, environ: Mapping[str, str]) -> Iterator[Trouble]:
    """What would work, but probably not as it is meant. Nothing is asked."""
    keys = {environ.get(upstream.api_key_env, "").strip() for upstream in settings.upstream if upstream.api_key_env}
    yield from _of_upstreams(each, path, settings, environ)
    try:
        credential = reconcile_credential(each, path, environ)
    except ConfigError:  # told where settings are tried
        return
    if credential and credential in keys and each.kind != "openrouter_generations":
        yield Trouble(
            "its credential is one that calls are made with, and providers want an administrator's for usage",
            do="make an admin key that may read usage, and name that",
            setting=f"{path}.{'api_key_env' if each.api_key_env else 'api_key_file'}",
            level="warning",
        )
    if each.by == "upstream" and not each.names and not keys:
        yield Trouble(
            "no upstream has a credential of ours, so the provider's keys cannot be told to be any upstream's",
            do='say which they are: names = { "key_abc" = "openai" }',
            setting=f"{path}.by",
            level="warning",
        )


def _of_upstreams(
    each: ReconcileSettings, path: str, settings: Settings, environ: Mapping[str, str]
) -> Iterator[Trouble]:
    """Where calls of single upstreams are looked at."""
    scope = scope_of(each, settings)
    if each.by != "upstream" and not scope.upstreams:
        return
    named: dict[str, list[str]] = {}
    for upstream in settings.upstream:
        wanted = upstream.name in scope.upstreams if scope.upstreams else scope.provider in ("", upstream.provider)
        if wanted and (key := environ.get(upstream.api_key_env, "").strip() if upstream.api_key_env else ""):
            named.setdefault(key, []).append(upstream.name)
    for names in named.values() if each.by == "upstream" else ():
        if len(names) > 1:
            yield Trouble(
                f"{' and '.join(names)} send the same key, so what was billed to it cannot be told to be either's",
                do='give each a key of its own, or compare without by = "upstream"',
                setting=f"{path}.by",
                level="warning",
            )
    reach, kept = each.days + ceil(each.lag_h / 24) + 1, settings.history.retention_days
    if kept < reach:
        yield Trouble(
            f"it is read from single records, which history forgets after {kept} days, and looks back further",
            do=f"set history.retention_days to {reach} or more, or look at fewer days",
            setting=f"{path}.days",
            level="warning",
        )


def reconcile_troubles(settings: Settings, environ: Mapping[str, str]) -> Iterator[list[Trouble]]:
    """What is wrong with each, in their order."""
    try:
        found = pullers(settings, environ, attempts=1)
    except ConfigError:  # told where settings are tried
        return
    for puller in found:
        yield asyncio.run(_tried(puller))


async def _tried(puller: Puller) -> list[Trouble]:
    span = Span(*settled(time.time_ns() // 1_000, puller.settings.lag_h * 3_600, 1))
    try:
        async with asyncio.timeout(LONGEST_S):
            await puller.trial(span)
    except TimeoutError:
        return [Trouble(f"it did not answer in {LONGEST_S:g} s", do=_DO)]
    except PullFailed as error:
        return [Trouble(str(error), do="" if puller.settings.kind == "file" else _DO)]
    return []
