"""Variables from a file or folder, over the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from taximeter.config import load, load_found
from taximeter.config.envfile import environment, variables
from taximeter.core.errors import ConfigError


def test_lines_as_systemd_and_docker_have_them(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# a comment\n\nA=one\nexport B = no\n".replace("B = no", "B='two words'") + 'C="x=y#z"\nD=\n')
    assert variables(str(file)) == {"A": "one", "B": "two words", "C": "x=y#z", "D": ""}


def test_a_folder_has_a_file_for_each_variable(tmp_path: Path) -> None:
    (tmp_path / "KEY").write_text("sk-1\n")
    (tmp_path / "..data").mkdir()
    (tmp_path / "not-a-name").write_text("x")
    assert variables(str(tmp_path)) == {"KEY": "sk-1"}


def test_it_stands_over_the_environment_for_references_names_and_settings(tmp_path: Path) -> None:
    env, file = tmp_path / "env", tmp_path / "taximeter.toml"
    env.write_text("PASSWORD=new\nTAXIMETER_WORKERS=3\n")
    file.write_text('env_file = "${FOLDER}/env"\n[redis]\nurl = "redis://:${PASSWORD}@h/0"\n')
    settings, found = load_found(file, {"PASSWORD": "old", "FOLDER": str(tmp_path)})
    assert (settings.redis.url, settings.workers) == ("redis://:new@h/0", 3)
    assert (found.env_file, found.variables) == (env, ["TAXIMETER_WORKERS"])
    assert environment(settings.env_file, {"PASSWORD": "old"})["PASSWORD"] == "new"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"A=1\nsk-secret-alone\n", r"env, line 2: not NAME=value\.$"),
        (b"A=\xff", "not UTF-8"),
        (b"A=sk-secret\0x", "A holds a NUL"),
    ],
)
def test_what_cannot_be_read_is_refused_without_showing_it(tmp_path: Path, text: bytes, why: str) -> None:
    (tmp_path / "env").write_bytes(text)
    with pytest.raises(ConfigError, match=why) as told:
        load(None, {"TAXIMETER_ENV_FILE": str(tmp_path / "env")})
    assert "sk-secret" not in str(told.value)


def test_one_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"env_file: .*none cannot be read: No such file"):
        load(None, {"TAXIMETER_ENV_FILE": str(tmp_path / "none")})
