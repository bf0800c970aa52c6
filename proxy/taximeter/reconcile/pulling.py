"""What one `[[reconcile]]` of the settings pulls: whom it asks with which credential, and what his names are here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, assert_never

from taximeter.config.secret import reconcile_credential
from taximeter.config.settings import ReconcileSettings, Settings
from taximeter.core.errors import BadRequest
from taximeter.reconcile import anthropic, exports, openai, openrouter
from taximeter.reconcile.asking import ATTEMPTS, Asker
from taximeter.reconcile.rule import Figures, Place, PullFailed
from taximeter.reconcile.told import Row, Span, theirs, within

FILE_BYTES = 256 * 1024 * 1024
MOST_HINTS = 2_000
"""Keys of a provider that are looked up by their ends, in one pull: a quarter of an hour. Those beyond it have to wait
for the next."""
SHORTEST_END = 4
"""Characters at the end of a key that tell which it is; providers show as many."""
_PROVIDERS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "anthropic_admin": "anthropic",
    "openrouter": "openrouter",
    "openrouter_generations": "openrouter",
}
Pause = Callable[[float], Awaitable[object]]


class Scope(NamedTuple):
    """Which of our calls it is about."""

    provider: str
    """"": all."""
    upstreams: frozenset[str]
    """Only of these; none: of all."""


class Puller:
    """Pulls for one comparison. Methods raise PullFailed."""

    def __init__(
        self,
        settings: ReconcileSettings,
        credential: str,
        scope: Scope,
        upstream_keys: Mapping[str, str],
        pause: Pause = asyncio.sleep,
        attempts: int = ATTEMPTS,
    ) -> None:
        """`upstream_keys`: upstream -> the credential that calls are made with, where it is one of ours."""
        self.settings = settings
        self.scope = scope
        self._credential = credential
        self._upstream_keys = upstream_keys
        self._pause = pause
        self._attempts = attempts
        self._ends: dict[str, str] = {}
        """Key id of theirs -> how the key ends, as far as it was looked up."""

    async def pull(self, span: Span) -> dict[Place, Figures]:
        """What they say of these days."""
        settings = self.settings
        if settings.kind == "file":
            return await asyncio.to_thread(self._of_file, span)
        asker = self.asker()
        try:
            match settings.kind:
                case "openai":
                    rows = await openai.rows(asker, span, settings.by)
                case "anthropic":
                    rows = await anthropic.rows(asker, span, settings.by)
                case "anthropic_admin":
                    rows = await anthropic.admin_rows(asker, span, settings.by)
                case "openrouter":
                    keys = self._upstream_keys if settings.by == "upstream" else {}
                    rows = await openrouter.rows(asker, span, keys)
                case "openrouter_generations":
                    rows = []
                case _:
                    assert_never(settings.kind)
            rows, names = within(rows, span), dict(settings.names)
            if settings.by == "upstream" and settings.kind != "openrouter":
                names = await self._upstreams_of(asker, rows) | names
        finally:
            await asker.close()
        return theirs(rows, settings.by, settings.models, names)

    async def trial(self, span: Span) -> None:
        """Whether they let us ask: the smallest question that needs the same right."""
        asker = self.asker()
        try:
            match self.settings.kind:
                case "openai":
                    await openai.trial(asker, span)
                case "anthropic":
                    await anthropic.trial(asker, span)
                case "anthropic_admin":
                    await anthropic.admin_trial(asker, span)
                case "openrouter":
                    await openrouter.trial(asker, span)
                case "openrouter_generations":
                    await openrouter.key_trial(asker)
                case "file":
                    await asyncio.to_thread(self._read_file)
                case _:
                    assert_never(self.settings.kind)
        finally:
            await asker.close()

    def asker(self) -> Asker:
        """Asks their API; to be closed."""
        base_url, headers = "", {}
        match self.settings.kind:
            case "openai":
                base_url, headers = openai.BASE_URL, openai.headers(self._credential)
            case "anthropic":
                base_url, headers = anthropic.BASE_URL, anthropic.headers(self._credential)
            case "anthropic_admin":
                base_url, headers = anthropic.BASE_URL, anthropic.admin_headers(self._credential)
            case "openrouter" | "openrouter_generations":
                base_url, headers = openrouter.BASE_URL, openrouter.headers(self._credential)
        url = self.settings.base_url or base_url
        return Asker(url, headers, timeout_s=self.settings.timeout_s, pause=self._pause, attempts=self._attempts)

    async def _upstreams_of(self, asker: Asker, rows: Iterable[Row]) -> dict[str, str]:
        """Key id of theirs -> the one upstream of ours whose credential ends as that key does."""
        ids = {row.key_id: row.project_id for row in rows if row.key_id and row.key_id not in self.settings.names}
        hint = openai.hint if self.settings.kind == "openai" else anthropic.hint
        for key_id in [each for each in sorted(ids) if each not in self._ends][:MOST_HINTS]:
            self._ends[key_id] = await hint(asker, key_id, ids[key_id])
        found = {}
        for key_id in ids:
            end = self._ends.get(key_id, "").rpartition("...")[2].lstrip("*….")
            owners = [name for name, key in self._upstream_keys.items() if key.endswith(end)]
            if len(end) >= SHORTEST_END and len(owners) == 1:
                found[key_id] = owners[0]
        return found

    def _of_file(self, span: Span) -> dict[Place, Figures]:
        """Its days of the range; of a file that reaches less far, the others have nothing."""
        export = self._read_file()
        rows = [
            Row(place.day, place.model, {name: getattr(each, name) for name in Figures.__struct_fields__}, place.key,
                place.key)
            for place, each in export.places().items()
        ]  # fmt: skip
        return theirs(within(rows, span), self.settings.by, self.settings.models, self.settings.names)

    def _read_file(self) -> exports.Export:
        path = Path(self.settings.path)
        try:
            if path.stat().st_size > FILE_BYTES:
                raise PullFailed(f"{path} is larger than {FILE_BYTES // 2**20} MiB")
            return exports.read(path.read_bytes(), self.settings.columns)
        except OSError as error:
            raise PullFailed(f"{path} cannot be read: {error.strerror}") from error
        except BadRequest as error:
            raise PullFailed(f"{path}: {error}") from error


def pullers(
    settings: Settings, environ: Mapping[str, str], pause: Pause = asyncio.sleep, attempts: int = ATTEMPTS
) -> list[Puller]:
    """One for each of the settings. Raises ConfigError where a credential is not there."""
    keys = {each.name: environ.get(each.api_key_env, "").strip() for each in settings.upstream if each.api_key_env}
    return [
        Puller(
            each,
            reconcile_credential(each, f"reconcile[{number}]", environ),
            scope := scope_of(each, settings),
            {name: key for name, key in keys.items() if key and (not scope.upstreams or name in scope.upstreams)},
            pause,
            attempts,
        )
        for number, each in enumerate(settings.reconcile)
    ]


def scope_of(settings: ReconcileSettings, whole: Settings) -> Scope:
    """Upstreams are only looked at where they are not all of their provider: else sums by provider say the same."""
    named = frozenset(settings.only_upstreams)
    providers = {each.provider for each in whole.upstream if each.name in named}
    provider = settings.provider or _PROVIDERS.get(settings.kind, "")
    if len(providers) == 1 and not settings.provider:
        provider = next(iter(providers))
    elif providers and not settings.provider:
        provider = ""
    provider = "" if provider == "*" else provider
    of_it = {each.name for each in whole.upstream if provider in ("", each.provider)}
    return Scope(provider, frozenset() if of_it == named else named)
