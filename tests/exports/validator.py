"""Brings the official validator of FOCUS: .venv-focus, from requirements-focus.lock.

    .venv/bin/python tests/exports/validator.py

It needs Python 3.12, brings DuckDB, polars and pandas (550 MB on disk), and is no wheel: too much for everybody who
types `make test`. Without it the test that needs it is skipped, aloud; `.ci/run` has it where a Python 3.12 is found.
The lock is made by `uv pip compile --python-version 3.12 --generate-hashes --no-emit-index-url` from the .in file.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
VENV = REPO / ".venv-focus"
VALIDATOR = VENV / "bin/focus-validator"
BRINGS = ".venv/bin/python tests/exports/validator.py brings it, where there is a Python 3.12"
APPLIES = (
    "ACCOUNT_NAMING_SUPPORTED", "MULTIPLE_PRICING_CATEGORIES_SUPPORTED", "NEGOTIATED_PRICING_SUPPORTED",
    "PUBLIC_PRICE_LIST_SUPPORTED", "USAGE_MEASUREMENT_SUPPORTED", "UNIT_PRICING_SUPPORTED", "SUB_ACCOUNT_SUPPORTED",
    "REGION_SUPPORTED", "TAGGING_SUPPORTED",
)  # fmt: skip
"""What there is of all that a provider may have: no availability zones, no commitments, one currency."""


def python() -> str | None:
    """A Python 3.12 or newer, or None."""
    names = [f"python3.{minor}" for minor in (12, 13, 14)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found = [shutil.which(name) for name in names] + [str(each) for each in sorted(pyenv.glob("3.1[2-4].*/bin/python"))]
    look = "import sys; sys.exit(not (3, 12) <= sys.version_info < (3, 15))"
    for each in filter(None, found):
        if not subprocess.run([each, "-c", look], check=False, capture_output=True).returncode:
            return each
    return None


def make() -> None:
    """Create the environment as its lock says; says so where no Python is new enough."""
    which = python()
    if which is None:
        print("there is no Python 3.12 here: the FOCUS export is not validated")
        return
    uv = str(REPO / ".venv/bin/uv")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYENV_VERSION")}
    if not VENV.exists():
        subprocess.run([uv, "venv", "-q", "--python", which, str(VENV)], check=True, env=environ)
    lock = str(HERE / "requirements-focus.lock")
    sync = [uv, "pip", "sync", "-q", "--python", str(VENV / "bin/python"), "--require-hashes", lock]
    subprocess.run(sync, check=True, env=environ)


def failures(file: Path, only: str = "") -> tuple[set[str], int]:
    """(rules of FOCUS 1.2 that the file breaks, how many it keeps). `only`: of the rules with this in their name."""
    [rules] = VENV.glob("lib/python*/site-packages/focus_validator/rules/model-1.2.0.1.json")
    told = subprocess.run(
        [VALIDATOR, "--data-file", file, "--validate-version", "1.2", "--block-download",
         "--applicability-criteria", ",".join(APPLIES),
         *(["--filter-rules", only] if only else [])],
        cwd=rules.parents[2], capture_output=True, text=True, check=False,  # it looks for its currencies from there
    ).stdout  # fmt: skip
    return set(re.findall(r"❌ ([\w-]+): FAIL", told)), told.count("✅")


if __name__ == "__main__":
    make()
