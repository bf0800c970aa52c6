"""What `taximeter status` asks a running node, and how it shows the answer."""

from __future__ import annotations

import json
import os
from typing import Any

import msgspec

from taximeter.config.addresses import is_loopback, join, split
from taximeter.node.datadir import Runtime

TOKEN = "TAXIMETER_ADMIN_TOKEN"  # noqa: S105 - a variable's name
_TIMEOUT_S = 5.0


class State(msgspec.Struct, kw_only=True):
    """A node's state."""

    runtime: Runtime
    ready: bool
    problems: list[str]
    warnings: list[str]
    health: dict[str, Any]

    def as_json(self) -> str:
        """One object: the runtime file's names, then `ready`, `problems`, `warnings` and what /healthz says."""
        told = {**msgspec.to_builtins(self.runtime), **self.health, "ready": self.ready}
        return json.dumps(told | {"problems": self.problems, "warnings": self.warnings}, indent=1)

    def as_lines(self) -> list[str]:
        """For people."""
        runtime, health = self.runtime, self.health
        lines = [
            f"Taximeter {runtime.version}, node {runtime.node}, process {runtime.pid}: "
            + ("ready" if self.ready else "NOT READY"),
            *(f"  ! {each}" for each in self.problems + self.warnings),
            f"  data port        http://{runtime.listen}/v1",
            f"  control port     http://{runtime.admin_listen}",
            f"  Redis            {runtime.redis_url}",
        ]
        if runtime.redis_url_file:
            lines.append(f"                   whole URL in {runtime.redis_url_file}")
        lines.append(f"  workers          {runtime.workers}")
        lines += [f"  {f'sink {name}':<17}{_behind(lag)}" for name, lag in health.get("sinks", {}).items()]
        return lines


def node_state(runtime: Runtime) -> State:
    """Ask /readyz and /healthz of the control port; one that does not answer is a problem, not an error."""
    import httpx2

    headers = {"authorization": f"Bearer {os.environ[TOKEN]}"} if os.environ.get(TOKEN) else {}
    host, port = split(runtime.admin_listen)
    if not is_loopback(host):
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - to reach it, not to listen
    try:
        url = f"http://{join(host, port)}"  # no TLS: loading authorities would take 50 ms
        with httpx2.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S, verify=False) as control:
            ready = control.get("/readyz")
            health = control.get("/healthz")
            told = ready.json()
            return State(
                runtime=runtime,
                ready=ready.is_success,
                problems=told.get("problems", []),
                warnings=told.get("warnings", []),
                health=health.json(),
            )
    except (httpx2.HTTPError, ValueError) as error:
        problem = f"the control port does not answer: {error or type(error).__name__}"
        return State(runtime=runtime, ready=False, problems=[problem], warnings=[], health={})


def _behind(lag: int | None) -> str:
    if lag is None:
        return "has not answered yet"
    return "up to date" if lag == 0 else f"{lag} records behind"
