"""Completion, by a real bash with what `taximeter completion bash` prints."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from taximeter.cli import VERBS, main

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash is installed")
def test_bash_completes_verbs_and_options(tmp_path):
    command = tmp_path / "taximeter"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m taximeter "$@"\n')
    command.chmod(0o755)
    script = """
        eval "$(taximeter completion bash)"
        complete -p taximeter >/dev/null || exit 9
        COMP_WORDS=(taximeter by-); COMP_CWORD=1; _taximeter_completion taximeter; printf '%s\\n' "${COMPREPLY[@]}"
        COMPREPLY=(); COMP_WORDS=(taximeter keys rotate --ov); COMP_CWORD=3; _taximeter_completion taximeter
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "proxy")}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [*(verb for verb in VERBS if verb.startswith("by-")), "--overlap"]


@pytest.mark.parametrize(
    ("shell", "place"),
    [
        ("bash", ".local/share/bash-completion/completions/taximeter"),
        ("zsh", ".local/share/zsh/site-functions/_taximeter"),
        ("fish", ".config/fish/completions/taximeter.fish"),
    ],
)
def test_it_is_put_where_the_shell_looks(shell, place, tmp_path):
    env = {"HOME": str(tmp_path), "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": ""}
    printed = CliRunner(env=env).invoke(main, ["completion", shell])
    assert printed.exit_code == 0 and "_TAXIMETER_COMPLETE" in printed.stdout
    result = CliRunner(env=env).invoke(main, ["completion", shell, "--install"])
    assert result.exit_code == 0 and f"Written to {tmp_path / place}." in result.stdout
    assert (tmp_path / place).read_text() + "\n" == printed.stdout
