"""docs/evidence.md is true: its commands are run in their order, and what they print is what it shows.

To write the page's outputs anew after a change: TAXIMETER_WRITE_DOCS=1 pytest tests/evidence/test_page.py
"""

import os
import re
import shlex
import sqlite3
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import update

from evidence_ledger import DAY_US, ONE, OTHER, Books, calls_of
from ledger import T0
from taximeter.cli import main
from taximeter.evidence import keys
from taximeter.sinks.history.schema import meta

PAGE = Path(__file__).parents[2] / "docs" / "evidence.md"
BLOCK = re.compile(r"```console\n((?:(?!```).*\n)*)```")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command of the page in a folder with a node's data; returns what it prints and its exit code."""
    (tmp_path / "data").mkdir()
    books = Books(f"sqlite:///{tmp_path}/data/history.db", tmp_path / "data")
    with books.database:
        books.deliver(ONE, calls_of(5))
        books.deliver(OTHER, calls_of(3, "other", workspace="beta"))
        with books.database.writing() as connection:
            connection.execute(update(meta).where(meta.c.name == "id").values(value="0123456789abcdef" * 2))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "time_ns", lambda: (T0 + DAY_US) * 1_000)
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    monkeypatch.setattr(keys, "generate", lambda path: keys.write(path, private))
    env = {"COLUMNS": "160", "TAXIMETER_DATA_DIR": "data", "TAXIMETER_EVIDENCE__KEY_FILE": "evidence-key.pem"}

    def run_it(command):
        name, *args = shlex.split(command)
        if name == "sqlite3":
            with sqlite3.connect(args[0]) as connection:
                connection.execute(args[1])
            return "", 0
        result = CliRunner(env=env).invoke(main, args)
        text = result.output.replace(f"{tmp_path}/", "")
        return "".join(f"{line.rstrip()}\n" for line in text.splitlines()), result.exit_code

    return run_it


def test_every_command_prints_what_the_page_shows(run):
    page, codes = PAGE.read_text(), []

    def anew(block):
        lines = []
        for command in re.findall(r"(?m)^\$ (.*)$", block[1]):
            text, code = run(command)
            codes.append(code)
            lines.append(f"$ {command}\n{text}")
        return f"```console\n{''.join(lines)}```"

    found = BLOCK.sub(anew, page)
    if os.environ.get("TAXIMETER_WRITE_DOCS"):
        PAGE.write_text(found)
    else:
        assert found == page
    assert codes == [0] * (len(codes) - 1) + [1]  # what was changed, the last one finds


def test_errors_say_what_to_do(run, tmp_path):
    for command, problem in (
        ("taximeter receipt", "Name a request, or --check FILE."),
        ("taximeter receipt nobody", "Nothing is recorded of the request 'nobody'"),
        ("taximeter receipt req-1 --workspace beta", "Nothing is recorded of the request 'req-1'"),
        ("taximeter receipt req-1", "its record is under no root yet"),
        ("taximeter evidence seal", "evidence-key.pem cannot be read"),
        ("taximeter verify --history sqlite:///none.db", "There is no history database"),
        ("taximeter verify --public-key data/history.db", "no public key can be read from it"),
        ("taximeter verify --root 12ab --history sqlite:///data/history.db", "a SHA-256 has 64 hex digits"),
        ("taximeter export -o x.evidence --model m --history sqlite:///data/history.db", "leave other filters out"),
    ):
        text, code = run(command)
        assert problem in text and code in (1, 2, 4), (command, text)
    assert run("taximeter evidence keygen evidence-key.pem")[1] == 0
    assert (tmp_path / "evidence-key.pem").stat().st_mode & 0o777 == 0o600
    assert "is there already" in run("taximeter evidence keygen evidence-key.pem")[0]
    assert run("taximeter evidence seal")[1] == 0
    assert run("taximeter evidence seal")[0] == "There is nothing that is under no root.\n"
    exported = "taximeter export -o x.evidence --from 2025-11-22 --to 2025-11-23 --history sqlite:///data/history.db"
    assert run(exported)[1] == 0
    (signed,) = [line.split()[-1] for line in run("taximeter evidence roots")[0].splitlines() if line[:1] == "1"]
    assert run(f"taximeter verify x.evidence --root {signed}")[1] == 0
    text, code = run(f"taximeter verify x.evidence --root {signed} --root {'0' * 64}")
    assert "root missing" in text and code == 1
    text, code = run("taximeter verify x.evidence --from 2025-11-01")
    assert "that period is not in it" in text and code == 2
    assert run("taximeter verify x.evidence --from 2025-11-22T08:00:00Z --json")[1] == 0
    Path("x.evidence").write_bytes(Path("x.evidence").read_bytes().replace(b"27000", b"26000", 1))
    text, code = run("taximeter verify x.evidence")
    assert "record changed" in text and code == 1


def test_check_says_whether_the_key_can_be_read(run, tmp_path):
    text, _ = run("taximeter check")
    assert "evidence.key_file: evidence-key.pem cannot be read" in text
    assert "taximeter evidence keygen FILE" in text
    run("taximeter evidence keygen evidence-key.pem")
    assert "cannot be read" not in run("taximeter check")[0]
    (tmp_path / "evidence-key.pem").write_text("no key")
    assert "holds no private key" in run("taximeter check")[0]


def test_a_key_in_the_environment_may_have_blanks_for_its_line_breaks(run, tmp_path):
    run("taximeter evidence keygen evidence-key.pem")
    env = {"TAXIMETER_DATA_DIR": "data", "TAXIMETER_EVIDENCE__KEY_ENV": "SIGNING"}
    one_line = (tmp_path / "evidence-key.pem").read_text().replace("\n", " ")
    assert "ok     the key that signs" in CliRunner(env=env | {"SIGNING": one_line}).invoke(main, ["check"]).output
    text = CliRunner(env=env | {"SIGNING": "no key"}).invoke(main, ["check"]).output
    assert "evidence.key_env (SIGNING) holds no private key" in text and "evidence.key_file\n" not in text
