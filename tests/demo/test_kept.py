"""`make demo KEEP=1`: what it prints, and what the README shows, can be typed as it stands."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path

import pytest

from kept_demo import Terminal, lines, tool_folder
from taximeter.config import Settings
from taximeter.demo import hints
from taximeter.node.datadir import Runtime
from waits import until

README = Path(__file__).parents[2] / "README.md"
SECTION = README.read_text().partition("## Where the numbers are")[2].partition("\n## ")[0]
SHOWN = re.findall(r"^\$ (.+)\n((?:(?!\$ |```).*\n)+)", SECTION, re.MULTILINE)
"""(line to type, what it prints)"""

pytestmark = [
    pytest.mark.xdist_group("processes"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs network namespaces, or 8000 and 8001 free"),
]


def test_every_line_of_the_readme_prints_what_it_shows(tmp_path: Path) -> None:
    assert len(SHOWN) >= 5
    terminal = Terminal(tmp_path)
    with terminal.kept(PATH=tool_folder(tmp_path / "bin", "curl")) as said:
        told = said.replace(str(Path(sys.executable)), ".venv/bin/python")
        assert lines(told) == [line for line, _ in SHOWN]
        for line, output in SHOWN:
            until(partial(shows, terminal, line, output), line)
    assert not (tmp_path / "data-demo").exists()


def shows(terminal: Terminal, line: str, output: str) -> bool:
    return is_as_shown(terminal.type(line).stdout, output)


def is_as_shown(printed: str, shown: str) -> bool:
    """`…` stands for anything; line breaks and blanks are as the page has room for."""
    parts = ["".join(part.split()) for part in shown.split("…")]
    return bool(re.fullmatch(".*".join(map(re.escape, parts)), "".join(printed.split())))


@pytest.mark.parametrize(
    ("printed", "shown", "same"),
    [
        ('{"a": 1, "b": 2}\n', '{"a":1,\n "b":2}', True),
        ('{"a": 1, "b": 2}\n', '{"a":1, …', True),
        ('{"a": 1, "b": 2}\n', '{"a":2, …', False),
        ("a 1\nb 2\n", "b 2", False),
        ("a 1\nb 2\n", "… b 2", True),
        ("", "a 1", False),
    ],
)
def test_the_comparison_can_fail(printed: str, shown: str, same: bool) -> None:
    assert is_as_shown(printed, shown) is same


def test_a_second_demo_beside_the_first_says_how_it_is_asked(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    with terminal.kept() as first, terminal.kept(1) as second:
        assert "http://127.0.0.1:8001/" in first
        assert "in use" not in first
        assert "127.0.0.1:8000 or 127.0.0.1:8001 is in use by another program: this demo took other ports." in second
        assert "data-demo is another demo's or cannot be used: this demo took another folder." in second
        assert len(lines(second)) == len(lines(first)) == len(SHOWN)
        for one, other in zip(lines(first), lines(second), strict=True):
            assert one != other
            done = [terminal.type(one), terminal.type(other)]
            assert [each.returncode for each in done] == [0, 0], done
            assert done[0].stdout and done[1].stdout, done


def test_tools_that_are_there_are_used_and_no_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    runtime = Runtime(
        pid=1, version="", node="", listen="127.0.0.1:1", admin_listen="127.0.0.1:2", workers=1, redis_url="",
        redis_url_file="", started_at=0,
    )  # fmt: skip
    every = "\n".join(hints.lines(runtime, Path("data-demo"), found=True, has=lambda _: True))
    none = "\n".join(hints.lines(runtime, tmp_path / "a folder", found=False, has=lambda _: None))
    for line in re.findall(r"^    (\S.*)$", SECTION, re.MULTILINE):  # what the page says of the tools
        assert line in every
    assert "redis-cli" not in none
    assert not re.search("^sqlite3", none, re.MULTILINE)
    assert "--url http://127.0.0.1:2" in none
    assert "--url" not in every


@pytest.mark.parametrize(
    ("script", "on_path", "said"),
    [
        (".venv/bin/taximeter", False, ".venv/bin/taximeter"),
        (".venv/bin/taximeter", True, "taximeter"),
        (".venv/taximeter/__main__.py", False, ".venv/bin/taximeter"),
    ],
)
def test_it_says_how_to_call_taximeter_as_it_was_called(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, on_path: bool, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ".venv/bin"
    folder.mkdir(parents=True)
    (folder / "taximeter").touch(0o755)
    monkeypatch.setattr(sys, "argv", [script])
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", str(folder if on_path else tmp_path))
    assert hints.command() == said
    (folder / "taximeter").unlink()
    monkeypatch.setattr(sys, "argv", ["-m"])
    assert hints.command() == ".venv/bin/python -m taximeter"


def test_the_documented_addresses_are_the_default_ones() -> None:
    assert (Settings().listen, Settings().admin_listen) == ("127.0.0.1:8000", "127.0.0.1:8001")
