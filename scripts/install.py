"""Installs Taximeter into .venv exactly as the lock files say; `make install`, `demo` and `test` call it first.

    python3 scripts/install.py             # what `taximeter serve` and `taximeter demo` need
    python3 scripts/install.py --dev       # what tests and checks need, too
    python3 scripts/install.py --venv DIR --lock FILE    # another environment, without Taximeter itself

The lock is installed, never resolved: every package is named with its version and hash, and nothing an index has
published since is even looked at. uv does it (pinned, from the same index, by hash); where uv has no wheel, pip.
Settings of pip and uv about where packages come from are heeded, and no others: what they may add, leave out or put
elsewhere is not for an installation that is to be the same everywhere.

Standard library only. Any Python 3 can read it up to where it is refused.
"""

import argparse
import fcntl
import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

OLDEST = (3, 11)
if sys.version_info[:2] < OLDEST:  # here, before anything that an older Python cannot read
    sys.exit(
        f"Cannot install: Taximeter needs Python {OLDEST[0]}.{OLDEST[1]} or newer, and {sys.executable} is "
        f"{'.'.join(map(str, sys.version_info[:3]))}. Name another one: make install PYTHON=/path/to/python3"
    )

ROOT = Path(__file__).resolve().parents[1]
UV_LOCK = ROOT / "requirements-uv.lock"
BUILD_LOCK = ROOT / "requirements-build.lock"
RUN_LOCK = ROOT / "requirements.lock"
DEV_LOCK = ROOT / "requirements-dev.lock"

# A lock names whole sets: nothing else may be asked for, and nothing may be built that a lock has no wheel of.
EXACTLY = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]

# pip's settings that are heeded, and what the same is called for uv.
PIP = {
    **{"index-url": "UV_DEFAULT_INDEX", "no-index": "UV_NO_INDEX", "find-links": "UV_FIND_LINKS"},
    **{"trusted-host": "UV_INSECURE_HOST", "cert": "SSL_CERT_FILE", "proxy": "ALL_PROXY"},
    **dict.fromkeys(("extra-index-url", "client-cert", "timeout", "default-timeout", "retries"), ""),
    **dict.fromkeys(("cache-dir", "no-cache-dir", "keyring-provider", "use-feature"), ""),
}
UV = (
    *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_NO_INDEX", "UV_FIND_LINKS", "UV_INSECURE_HOST"),
    *("UV_HTTP_", "UV_REQUEST_TIMEOUT", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_KEYRING_PROVIDER", "UV_OFFLINE"),
    *("UV_CACHE_DIR", "UV_NO_CACHE", "UV_LINK_MODE", "UV_CONCURRENT_"),
)
"""How the names begin of uv's settings that are heeded; UV_INDEX covers UV_INDEX_URL and an index's credentials."""


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
        with Path(__file__).open() as alone:  # two at once, as of `make -j2 demo check`, come one after the other
            fcntl.flock(alone, fcntl.LOCK_EX)
            Installation(asked.venv).install(asked.dev, asked.lock)
    except CannotInstall as error:
        sys.exit(f"Cannot install: {error}")


class Installation:
    """One environment; `python` is its interpreter."""

    def __init__(self, venv: Path) -> None:
        self.venv = venv
        self.python = venv / "bin" / "python"

    def install(self, dev: bool, lock: Path | None) -> None:
        """Bring the environment to what the locks say. Raises CannotInstall."""
        started = time.monotonic()
        if not self._is_usable():
            self._make()
        dev = dev or self._stamp(dev=True).exists()  # never takes away again what --dev brought
        locks = [lock] if lock else [DEV_LOCK if dev else RUN_LOCK, BUILD_LOCK]
        environ = self._sources()
        uv = self._uv(environ)
        names = {name for file in locks for name in locked(file)}
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

    def _is_usable(self) -> bool:
        """Not where it was never finished, or is of a Python that is too old."""
        look = f"import pip, sys; sys.exit(sys.version_info < {OLDEST})"
        return self.python.exists() and not subprocess.run(
            [str(self.python), "-c", look], check=False, capture_output=True
        ).returncode  # fmt: skip

    def _make(self) -> None:
        missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
        if missing:
            raise CannotInstall(
                f"{sys.executable} has no {' and no '.join(missing)}, which make the environment. On Debian and Ubuntu "
                f"apt-get install python{sys.version_info[0]}.{sys.version_info[1]}-venv brings it; or name another "
                "Python: make install PYTHON=…"
            )
        say(f"making {shown(self.venv)} with Python {sys.version.split()[0]}")
        self._run([sys.executable, "-m", "venv", "--clear", str(self.venv)], "The environment could not be made")

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
            if tried.returncode or not uv.exists():
                last = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
                say(f"uv {version} cannot be had here ({last})")
                return None
        return str(uv)

    def _uv_sync(self, uv: str, locks: list[Path], environ: dict[str, str]) -> None:
        # Byte code now: an environment with PYTHONDONTWRITEBYTECODE would compile everything again at each start.
        command = [uv, "pip", "sync", "-q", "--no-config", "--compile-bytecode", "--require-hashes", "--no-build"]
        # One of several indexes may hold other versions of a name: the hash says which file is meant.
        command += ["--index-strategy", "unsafe-best-match"]
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

    def _sources(self) -> dict[str, str]:
        """The environment for pip and uv: what either is told of an index and the way there holds for both."""
        told = self._output([str(self.python), "-m", "pip", "config", "list"])  # settings files and PIP_… together
        found = re.findall(r"^\S*?\.([a-z-]+)='(.*)'$", told, re.MULTILINE)
        pip = {name: value for name, value in found if name in PIP}
        uv = {name: value for name, value in os.environ.items() if name.startswith(UV)}
        index = uv.get("UV_DEFAULT_INDEX") or uv.get("UV_INDEX_URL")
        if index:
            pip.setdefault("index-url", index)
        for name, same in PIP.items():
            if same and name in pip and not (name == "index-url" and index):
                uv.setdefault(same, pip[name])
        others = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
        as_variables = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in pip.items()}
        return {**uv, **others, **as_variables, "PIP_CONFIG_FILE": os.devnull}

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
