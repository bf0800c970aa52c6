"""From a TOML file and the environment to Settings; a refusal names where, which setting, which value, what is allowed.

Knows types and spelling; what values mean together is checks.py.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from taximeter.config import checks, envfile
from taximeter.config.addresses import masked
from taximeter.config.found import FILES, Found, find
from taximeter.config.names import PREFIX, settings_among
from taximeter.config.settings import Section, Settings, Usd
from taximeter.core.errors import ConfigError

_REFERENCE = re.compile(r"\$(\$)?\{([A-Za-z_][A-Za-z0-9_]*)\}")
_DATA_DIR = re.compile(r"""^\s*data_dir\s*=\s*["'](.+?)["']""", re.MULTILINE)


def read(path: Path | None, environ: Mapping[str, str]) -> tuple[Settings, Found]:
    """See `taximeter.config.load`; and where they come from."""
    reader = _Reader(path, environ)
    settings = reader.settings()
    checks.check(settings, reader.origin)
    return settings, reader.found


def data_dir(path: Path | None, environ: Mapping[str, str]) -> str:
    """Where the data directory probably is, though something else in the settings is wrong. Raises nothing."""
    named = environ.get(f"{PREFIX}DATA_DIR")
    if named is None:
        file = path or next((each for each in FILES if each.is_file()), None)
        try:
            text = file.read_text(encoding="utf-8") if file else ""
        except (OSError, UnicodeDecodeError):
            text = ""
        said = _DATA_DIR.search(text.partition("\n[")[0])  # the file may be no TOML
        named = said[1] if said else Settings().data_dir
    return _REFERENCE.sub(lambda reference: environ.get(reference[2], ""), named)


class _Reader:
    def __init__(self, path: Path | None, environ: Mapping[str, str]) -> None:
        self.variables: dict[str, str] = {}
        """Path of a setting -> the environment variable it came from."""
        self.found = replace(find(path, environ), places=self.variables)
        self.tree = _read_toml(self.found.file) if self.found.file else {}
        self.environ = environ
        named = environ.get(envfile.VARIABLE) or self.tree.get("env_file")
        env_file = self._filled(named, "env_file") if isinstance(named, str) else ""  # what is no text is refused later
        self.environ = envfile.environment(env_file, environ)
        self.found = replace(
            self.found,
            variables=settings_among(self.environ),
            env_file=Path(env_file) if env_file else None,
        )

    def settings(self) -> Settings:
        self._take_aliases()
        self._take_environment()
        settings: Settings = self._section(Settings, self.tree, "")
        return settings

    def origin(self, path: str) -> str:
        """The variable or file a setting came from."""
        return self.found.where(path)

    def _take_aliases(self) -> None:
        """The billing backend's own names (DESIGN §8), weaker than the settings themselves."""
        webhook = self.tree.setdefault("webhook", {})
        if not isinstance(webhook, dict):
            return  # refused as no table
        for variable, key in (("BIZNDER_API_BASE_URL", "url"), ("BIZNDER_SERVICE_TOKEN", "token_env")):
            if self.environ.get(variable) and not webhook.get(key):
                webhook[key] = self.environ[variable] if key == "url" else variable
                self.variables[f"webhook.{key}"] = variable

    def _take_environment(self) -> None:
        """TAXIMETER_REDIS__URL -> redis.url; TAXIMETER_UPSTREAM__0__MODELS -> upstream[0].models."""
        # Sorted, a whole list (TAXIMETER_UPSTREAM) comes before a part of it (TAXIMETER_UPSTREAM__0__NAME).
        for variable in self.found.variables:
            self._put(variable.removeprefix(PREFIX).lower().split("__"), variable)

    def _put(self, steps: list[str], variable: str) -> None:
        at: typing.Any = self.tree
        path = ""
        for number, step in enumerate(steps):
            key: str | int = step
            if isinstance(at, list):
                if not step.isdigit() or int(step) > len(at):
                    raise ConfigError(f"{variable}: {step!r} is no place in {path}, which has {len(at)} entries.")
                key = int(step)
                at.extend([{}] * (key == len(at)))
            elif not isinstance(at, dict):
                raise ConfigError(f"{variable}: {path} is a single value and has no parts.")
            path = _join(path, key)
            if number == len(steps) - 1:
                at[key] = self.environ[variable]
                self.variables[path] = variable
            elif isinstance(at, list):
                at = at[int(key)]
            else:
                at = at.setdefault(key, [] if steps[number + 1].isdigit() else {})
                if isinstance(at, str):  # a whole list or table that came as text: now a part of it is replaced
                    raise ConfigError(f"{variable}: {path} is already given as a whole by {self.origin(path)}.")

    def _section(self, kind: type[typing.Any], table: object, path: str) -> typing.Any:
        if isinstance(table, str):
            table = self._parsed(table, path)
        if not isinstance(table, dict):
            raise self._refused(table, path, f"a table: [{path}]")
        kinds = typing.get_type_hints(kind, include_extras=True)
        values = {}
        for key, value in table.items():
            at = _join(path, key)
            if key not in kinds:
                raise ConfigError(f"{self.origin(at)}: {at}: there is no such setting. {_hint(key, list(kinds))}")
            values[key] = self._value(kinds[key], value, at)
        missing = [field.name for field in msgspec.structs.fields(kind) if field.required and field.name not in values]
        if missing:
            raise ConfigError(f"{self.origin(path)}: {path}: {' and '.join(missing)} must be given.")
        return kind(**values)

    def _value(self, kind: typing.Any, value: object, path: str) -> object:
        if isinstance(value, str):
            value = self._filled(value, path)
        if isinstance(kind, type) and issubclass(kind, Section):
            return self._section(kind, value, path)
        origin, (*_, element) = typing.get_origin(kind), typing.get_args(kind) or (None,)
        if origin in (list, dict) and isinstance(value, str):
            value = self._parsed(value, path)
        if origin is list and isinstance(value, list):
            return [self._value(element, item, _join(path, number)) for number, item in enumerate(value)]
        if origin is dict and isinstance(value, dict):
            return {key: self._value(element, item, _join(path, key)) for key, item in value.items()}
        try:
            return msgspec.convert(value, kind, strict=not isinstance(value, str))  # text may spell a number
        except msgspec.ValidationError:
            raise self._refused(value, path, _allowed(kind, path)) from None

    def _filled(self, text: str, path: str) -> str:
        """`${NAME}` -> the variable's value; `$${NAME}` stays `${NAME}`."""

        def fill(reference: re.Match[str]) -> str:
            if reference[1]:
                return reference[0][1:]
            if reference[2] not in self.environ:
                raise ConfigError(f"{self.origin(path)}: {path}: environment variable {reference[2]} is not set.")
            return self.environ[reference[2]]

        return _REFERENCE.sub(fill, text)

    def _parsed(self, text: str, path: str) -> object:
        """A list or table written in one variable, as JSON or as a TOML value."""
        try:
            return json.loads(text)
        except ValueError:
            pass
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            raise self._refused(text, path, "a list or table, as JSON or as a TOML value") from None

    def _refused(self, value: object, path: str, allowed: str) -> ConfigError:
        shown = "***" if path.endswith("sha256") else masked(repr(value))  # may be the secret itself, misplaced
        return ConfigError(f"{self.origin(path)}: {path}: {shown} is not allowed; it must be {allowed}.")


def _read_toml(path: Path) -> dict[str, typing.Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (at byte {error.start}).") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}.") from error


def _join(path: str, key: str | int) -> str:
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def _allowed(kind: typing.Any, path: str) -> str:
    """What a setting of this type takes, in words."""
    base, *metas = typing.get_args(kind) if typing.get_origin(kind) is typing.Annotated else (kind,)
    origin = typing.get_origin(base)
    if origin is typing.Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in typing.get_args(base))
    if origin is list:
        return f"a list of tables: [[{path}]]" if issubclass(typing.get_args(base)[0], Section) else "a list of texts"
    if origin is dict:
        return "a table of texts" if typing.get_args(base)[1] is str else "a table of whole numbers"
    if base == Usd:
        return "an amount of USD"
    said = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[base]
    for meta in metas:
        bounds = (("over", meta.gt), ("at least", meta.ge), ("at most", meta.le))
        said += "".join(f", {word} {bound}" for word, bound in bounds if bound is not None)
    return said


def _hint(key: str, names: list[str]) -> str:
    near = difflib.get_close_matches(key, names, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(sorted(names))}."
