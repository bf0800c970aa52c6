"""A folder that stands for the package index: each locked wheel, and newer versions of some."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = [ROOT / f"requirements{kind}.lock" for kind in ("-dev", "-build", "-uv", "")]


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every wheel that the locks name for this machine, from the index the machine uses."""
    folder = tmp_path_factory.mktemp("wheels")
    exactly = ["-q", "--disable-pip-version-check", "--no-cache-dir", "--no-deps", "--require-hashes"]
    for lock in LOCKS[:-1]:  # the development lock holds all of the run-time lock
        pip = [sys.executable, "-m", "pip", "download", *exactly, "--only-binary", ":all:", "-d", str(folder)]
        done = subprocess.run([*pip, "-r", str(lock)], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="session")
def a_week_later(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder after a newer version came out of each package that another one asks for with an extra."""
    folder = tmp_path_factory.mktemp("later") / "wheels"
    shutil.copytree(wheels, folder)
    asked = {name for file in wheels.glob("*.whl") for name in asked_with_an_extra(file)}
    locked = {normal(name): version for lock in LOCKS for name, version in pins(lock).items()}
    newer = [name for name in asked if name in locked]
    assert newer, "no locked package asks for another with an extra: choose what else to lay a newer version of"
    for name in newer:
        release(folder, name, f"{locked[name]}.post1")
    return folder


@pytest.fixture(scope="session")
def without_uv(a_week_later: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That folder for a machine that uv has no wheel for."""
    folder = tmp_path_factory.mktemp("no-uv") / "wheels"
    shutil.copytree(a_week_later, folder)
    for wheel in folder.glob("uv-*.whl"):
        wheel.unlink()
    return folder


def pins(lock: Path) -> dict[str, str]:
    """Each package of a lock file and its version."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE))


def normal(name: str) -> str:
    """A package's name as PEP 503 spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def asked_with_an_extra(wheel: Path) -> set[str]:
    """The packages a wheel requires with one of their extras, as `google-auth[requests]`."""
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        told = archive.read(metadata).decode()
    found = re.findall(r"^Requires-Dist: ([A-Za-z0-9._-]+)\s*\[[^\]]+\](.*)$", told, re.MULTILINE)
    return {normal(name) for name, rest in found if "extra ==" not in rest}


def release(folder: Path, name: str, version: str) -> None:
    """A wheel of this package and version with nothing in it but that it exists, with every extra asked for."""
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nProvides-Extra: requests\n"
    files = {
        f"{stem}.dist-info/METADATA": metadata,
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in files.items())
    files[f"{stem}.dist-info/RECORD"] = f"{record}{stem}.dist-info/RECORD,,\n"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
