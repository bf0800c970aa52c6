"""Taximeter as it is served, started for a measurement: journal, delivery to Valkey and SQLite, Prometheus."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from bench import books, processes
from bench.running import Running
from waits import until

SOURCES = Path(__file__).parents[2] / "proxy"
"""What is measured is this tree, whatever is installed."""


def taximeter(
    upstream_port: int,
    folder: Path,
    *,
    name: str = "taximeter",
    cores: processes.Cores = processes.PROXY_CORE,
    config: str = "",
    more: str = "",
    provider: str = "openai",
    python: str = sys.executable,
) -> Running:
    """A ready node. `config`: TOML lines before any table; `more`: further tables.

    `provider`: whose API it is; `python`: of an environment with all that Taximeter needs.
    """
    port, admin = processes.free_port(), processes.free_port()
    file = folder / "taximeter.toml"
    file.write_text(
        f'listen = "127.0.0.1:{port}"\nadmin_listen = "127.0.0.1:{admin}"\ndata_dir = "{folder}/data"\n{config}\n'
        f'[[upstream]]\nname = "{provider}"\nprovider = "{provider}"\nforward_credentials = true\n'
        f'base_url = "http://127.0.0.1:{upstream_port}/v1"\n'
        f"{more}"
    )
    argv = [python, "-m", "taximeter", "serve", "--config", str(file)]
    paths = os.pathsep.join([str(SOURCES), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = processes.start(argv, cores, env={"PYTHONPATH": paths}, log=folder / "taximeter.log")
    try:
        processes.until_open(port, process)
        until(lambda: _ready(admin), "readiness", process.pid)
    except BaseException:
        processes.stop(process)
        raise
    metering = "journal, Valkey, SQLite, Prometheus"
    counted = books.of_usage(admin)
    return Running(name, f"http://127.0.0.1:{port}/v1", process, metering, admin_port=admin, books=counted)


def until_delivered(running: Running) -> None:
    """Wait until everything written is delivered, so that its CPU time is in the figure; until a peer is idle again."""
    if running.admin_port is None:
        books.until_idle(running)
    else:
        url = f"http://127.0.0.1:{running.admin_port}/healthz"
        until(
            lambda: all(lag == 0 for lag in json.loads(books.got(url))["sinks"].values()),
            "delivery",
            running.process.pid,
        )


def _ready(admin_port: int) -> bool:
    try:
        return bool(books.got(f"http://127.0.0.1:{admin_port}/readyz"))
    except OSError:  # not listening yet, or 503
        return False
