"""`completion`: what makes a shell complete verbs and options; printed, or put where the shell looks for it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from taximeter.cli.options import guarded
from taximeter.cli.show import echo
from taximeter.core.errors import TaximeterError

VARIABLE = "_TAXIMETER_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.option("--install", is_flag=True, help="Put it where this shell looks for it, instead of printing it.")
@guarded
def completion(shell: str, install: bool) -> None:
    """Make a shell complete verbs and options.

    Once: `taximeter completion bash --install`; or in this shell only: `eval "$(taximeter completion bash)"`.
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise TaximeterError(f"click knows no completion for {shell}.")
    made = found(click.get_current_context().find_root().command, {}, "taximeter", VARIABLE)
    script = made.source_template % made.source_vars()
    if not install:
        click.echo(script)
        return
    place, more = _place(shell)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(script)
    except OSError as error:
        raise TaximeterError(f"{place}: cannot be written: {error.strerror}") from error
    echo(f"Written to {place}. {more}")


def _place(shell: str) -> tuple[Path, str]:
    """Where the shell looks for a user's completions, and what else is needed."""
    home = Path.home()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    match shell:
        case "bash":
            return data / "bash-completion/completions/taximeter", "It works in new shells with bash-completion."
        case "zsh":
            place = data / "zsh/site-functions/_taximeter"
            return place, f"In ~/.zshrc, before compinit: fpath=({place.parent} $fpath)"
        case _:
            return settings / "fish/completions/taximeter.fish", "It works in new shells."
