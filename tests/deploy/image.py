"""The image, built by buildah without a container engine, and run as a container engine runs it.

The base of the Dockerfile comes from a registry; here one is made of this system's own Debian packages. A run has a
read-only root, its own mounts and process ids, the image's user, command and variables, and no capability.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.tools import REPO

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PACKAGES = "python3,python3-venv,ca-certificates"
MOUNTS = """
mount --make-rprivate /
mount --bind "$ROOT" "$INTO" && mount -o remount,bind,ro "$INTO"
mount --bind "$DATA" "$INTO/data"
mount -t tmpfs tmpfs "$INTO/tmp"
mount -t proc proc "$INTO/proc"
mount -t tmpfs tmpfs "$INTO/dev"
for device in null zero random urandom; do
  touch "$INTO/dev/$device"
  mount --bind "/dev/$device" "$INTO/dev/$device"
done
exec chroot "$INTO" setpriv --reuid "$USER_ID" --regid "$USER_ID" --clear-groups --no-new-privs --bounding-set=-all \
  env -i HOME=/data "$@"
"""


class CannotBuild(Exception):
    """Why an image cannot be built here."""


def why_not() -> str:
    """Why this machine cannot build an image; empty: it can."""
    if os.geteuid() != 0:
        return "building an image needs root"
    missing = [name for name in ("buildah", "unshare", "setpriv") if shutil.which(name) is None]
    if not (shutil.which("mmdebstrap") or shutil.which("debootstrap")):
        missing.append("mmdebstrap")
    if missing:
        return f"{' and '.join(missing)} are not installed (Debian: apt install buildah mmdebstrap)"
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], check=False, capture_output=True).returncode:
        return "this machine lets nobody have mounts of his own"
    return ""


@dataclass
class Buildah:
    """Its own storage, so that nothing of the machine's is touched."""

    folder: Path

    def __call__(self, *arguments: str | Path) -> str:
        storage = ["--root", self.folder / "root", "--runroot", self.folder / "run"]
        command = ["buildah", *map(str, [*storage, *arguments])]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(f"{' '.join(command)}:\n{(done.stdout + done.stderr)[-4000:]}")
        return done.stdout.strip()


@contextmanager
def buildah() -> Iterator[Buildah]:
    """Not below pytest's folder, which pytest may clear while something is mounted there."""
    folder = Path(tempfile.mkdtemp(prefix="taximeter-image-"))
    made = Buildah(folder)
    try:
        yield made
    finally:
        made("umount", "--all")
        made("rm", "--all")
        made("rmi", "--all", "--force")
        subprocess.run(["umount", "-q", folder / "root/overlay"], check=False)
        shutil.rmtree(folder)


def make_base(build: Buildah) -> str:
    """A base of this system's release with Python. Raises CannotBuild where its packages cannot be had."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    name = release.get("VERSION_CODENAME", "").strip('"')
    container = build("from", "scratch")
    tree = build("mount", container)
    if shutil.which("mmdebstrap"):
        lean = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale")]
        command = ["mmdebstrap", "-q", "--mode=root", "--skip=check/empty", *lean]
    else:
        command = ["debootstrap"]
    command += ["--variant=minbase", f"--include={PACKAGES}", name, tree]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise CannotBuild(f"{command[0]} could not make a base: {(done.stderr or done.stdout).strip()[-500:]}")
    build("commit", "-q", container, "localhost/base")
    build("rm", container)
    return "localhost/base"


def build_image(build: Buildah, base: str, **arguments: str) -> str:
    """`docker build` of the repository. pip finds its index, and whom to trust, as it does on this machine."""
    ask = ["python3", "-m", "pip", "config", "list"]
    told = subprocess.run(ask, check=False, capture_output=True, text=True).stdout
    settings = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
    lines = ["[global]", f"cert = {CERTIFICATES}"]
    for name in ("index-url", "timeout"):
        for where in (f"global.{name}", f":env:.{name}"):
            if where in settings:
                lines.append(f"{name} = {settings[where].strip(chr(39))}")
                break
    (build.folder / "pip.conf").write_text("\n".join(lines) + "\n")
    volumes = [f"--volume={build.folder}/pip.conf:/etc/pip.conf:ro", f"--volume={CERTIFICATES}:{CERTIFICATES}:ro"]
    given = [f"--build-arg={name}={value}" for name, value in {"PYTHON_IMAGE": base, **arguments}.items()]
    how = ["--isolation=chroot", "--format=docker", "--pull-never", *volumes, *given]
    build("bud", *how, "-t", "localhost/taximeter", REPO)
    return "localhost/taximeter"


@dataclass
class Image:
    """A built image, its root mounted at `root`."""

    build: Buildah
    root: Path
    config: dict[str, object]

    @classmethod
    def of(cls, build: Buildah, name: str) -> Image:
        config = json.loads(build("inspect", "--type=image", name))["Docker"]["config"]
        return cls(build, Path(build("mount", build("from", "--pull-never", name))), config)

    def command(self, data: Path, variables: dict[str, str], *arguments: str) -> tuple[list[str], dict[str, str]]:
        """Command line and environment of a run, with these arguments instead of the image's own."""
        entry, own, given = self.config["Entrypoint"], self.config["Cmd"], self.config["Env"]
        assert isinstance(entry, list) and isinstance(own, list) and isinstance(given, list)
        into = self.build.folder / "into"
        into.mkdir(exist_ok=True)
        user = str(self.config["User"]).partition(":")[0]
        told = [*given, *(f"{name}={value}" for name, value in variables.items())]
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", MOUNTS, "sh"]
        where = {"ROOT": str(self.root), "INTO": str(into), "DATA": str(data), "USER_ID": user}
        return [*command, *told, *entry, *(arguments or own)], {"PATH": os.environ["PATH"], **where}

    def run(self, data: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """To its end."""
        command, environ = self.command(data, variables, *arguments)
        return subprocess.run(command, env=environ, check=False, capture_output=True, text=True)

    @asynccontextmanager
    async def serving(self, data: Path, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """Until the block ends, from when it says that it is ready; then it must end by itself, with 0."""
        command, environ = self.command(data, variables)
        process = await asyncio.create_subprocess_exec(*command, env=environ, stdout=asyncio.subprocess.PIPE)
        assert process.stdout
        try:
            said = b""
            while b"is ready" not in said:
                line = await process.stdout.readline()
                assert line, said.decode()
                said += line
            yield process
            [inside] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(inside), signal.SIGTERM)
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
