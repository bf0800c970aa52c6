"""Machines that lack something: each gets what it asked for, or one sentence that says what to do."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from install.checkout import as_locked, checkout, environment, installed, offline, run
from install.conftest import ROOT, normal, release

pytestmark = pytest.mark.timeout(600)
SCRIPT = ROOT / "scripts/install.py"


@pytest.fixture(scope="session")
def mirror(wheels: Path) -> Iterator[str]:
    """All that is locked."""
    with serving(wheels) as url:
        yield url


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A package index on loopback (PEP 503) of a folder's wheels: the URL of its list."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Mirror, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()


class Mirror(SimpleHTTPRequestHandler):
    """`/simple/NAME/` lists a package's files, `/FILE` is one."""

    def do_GET(self) -> None:
        if not self.path.startswith("/simple/"):
            super().do_GET()
            return
        wanted = self.path.removeprefix("/simple/").strip("/")
        files = [file.name for file in Path(self.directory).iterdir() if normal(file.name.split("-")[0]) == wanted]
        page = "".join(f'<a href="/{name}">{name}</a>' for name in files).encode()
        self.send_response(200 if files else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: Any) -> None:
        pass


NOWHERE = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
"""No index but one on loopback can be reached."""


@pytest.mark.parametrize("setting", ["PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX"])
def test_behind_a_mirror_one_setting_is_enough_for_pip_and_uv(setting: str, mirror: str, tmp_path: Path) -> None:
    folder = checkout(tmp_path / "taximeter")
    environ = environment(tmp_path / "home", **NOWHERE, **{setting: mirror})
    done = run(["make", ".venv/.installed"], folder, environ)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "packages with uv" in done.stdout
    assert "litestar" in installed(folder / ".venv")


def test_a_mirror_in_pips_settings_file_is_enough(mirror: str, tmp_path: Path) -> None:
    folder = checkout(tmp_path / "taximeter")
    settings = tmp_path / "pip.conf"
    settings.write_text(f"[global]\nindex-url = {mirror}\n")
    environ = environment(tmp_path / "home", **NOWHERE, PIP_CONFIG_FILE=str(settings))
    done = run(["make", ".venv/.installed"], folder, environ)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "packages with uv" in done.stdout


def test_no_index_in_reach_is_one_sentence_and_the_next_try_goes_on(wheels: Path, tmp_path: Path) -> None:
    folder = checkout(tmp_path / "taximeter")
    away = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "UV_HTTP_RETRIES": "0"}
    done = run(["make", "demo"], folder, environment(tmp_path / "home", **away))
    assert done.returncode != 0
    [said] = [line for line in done.stdout.splitlines() if line.startswith("Cannot install: ")]
    assert "Behind a mirror set PIP_INDEX_URL or UV_INDEX_URL" in said
    assert "Traceback" not in done.stdout
    again = run(["make", ".venv/.installed"], folder, environment(tmp_path / "home", **offline(wheels)))
    assert again.returncode == 0, again.stdout[-3000:]


@pytest.mark.parametrize("setting", ["UV_EXTRA_INDEX_URL", "UV_INDEX", "PIP_EXTRA_INDEX_URL"])
def test_a_second_index_with_other_versions_changes_nothing(
    setting: str, wheels: Path, mirror: str, tmp_path: Path
) -> None:
    """As a company's own, or PyTorch's, is laid beside the usual one."""
    second = tmp_path / "second"
    second.mkdir()
    for name in ("litestar", "uv"):
        release(second, name, "999.0")
    with serving(second) as other:
        folder = checkout(tmp_path / "taximeter")
        environ = environment(tmp_path / "home", **NOWHERE, PIP_INDEX_URL=mirror, **{setting: other})
        done = run(["make", ".venv/.installed"], folder, environ)
    assert done.returncode == 0, done.stdout[-3000:]
    assert installed(folder / ".venv")["litestar"] == as_locked()["litestar"]


