"""Where files by month stand: a folder, or a bucket that speaks S3. A file is whole under its name, or not there."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Protocol

from taximeter.core.errors import ConfigError, TaximeterError

if TYPE_CHECKING:
    from obstore.store import RetryConfig, S3Store

S3 = "s3://"
LEFT_S = 86_400.0
"""A file that was begun so long ago is nobody's any more."""
VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ALLOW_HTTP", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
)  # fmt: skip
"""What an `env_file` may say of a bucket. Others (roles of containers and machines) obstore finds by itself."""


_RETRIES: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}
"""Of one request: an endpoint that never answers is told after a minute or two, and not after four."""


class CannotExport(TaximeterError):
    """Where files were to be put, nothing can be."""


class Place(Protocol):
    """Names have `/` between their parts. All raise CannotExport."""

    def get(self, name: str) -> bytes | None: ...
    def size(self, name: str) -> int | None: ...
    def put(self, name: str, made: Path) -> None: ...


def place(to: str, environ: Mapping[str, str] = os.environ) -> Place:
    """`s3://bucket/prefix`, or the path of a folder. `environ`: who says how to reach a bucket. Raises ConfigError."""
    if not to.startswith(S3):
        return Folder(Path(to))
    bucket, _, prefix = to.removeprefix(S3).partition("/")
    if not bucket:
        raise ConfigError(f"{to!r} names no bucket: s3://bucket/prefix.")
    try:
        from obstore.store import S3Store
    except ImportError:
        raise ConfigError(f"{to} needs obstore: pip install 'taximeter[s3]'") from None
    try:
        given: Any = {name.lower(): environ[name] for name in VARIABLES if environ.get(name)}
        store = S3Store(bucket, prefix=prefix.strip("/") or None, config=given, retry_config=_RETRIES)
        return Bucket(store, to)
    except Exception as error:  # obstore's errors share no other base
        raise ConfigError(f"{to}: {_first_line(error)}. AWS_… in the environment says how to reach it.") from None


class Folder:
    """A folder, made where it is missing."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, name: str) -> bytes | None:
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CannotExport(f"{self._root / name}: cannot be read: {error.strerror}") from error

    def size(self, name: str) -> int | None:
        """In bytes; None: there is no such file."""
        try:
            return (self._root / name).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CannotExport(f"{self._root / name}: cannot be read: {error.strerror}") from error

    def put(self, name: str, made: Path) -> None:
        """Durable before it takes its name. Several nodes may do so at once, with the same process id in containers."""
        path = self._root / name
        fresh = path.with_name(f".{path.name}.{token_hex(8)}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(path)
            with made.open("rb") as source, fresh.open("wb") as file:
                shutil.copyfileobj(source, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError as error:
            raise CannotExport(f"{path}: cannot be written: {error.strerror}") from error
        finally:
            with suppress(OSError):
                fresh.unlink()


def _sweep(path: Path) -> None:
    """Let go what was begun for this file and left by a node that was killed."""
    for left in path.parent.glob(f".{path.name}.*.part"):
        with suppress(OSError):
            if left.stat().st_mtime < time.time() - LEFT_S:
                left.unlink()


class Bucket:
    """Objects of a bucket; a large one is sent in parts, and is there when the last has come."""

    def __init__(self, store: S3Store, to: str) -> None:
        self._store = store
        self._to = to

    def get(self, name: str) -> bytes | None:
        try:
            return bytes(self._store.get(name).bytes())
        except FileNotFoundError:
            return None
        except Exception as error:  # obstore's errors share no other base
            raise CannotExport(f"{self._to}: {name} cannot be read: {_first_line(error)}") from error

    def size(self, name: str) -> int | None:
        """In bytes; None: there is no such object."""
        try:
            return int(self._store.head(name)["size"])
        except FileNotFoundError:
            return None
        except Exception as error:  # obstore's errors share no other base
            raise CannotExport(f"{self._to}: {name} cannot be read: {_first_line(error)}") from error

    def put(self, name: str, made: Path) -> None:
        try:
            self._store.put(name, made)
        except Exception as error:  # obstore's errors share no other base
            raise CannotExport(f"{self._to}: {name} cannot be written: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
