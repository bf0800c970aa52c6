"""What to type while a kept demo runs: lines that are true of this run, on this machine, in this folder."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from taximeter.node.datadir import Runtime

_REDIS = (
    "import redis; print(redis.Redis.from_url(open({path}).read().strip(), decode_responses=True)"
    '.hgetall("tm:{{acme}}:total"))'
)
_QUERY = "select model, count(*), sum(total_tokens) from llm_usage group by model"
_SQL = 'import sqlite3; print(*sqlite3.connect({path}).execute("{query}"), sep="\\n")'


def lines(runtime: Runtime, folder: Path, *, found: bool, has: Callable[[str], object] = shutil.which) -> list[str]:
    """Shell lines for the working directory. `found`: the verbs find the node without being told its URL.

    `has`: whether a program is on the PATH. Without redis-cli and sqlite3 the lines ask through Python, which is there.
    """
    control = f"http://{runtime.admin_listen}"
    verb, where = command(), "" if found else f" --url {control}"
    python = shlex.quote(short(Path(sys.executable)))
    redis_url, history = short(folder / "redis.url"), short(folder / "history.db")
    if has("redis-cli"):
        redis = f"redis-cli -u \"$(cat {shlex.quote(redis_url)})\" hgetall 'tm:{{acme}}:total'"
    else:
        redis = f"{python} -c {shlex.quote(_REDIS.format(path=json.dumps(redis_url)))}"
    if has("sqlite3"):
        sql = f"sqlite3 {shlex.quote(history)} {shlex.quote(_QUERY)}"
    else:
        sql = f"{python} -c {shlex.quote(_SQL.format(path=json.dumps(history), query=_QUERY))}"
    return [
        f"{verb} by-workspace{where}",
        f"curl '{control}/usage?workspace=acme&group_by=model'",
        f"curl {control}/metrics",
        redis,
        sql,
        f"TAXIMETER_DATA_DIR={shlex.quote(short(folder))} {verb} status",
    ]


def command() -> str:
    """How to call taximeter as this process was called: its name where that is on the PATH, else its path."""
    script = Path(sys.argv[0])
    if script.name != "taximeter":  # python -m taximeter
        script = Path(sys.executable).with_name("taximeter")
    on_path = shutil.which("taximeter")
    if on_path and script.exists() and script.samefile(on_path):
        return "taximeter"
    if script.is_file():
        return shlex.quote(short(script))
    return f"{shlex.quote(short(Path(sys.executable)))} -m taximeter"


def short(path: Path) -> str:
    """As it can be typed in the working directory: relative to it where it is inside."""
    path = path if path.is_absolute() else Path.cwd() / path
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
