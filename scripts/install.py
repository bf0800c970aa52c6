"""Installs Taximeter into .venv exactly as the lock files say; `make install`, `demo` and `test` call it first.

    python3 scripts/install.py             # what `taximeter serve` and `taximeter demo` need
    python3 scripts/install.py --dev       # what tests and checks need, too
    python3 scripts/install.py --venv DIR --lock FILE    # another environment, without Taximeter itself

The lock is installed, never resolved: every package is named with its version and hash, and nothing an index has
published since is even looked at. uv does it (pinned, from the same index, by hash); where uv has no wheel, pip.
Standard library only, and it must at least say one sentence on any Python 3.7 and newer.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 11)

UV_LOCK = ROOT / "requirements-uv.lock"
BUILD_LOCK = ROOT / "requirements-build.lock"
RUN_LOCK = ROOT / "requirements.lock"
DEV_LOCK = ROOT / "requirements-dev.lock"

# A lock names whole sets: nothing else may be asked for, and nothing may be built that a lock has no wheel of.
EXACTLY = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]


class CannotInstall(Exception):
    """Why, and what to do, in one sentence."""


def main() -> None:
    """Install; one line about each step."""
    parser = argparse.ArgumentParser(description="Install exactly what the lock files say.")
    parser.add_argument("--dev", action="store_true", help="also what tests and checks need")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where to (default: .venv)")
    parser.add_argument("--lock", type=Path, help="install this lock file, and not Taximeter")
    asked = parser.parse_args()
    try:
        refuse_unfit(sys.version_info[:3], importlib.util.find_spec)
        Installation(asked.venv).install(asked.dev, asked.lock)
    except CannotInstall as error:
        sys.exit(f"Cannot install: {error}")


def refuse_unfit(version: tuple[int, ...], find_spec: Callable[[str], object]) -> None:
    """Raises CannotInstall where this interpreter cannot make the environment."""
    if version[:2] < OLDEST:
        raise CannotInstall(
            f"Taximeter needs Python {OLDEST[0]}.{OLDEST[1]} or newer, and {sys.executable} is "
            f"{'.'.join(map(str, version))}. Name another one: make install PYTHON=/path/to/python3"
        )
    missing = [name for name in ("venv", "ensurepip") if find_spec(name) is None]
    if missing:
        raise CannotInstall(
            f"{sys.executable} has no {' and no '.join(missing)}, which make the environment. On Debian and Ubuntu: "
            f"apt-get install python{version[0]}.{version[1]}-venv; or name another Python: make install PYTHON=…"
        )


class Installation:
    """One environment; `python` is its interpreter."""

    def __init__(self, venv: Path) -> None:
        self.venv = venv
        self.python = venv / "bin" / "python"

    def install(self, dev: bool, lock: Path | None) -> None:
        """Bring the environment to what the locks say. Raises CannotInstall."""
        started = time.monotonic()
        if not self.python.exists():
            say(f"making {shown(self.venv)} with Python {sys.version.split()[0]}")
            self._run([sys.executable, "-m", "venv", str(self.venv)], "The environment could not be made")
        dev = dev or self._stamp(dev=True).exists()  # never takes away again what --dev brought
        locks = [lock] if lock else [DEV_LOCK if dev else RUN_LOCK, BUILD_LOCK]
        environ = {**os.environ, **self._same_index()}
        uv = self._uv(environ)
        names = sorted({name for file in locks for name in locked(file)})
        say(f"installing {len(names)} packages with {'uv' if uv else 'pip; this takes a minute'}")
        if uv:
            self._uv_sync(uv, locks, environ)
        else:
            files = [part for file in locks for part in ("-r", str(file))]
            self._pip([*EXACTLY, *files], environ)
        if not lock:
            self._install_taximeter(uv, environ)
            for stamp in {self._stamp(dev=False), self._stamp(dev=dev)}:
                stamp.touch()
        say(f"installed in {time.monotonic() - started:.0f} s")

    def _uv(self, environ: dict[str, str]) -> str | None:
        """The pinned uv inside the environment, or None: there is no wheel of it for this machine."""
        [(_, version)] = locked(UV_LOCK).items()
        uv = self.venv / "bin" / "uv"
        if not uv.exists() or version not in self._output([str(uv), "--version"]):
            say(f"fetching uv {version}, which installs the rest")
            pip = [str(self.python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *EXACTLY]
            tried = subprocess.run(
                [*pip, "-r", str(UV_LOCK)],
                env=environ, check=False, capture_output=True, text=True,
            )  # fmt: skip
            if tried.returncode:
                last = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
                say(f"uv {version} cannot be had here ({last})")
                return None
        return str(uv)

    def _uv_sync(self, uv: str, locks: list[Path], environ: dict[str, str]) -> None:
        # Byte code now: an environment with PYTHONDONTWRITEBYTECODE would compile everything again at each start.
        command = [uv, "pip", "sync", "-q", "--no-config", "--compile-bytecode", "--require-hashes", "--no-build"]
        self._run([*command, "--python", str(self.python), *map(str, locks)], "uv could not install", environ)

    def _pip(self, arguments: list[str], environ: dict[str, str]) -> None:
        pip = [str(self.python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--compile"]
        self._run([*pip, *arguments], "pip could not install", environ)

    def _install_taximeter(self, uv: str | None, environ: dict[str, str]) -> None:
        """The sources as they stand here, built with the locked tools, so that no index is asked."""
        own = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
        if uv:
            command = [uv, "pip", "install", "-q", "--no-config", "--offline", "--python", str(self.python), *own]
            self._run(command, "Taximeter itself could not be installed", environ)
        else:
            self._pip(["--no-index", *own], environ)
        self._run([str(self.python), "-m", "compileall", "-q", str(ROOT / "proxy")], "Byte code could not be written")

    def _same_index(self) -> dict[str, str]:
        """pip and uv have settings of their own for a mirror and its certificate: what one is told holds for both."""
        settings = self._output([str(self.python), "-m", "pip", "config", "list"])
        told = dict(re.findall(r"^\S*?\.([a-z-]+)='(.*)'$", settings, re.MULTILINE))
        found: dict[str, str] = {}
        uv_index = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL")
        if uv_index and "index-url" not in told:
            found["PIP_INDEX_URL"] = uv_index
        if not uv_index and "index-url" in told:
            found["UV_DEFAULT_INDEX"] = told["index-url"]
        if "cert" in told and "SSL_CERT_FILE" not in os.environ:
            found["SSL_CERT_FILE"] = told["cert"]
        return found

    def _stamp(self, dev: bool) -> Path:
        return self.venv / (".installed-dev" if dev else ".installed")

    def _run(self, command: list[str], what: str, environ: dict[str, str] | None = None) -> None:
        done = subprocess.run(command, env=environ, check=False)
        if done.returncode:
            raise CannotInstall(
                f"{what} (the lines above say why). Behind a mirror set PIP_INDEX_URL or UV_INDEX_URL; "
                "what is missing is fetched when you try again."
            )

    @staticmethod
    def _output(command: list[str]) -> str:
        return subprocess.run(command, check=False, capture_output=True, text=True).stdout


def locked(lock: Path) -> dict[str, str]:
    """Each package of a lock file and its version. One locked for several platforms or Pythons counts once."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE))


def shown(path: Path) -> str:
    """A path as one types it here."""
    return os.path.relpath(path)


def say(what: str) -> None:
    """One line of progress, at once."""
    print(f"install: {what}", flush=True)


if __name__ == "__main__":
    main()
