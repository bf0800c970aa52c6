"""Asks whether what the lock files name is known to be bad; what `make audit` calls.

- pip-audit, against PyPI's advisories (it stands in an environment of its own, by a lock of its own);
- the index itself: a release that its maintainers have withdrawn since ("yanked") is named with their reason.

Exit 1: something was found. Where the advisories cannot be reached (a mirror, no network) that is said aloud, and only
what could be asked counts. Standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from install import ROOT, locked

VENV = ROOT / ".venv-audit"
AUDIT_LOCK = ROOT / "requirements-audit.lock"
LOCKS = sorted(ROOT.glob("requirements*.lock"))
ANSWER_S = 30
JSON = "application/vnd.pypi.simple.v1+json"  # PEP 691


def main() -> None:
    """Both questions, whatever the first says."""
    install = [sys.executable, str(ROOT / "scripts/install.py"), "--venv", str(VENV), "--lock", str(AUDIT_LOCK)]
    subprocess.run(install, check=True)
    pins = {(name, version) for lock in LOCKS for name, version in locked(lock).items()}
    found = [*withdrawn(sorted(pins), index_url()), *vulnerable()]
    for one in found:
        print(f"audit: {one}")
    sys.exit(1 if found else 0)


def vulnerable() -> list[str]:
    """What pip-audit knows against each lock: package, version, advisory and the version that mends it."""
    found: set[str] = set()
    asked = unknown = 0
    for lock in LOCKS:
        audit = [str(VENV / "bin/pip-audit"), "--disable-pip", "--require-hashes", "--format", "json", "-r", str(lock)]
        done = subprocess.run(audit, check=False, capture_output=True, text=True)
        if not done.stdout.startswith("{"):
            print(f"audit: {lock.name} NOT audited: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
            continue
        for package in json.loads(done.stdout)["dependencies"]:
            asked += 1
            unknown += "skip_reason" in package
            for bad in package.get("vulns", ()):
                mended = ", ".join(bad["fix_versions"]) or "no release yet"
                found.add(f"{package['name']} {package['version']} has {bad['id']}; mended in {mended}")
    print(f"audit: {asked - unknown} packages compared with the advisories")
    if unknown:
        print(f"audit: {unknown} NOT compared: the advisories cannot be reached from here, or do not know the package")
    return sorted(found)


def withdrawn(pins: list[tuple[str, str]], index: str) -> list[str]:
    """The locked releases that the index calls yanked."""
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda pin: _yanked(index, *pin), pins))
    asked = [answer for answer in answers if answer is not None]
    print(f"audit: {len(asked)} of {len(pins)} releases looked up in the index for having been withdrawn")
    return [answer for answer in asked if answer]


def _yanked(index: str, name: str, version: str) -> str | None:
    """What to say of a withdrawn release, "" of one in good standing; None: the index does not tell."""
    request = urllib.request.Request(f"{index}/{name}/", headers={"Accept": JSON})  # noqa: S310 - the index's own URL
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:  # noqa: S310
            files = json.load(answer)["files"]
    except (urllib.error.URLError, OSError, ValueError, KeyError):
        return None
    stems = tuple(f"{spelt}-{version}" for spelt in {name, name.replace("-", "_"), name.replace("_", "-")})
    ours = [file for file in files if file["filename"].lower().startswith(tuple(stem.lower() for stem in stems))]
    reasons = [file["yanked"] for file in ours if file.get("yanked")]
    if not ours or len(reasons) < len(ours):
        return "" if ours else None
    why = reasons[0] if isinstance(reasons[0], str) else "no reason given"
    return f"{name} {version} was withdrawn by its maintainers: {why}"


def index_url() -> str:
    """The index that pip uses here, without a trailing slash."""
    python = str(VENV / "bin/python")
    told = _output([python, "-m", "pip", "config", "get", "global.index-url"])
    # pip has no command that tells its own default.
    default = _output([python, "-c", "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"])
    return (os.environ.get("PIP_INDEX_URL") or told or default).rstrip("/")


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
