"""`env_file`: variables that stand over the process's environment, and can change while it runs.

A file of NAME=value lines, as systemd's EnvironmentFile= and `docker --env-file` have it; or a folder with a file for
each variable, as a mounted Kubernetes Secret, `/run/secrets` and systemd's credentials have it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from taximeter.core.errors import ConfigError

VARIABLE = "TAXIMETER_ENV_FILE"
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_is_variable = re.compile(r"[A-Za-z_][A-Za-z0-9_]*").fullmatch
_QUOTES = ("'", '"')


def environment(env_file: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What is in force: `environ`, and over it what `env_file` holds ("" names none). Raises ConfigError."""
    return {**environ, **variables(env_file)}


def variables(env_file: str) -> dict[str, str]:
    """What the file or folder holds; a value in quotes loses them. Raises ConfigError, which shows no value."""
    if not env_file:
        return {}
    path = Path(env_file)
    try:
        found = _of_folder(path) if path.is_dir() else _of_file(path)
    except OSError as error:
        raise ConfigError(f"env_file: {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"env_file: {path} is not UTF-8 text (at byte {error.start}).") from error
    for name, value in found.items():
        if "\0" in value:
            raise ConfigError(f"env_file: {path}: the value of {name} holds a NUL, which no variable can.")
    return found


def _of_folder(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.iterdir() if _is_variable(path.name) and path.is_file())
    return {path.name: path.read_text(encoding="utf-8").rstrip("\r\n") for path in files}


def _of_file(path: Path) -> dict[str, str]:
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith(("#", ";")):
            continue
        said = _LINE.fullmatch(text)
        if said is None:
            raise ConfigError(f"env_file: {path}, line {number}: not NAME=value.")
        name, value = said[1], said[2].strip()
        if len(value) > 1 and value[0] in _QUOTES and value[-1] == value[0]:
            value = value[1:-1]
        found[name] = value
    return found