def test_settings_that_would_install_something_else_or_elsewhere_are_not_heeded(wheels: Path, tmp_path: Path) -> None:
    none_of_it = tmp_path / "constraint"
    none_of_it.write_text("litestar<1\n")
    elsewhere = str(tmp_path / "elsewhere")
    pip = {"USER": "1", "TARGET": elsewhere, "PREFIX": elsewhere, "DRY_RUN": "1", "CONSTRAINT": str(none_of_it)}
    uv = {"EXCLUDE_NEWER": "2020-01-01", "CONSTRAINT": str(none_of_it), "REQUIRE_HASHES": "1", "NO_BINARY": "1"}
    told = {f"PIP_{name}": value for name, value in pip.items()} | {f"UV_{name}": value for name, value in uv.items()}
    folder = checkout(tmp_path / "taximeter")
    environ = environment(tmp_path / "home", **offline(wheels), **told, VIRTUAL_ENV=elsewhere)
    done = run(["make", "demo"], folder, environ)
    assert done.returncode == 0, done.stdout[-3000:]
    assert not Path(elsewhere).exists()


def test_an_environment_that_was_never_finished_is_made_anew(wheels: Path, tmp_path: Path) -> None:
    """Ctrl-C while it was made: there is a Python in it, and no pip."""
    folder = checkout(tmp_path / "taximeter")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / ".venv")], check=True)
    done = run(["make", ".venv/.installed"], folder, environment(tmp_path / "home", **offline(wheels)))
    assert done.returncode == 0, done.stdout[-3000:]


def test_two_at_once_come_one_after_the_other(wheels: Path, tmp_path: Path) -> None:
    folder = checkout(tmp_path / "taximeter")
    environ = environment(tmp_path / "home", **offline(wheels))
    done = run(["make", "-j2", ".venv/.installed", ".venv/.installed-dev"], folder, environ)
    assert done.returncode == 0, done.stdout[-3000:]
    assert {"pytest", "litestar"} <= installed(folder / ".venv").keys()


def refusal(version: tuple[int, int, int], absent: tuple[str, ...]) -> str:
    """What the script says and exits with for an interpreter of this version without these modules."""
    program = (
        "import runpy, sys, importlib.util as util\n"
        f"there, sys.version_info = util.find_spec, {version!r}\n"
        f"util.find_spec = lambda name: None if name in {absent!r} else there(name)\n"
        f"sys.argv = ['install.py', '--venv', '/nowhere/venv']; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, ""), done
    return done.stderr.strip()


def test_an_old_python_is_told_which_it_takes() -> None:
    said = refusal((3, 10, 12), ())
    assert said.startswith("Cannot install: Taximeter needs Python 3.11 or newer, and ")
    assert said.endswith("is 3.10.12. Name another one: make install PYTHON=/path/to/python3")


@pytest.mark.parametrize("absent", [("ensurepip",), ("venv", "ensurepip")])
def test_a_python_without_venv_is_told_which_package_brings_it(absent: tuple[str, ...]) -> None:
    said = refusal((3, 11, 2), absent)
    assert f"has no {' and no '.join(absent)}, which make the environment" in said
    assert "apt-get install python3.11-venv" in said
    assert len(said.splitlines()) == 1


def test_old_pythons_can_read_the_script_that_refuses_them() -> None:
    ast.parse(SCRIPT.read_text().split("class CannotInstall")[0], feature_version=(3, 6))


def test_without_make_the_script_does_the_same(wheels: Path, tmp_path: Path) -> None:
    """As the README says it."""
    folder = checkout(tmp_path / "taximeter")
    environ = environment(tmp_path / "home", **offline(wheels))
    for line in ("python3 scripts/install.py", ".venv/bin/taximeter demo"):
        assert f"`{line}`" in (ROOT / "README.md").read_text()
        done = run(line.replace("python3", sys.executable, 1).split(), folder, environ)
        assert done.returncode == 0, done.stdout[-3000:]
    assert "agree to the token and to the nano-dollar" in done.stdout
