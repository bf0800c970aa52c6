"""The lock is installed, never resolved: what an index has published since changes nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from install.checkout import as_locked, checkout, environment, installed, offline, run
from install.conftest import LOCKS, ROOT, normal, pins

pytestmark = pytest.mark.timeout(900)
LOCK_OF = {"demo": ROOT / "requirements.lock", "install": ROOT / "requirements-dev.lock"}


@pytest.mark.parametrize("target", ["demo", "install"])
@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_week_old_lock_installs_as_on_its_first_day(
    target: str, installer: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """`make` itself, in an empty checkout, with the interpreter's own pip: it finds newer versions and leaves them."""
    wheels: Path = request.getfixturevalue("a_week_later" if installer == "uv" else "without_uv")
    folder = checkout(tmp_path / "taximeter")
    done = run(["make", target], folder, environment(tmp_path / "home", **offline(wheels)))
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"packages with {installer}" in done.stdout
    there = installed(folder / ".venv")
    assert {name: version for name, version in there.items() if as_locked()[name] != version} == {}
    assert {normal(name) for name in for_this_machine(LOCK_OF[target])} <= there.keys()
    if target == "demo":
        assert there.keys().isdisjoint({"openai", "playwright", "pyarrow", "pytest"})
        assert "agree to the token and to the nano-dollar" in done.stdout


def test_byte_code_is_there_before_the_first_start(a_week_later: Path, tmp_path: Path) -> None:
    """Also where PYTHONDONTWRITEBYTECODE is set, as `environment` sets it."""
    folder = checkout(tmp_path / "taximeter")
    done = run(["make", "-s", ".venv/.installed"], folder, environment(tmp_path / "home", **offline(a_week_later)))
    assert done.returncode == 0, done.stdout[-3000:]
    [packages] = (folder / ".venv").glob("lib/python*/site-packages")
    for sources in (packages / "litestar", packages / "redis", folder / "proxy/taximeter"):
        missing = [str(file) for file in sources.rglob("*.py") if not list(_compiled(file))]
        assert missing == []


def _compiled(source: Path) -> list[Path]:
    return list((source.parent / "__pycache__").glob(f"{source.stem}.*.pyc"))


def for_this_machine(lock: Path) -> set[str]:
    """What a lock names without a condition: what has one may be for another platform or Python."""
    lines = lock.read_text().splitlines()
    return {line.partition("==")[0] for line in lines if "==" in line and line[0].isalnum() and ";" not in line}


def test_the_locks_agree_with_each_other() -> None:
    """One environment is made of several: a package has one version in all, and development holds all of run-time."""
    versions: dict[str, set[str]] = {}
    for lock in LOCKS:
        for name, version in pins(lock).items():
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}
    assert pins(ROOT / "requirements.lock").keys() <= pins(ROOT / "requirements-dev.lock").keys()


def test_no_lock_names_where_its_packages_were_found() -> None:
    locks = sorted(map(str, ROOT.glob("requirements*.lock")))
    assert len(locks) > len(LOCKS)
    found = subprocess.run(["grep", "-lE", "://", *locks], check=False, capture_output=True, text=True)
    assert found.stdout == ""
