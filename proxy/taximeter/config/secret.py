"""Secrets that settings name: read when they are needed, never kept in settings.

The one that nodes share (`auth.shared_secret_env`, `…_file`), and what a credential has to be to be sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from taximeter.config.settings import AuthSettings, ReconcileSettings
from taximeter.core.errors import ConfigError

SHORTEST_BYTES = 32
"""Whoever reads Redis has what was sealed and can try secrets at leisure."""


def sendable(credential: str) -> bool:
    """Whether a header can hold it (RFC 9110: printable ASCII); blanks around it do not count."""
    return credential.strip().isascii() and credential.strip().isprintable()


def shared_secrets(auth: AuthSettings, environ: Mapping[str, str]) -> list[bytes]:
    """The secrets, the one that seals first; none where none is set. Several are separated by white space.

    Raises ConfigError where it is named and not there, or too short.
    """
    if auth.shared_secret_env:
        where = f"auth.shared_secret_env: the environment variable {auth.shared_secret_env}"
        text = environ.get(auth.shared_secret_env, "").encode()
    elif auth.shared_secret_file:
        where = f"auth.shared_secret_file: {auth.shared_secret_file}"
        try:
            text = Path(auth.shared_secret_file).read_bytes()
        except OSError as error:
            raise ConfigError(f"{where} cannot be read: {error.strerror}.") from error
    else:
        return []
    found = text.split()
    if not found:
        raise ConfigError(f"{where} holds no secret.")
    if min(map(len, found)) < SHORTEST_BYTES:
        raise ConfigError(f"{where}: a secret needs at least {SHORTEST_BYTES} characters (openssl rand -hex 32).")
    return found


def reconcile_credential(settings: ReconcileSettings, path: str, environ: Mapping[str, str]) -> str:
    """The credential of a `[[reconcile]]`; "": a file needs none. `path`: of these settings.

    Raises ConfigError where it is named and not there, or cannot be sent.
    """
    if settings.api_key_env:
        where = f"{path}.api_key_env: the environment variable {settings.api_key_env}"
        found = environ.get(settings.api_key_env, "")
    elif settings.api_key_file:
        where = f"{path}.api_key_file: {settings.api_key_file}"
        try:
            found = Path(settings.api_key_file).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{where} cannot be read: {error}.") from error
    else:
        return ""
    if not found.strip():
        raise ConfigError(f"{where} holds no credential.")
    if not sendable(found):
        raise ConfigError(f"{where} can stand in no header: it must be printable ASCII, in one line.")
    return found.strip()
