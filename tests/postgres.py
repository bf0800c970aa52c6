"""A private PostgreSQL cluster for tests, from the system's packages; on a unix socket, so no port is taken."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import psycopg

from waits import CAP_S


def binaries() -> Path | None:
    """Where initdb and postgres are installed; None where they are not."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and on_path:
        return Path(on_path).resolve().parent
    return found[-1].parent if found else None


class Postgres:
    """`with Postgres() as server: server.database()` -> URL of a new, empty database."""

    def __init__(self) -> None:
        bin_dir = binaries()
        if bin_dir is None:
            raise FileNotFoundError("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
        self._bin = bin_dir
        # The server refuses to run as root: then it runs as the packages' own user.
        self._user = "postgres" if os.getuid() == 0 else None
        self._made = 0

    def __enter__(self) -> Self:
        self._dir = Path(tempfile.mkdtemp(prefix="taximeter-pg-"))
        if self._user:
            entry = pwd.getpwnam(self._user)
            os.chown(self._dir, entry.pw_uid, entry.pw_gid)
        data = str(self._dir / "data")
        subprocess.run(
            [self._bin / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"],
            check=True, capture_output=True, user=self._user, cwd=self._dir,
        )  # fmt: skip
        settings = ["listen_addresses=", f"unix_socket_directories={self._dir}", "fsync=off", "shared_buffers=32MB"]
        flags = [part for setting in settings for part in ("-c", setting)]
        start = ["start", "-w", "-t", f"{CAP_S:.0f}", "-D", data, "-l", str(self._dir / "log"), "-o", _quoted(flags)]
        subprocess.run(
            [self._bin / "pg_ctl", *start], check=True, stdout=subprocess.DEVNULL, user=self._user, cwd=self._dir
        )
        return self

    def __exit__(self, *_: object) -> None:
        stop = [str(self._bin / "pg_ctl"), "stop", "-m", "immediate", "-D", str(self._dir / "data")]
        subprocess.run(stop, check=True, stdout=subprocess.DEVNULL, user=self._user, cwd=self._dir)
        shutil.rmtree(self._dir)

    @property
    def folder(self) -> Path:
        """Where its socket is."""
        return self._dir

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self._dir}"

    def database(self, icu: str = "") -> str:
        """The URL of a new database. `icu`: the language by whose rules it compares text."""
        self._made += 1
        name = f"test_{self._made}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            rules = f" TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE '{icu}'" if icu else ""
            connection.execute(f"CREATE DATABASE {name}{rules}")
        return self.url(name)


def _quoted(flags: list[str]) -> str:
    return " ".join(f"'{flag}'" for flag in flags)
