"""What `taximeter status` asks a running node, and how it shows it.

A health check runs it every few seconds, so it imports nothing but json and socket: an HTTP client, click or the
settings would each cost more CPU than all the rest, Python's own start included.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
from typing import Any

from taximeter.core.visible import visible

TOKEN = "TAXIMETER_ADMIN_TOKEN"  # noqa: S105 - a variable's name
READY, NOT_READY, NOT_RUNNING = 0, 1, 3
_TIMEOUT_S = 5.0

State = dict[str, Any]
"""The runtime file's names (node.datadir.Runtime), then what /healthz says, `ready`, `problems`, `warnings`."""


def show(data_dir: str, *, as_json: bool) -> int:
    """Print what runs on this data directory; returns the exit code."""
    runtime = _runtime(data_dir)
    if runtime is None:
        print(visible(f"No Taximeter runs on {os.path.abspath(data_dir)}."), file=sys.stderr)  # noqa: PTH100, T201
        return NOT_RUNNING
    state = _asked(runtime)
    print(json.dumps(state, indent=1) if as_json else "\n".join(map(visible, _lines(state))))  # noqa: T201
    return READY if state["ready"] else NOT_READY


def runs(data_dir: str) -> bool:
    """Whether a Taximeter runs on this data directory."""
    return _runtime(data_dir) is not None


def _runtime(data_dir: str) -> State | None:
    """As node.datadir.read_runtime, which needs msgspec."""
    try:
        with open(f"{data_dir}/runtime.json", "rb") as file, open(f"{data_dir}/lock", "rb") as lock:  # noqa: PTH123
            runtime: State = json.load(file)
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return runtime
    except (OSError, ValueError):
        pass
    return None


def _asked(runtime: State) -> State:
    """The node's state; a control port that does not answer is a problem, not an error."""
    try:
        ready = _get(runtime["admin_listen"], "/readyz")
        told = {"problems": ready.get("problems", []), "warnings": ready.get("warnings", [])}
        return runtime | _get(runtime["admin_listen"], "/healthz") | {"ready": ready["ready"]} | told
    except (OSError, ValueError, KeyError) as error:
        problem = f"the control port does not answer: {error or type(error).__name__}"
        return runtime | {"ready": False, "problems": [problem], "warnings": []}


def _get(listen: str, path: str) -> State:
    """What a path of the control port says. Raises OSError, or ValueError on what is no answer of ours."""
    host, _, port = listen.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104 - to reach it, not to listen
    head = [f"GET {path} HTTP/1.1", f"host: {host}:{port}", "connection: close"]
    if token := os.environ.get(TOKEN):
        head.append(f"authorization: Bearer {token}")
    with socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT_S) as control:
        control.sendall("\r\n".join([*head, "", ""]).encode())
        answer = b"".join(iter(lambda: control.recv(65_536), b""))
    found: State = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


def _lines(state: State) -> list[str]:
    """For people."""
    lines = [
        f"Taximeter {state['version']}, node {state['node']}, process {state['pid']}: "
        + ("ready" if state["ready"] else "NOT READY"),
        *(f"  ! {each}" for each in state["problems"] + state["warnings"]),
        f"  data port        http://{state['listen']}/v1",
        f"  control port     http://{state['admin_listen']}",
        f"  Redis            {state['redis_url']}",
    ]
    if state["redis_url_file"]:
        lines.append(f"                   whole URL in {state['redis_url_file']}")
    lines.append(f"  workers          {state['workers']}")
    return lines + [f"  {f'sink {name}':<17}{_behind(lag)}" for name, lag in state.get("sinks", {}).items()]


def _behind(lag: int | None) -> str:
    if lag is None:
        return "has not answered yet"
    return "up to date" if lag == 0 else f"{lag} records behind"
