"""What differs between two settings, and which of that a running Taximeter cannot take. Names paths, never values."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from taximeter.config.settings import Section, Settings

NEEDS_RESTART = (
    "listen", "admin_listen", "data_dir", "node", "env_file", "redis.url", "redis.embedded_port", "history.url",
)  # fmt: skip
"""What all processes of a node, old and new ones together, have to agree on."""


def changed(before: Settings, after: Settings) -> list[str]:
    """Paths of the settings that differ; of a list whose length changed, the list's."""
    return list(_differing(before, after, ""))


def kept(before: Settings, after: Settings) -> Settings:
    """`after`, with what needs a restart as it was."""
    return replace(
        after,
        **{path: getattr(before, path) for path in NEEDS_RESTART if "." not in path},
        redis=replace(after.redis, url=before.redis.url, embedded_port=before.redis.embedded_port),
        history=replace(after.history, url=before.history.url),
    )


def need_restart(paths: list[str]) -> list[str]:
    """Those of these paths that take effect with a restart only."""
    return [path for path in paths if path in NEEDS_RESTART]


def _differing(before: object, after: object, path: str) -> Iterator[str]:
    if before == after:
        return
    if isinstance(before, Section) and type(before) is type(after):
        for name in before.__struct_fields__:
            yield from _differing(getattr(before, name), getattr(after, name), f"{path}.{name}" if path else name)
    elif isinstance(before, list) and isinstance(after, list) and _alike(before, after):
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _differing(old, new, f"{path}[{number}]")
    else:
        yield path


def _alike(before: list[object], after: list[object]) -> bool:
    return len(before) == len(after) and bool(before) and isinstance(before[0], Section)
