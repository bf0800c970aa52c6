"""Names of environment variables: which are settings, which are other programs', and what a wrong one may mean.

A name that is ignored is worse than one that is refused: TAXIMETER_AUTH_MODE=keys, with one underscore, would leave a
proxy open that its owner believes closed. Knows names and the values Kubernetes gives; reads no settings.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterator, Mapping

import msgspec

from taximeter.config.settings import Section, Settings
from taximeter.core.errors import ConfigError

PREFIX = "TAXIMETER_"

TOOLS = frozenset(
    PREFIX + name
    for name in (
        *("URL", "ADMIN_TOKEN", "KEY", "PROXY"),  # the verbs
        *("PROXY_URL", "TOKEN", "WORKSPACES", "POINT", "STRICT"),  # taximeter-rag, which may share our environment
        *("CORPUS", "CHROMIUM", "BENCH_PEERS", "WRITE_DOCS"),  # tests and benchmarks
    )
)
"""Names with our prefix that are not settings."""

_MEANT = {"TAXIMETER_PORT": "TAXIMETER_LISTEN", "TAXIMETER_HOST": "TAXIMETER_LISTEN"}
"""What other programs call it."""

_LINK = r"(?:tcp|udp|sctp)://\S+:\d+"
_KUBERNETES = tuple(
    (re.compile(rf"TAXIMETER(?:_[A-Z0-9_]+)?_{name}"), re.compile(value))
    for name, value in (
        ("SERVICE_HOST", r"[0-9a-fA-F.:]+"),
        ("SERVICE_PORT(?:_[A-Z0-9_]+)?", r"\d+"),
        ("PORT", _LINK),
        (r"PORT_\d+_(?:TCP|UDP|SCTP)", _LINK),
        (r"PORT_\d+_(?:TCP|UDP|SCTP)_PROTO", "tcp|udp|sctp"),
        (r"PORT_\d+_(?:TCP|UDP|SCTP)_PORT", r"\d+"),
        (r"PORT_\d+_(?:TCP|UDP|SCTP)_ADDR", r"[0-9a-fA-F.:]+"),
    )
)
"""(name, value) of what Kubernetes adds to each container for a Service called taximeter or taximeter-…

Source: kubernetes/pkg/kubelet/envvars/envvars.go. Values tell them from a mistake: TAXIMETER_PORT=8000 is one.
"""


def settings_among(environ: Mapping[str, str]) -> list[str]:
    """The variables that are settings, sorted. Raises ConfigError on one that looks like ours and is not."""
    ours = [name for name in sorted(environ) if name.upper().startswith(PREFIX) and name not in TOOLS]
    known = dict(_variables(Settings, PREFIX)) if ours else {}
    found = []
    for name in ours:
        if _is_setting(name, known):
            found.append(name)
        elif not _is_kubernetes(name, environ[name]):
            raise ConfigError(f"{name}: there is no such setting. {_hint(name, known)}")
    return found


def _is_kubernetes(name: str, value: str) -> bool:
    return any(names.fullmatch(name) and values.fullmatch(value) for names, values in _KUBERNETES)


def _is_setting(name: str, known: Mapping[str, bool]) -> bool:
    if not name.startswith(PREFIX):  # taximeter_workers: names are upper case here, and nothing would read it
        return False
    asked = _numbered(name.upper())[0]
    return asked in known or any(asked.startswith(f"{each}__") for each, is_open in known.items() if is_open)


def _variables(section: type, prefix: str) -> Iterator[tuple[str, bool]]:
    """Every setting's variable, an entry's number as 0; whether names of one's own may follow it (tags.headers)."""
    hints = typing.get_type_hints(section)
    for field in msgspec.structs.fields(section):
        kind, name = hints[field.name], prefix + field.name.upper()
        element = next(iter(typing.get_args(kind)), None)
        yield name, typing.get_origin(kind) is dict
        if _is_section(kind):
            yield from _variables(kind, f"{name}__")
        elif typing.get_origin(kind) is list:
            yield f"{name}__0", False
            if element is not None and _is_section(element):
                yield from _variables(element, f"{name}__0__")


def _is_section(kind: typing.Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _letters(name: str) -> str:
    """What is compared: without the prefix, which all share, and with single underscores."""
    return re.sub("_+", "_", name).removeprefix(PREFIX)


_NUMBER = re.compile(r"(?<=_)\d+(?=_|$)")


def _numbered(name: str) -> tuple[str, list[str]]:
    """Each entry's number as 0, and these numbers: `…__2__MODELS__1` -> (`…__0__MODELS__0`, ["2", "1"])."""
    return _NUMBER.sub("0", name), _NUMBER.findall(name)


def _with_numbers(name: str, numbers: list[str]) -> str:
    """The reverse, for a known name; what has none left keeps its 0."""
    left = iter(numbers)
    return _NUMBER.sub(lambda zero: next(left, zero[0]), name)


def _hint(name: str, known: Mapping[str, bool]) -> str:
    """The nearest right name: what is meant elsewhere, or lacks its section, else what is spelled alike."""
    asked, numbers = _numbered(name.upper())
    sections = {PREFIX + name.upper() for name, kind in typing.get_type_hints(Settings).items() if _is_section(kind)}
    # Nobody means a whole section: TAXIMETER_PORT is not TAXIMETER_OTEL.
    by_letters = {_letters(each): each for each in (*known, *sorted(TOOLS)) if each not in sections}
    near = difflib.get_close_matches(_letters(asked), by_letters, n=1, cutoff=0.7)
    without_section = [each for each in known if each.endswith(f"__{_letters(asked)}")]
    if asked in _MEANT or len(without_section) == 1:
        return f"Did you mean {_MEANT.get(asked) or without_section[0]}?"
    if not near:
        return "Each setting is TAXIMETER_ and its name, with two underscores after a section: TAXIMETER_REDIS__URL."
    return f"Did you mean {_with_numbers(by_letters[near[0]], numbers)}?"
