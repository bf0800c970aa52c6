"""What stands beside Taximeter in the bench: nginx, the floor, and the gateways one can install.

Each peer is a function that starts it in front of an upstream and says how to call it. Nothing is downloaded here
but by the package managers, and only when a peer is asked for by name.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import processes


@dataclass(frozen=True)
class Running:
    """A started proxy: `url` stands for the provider's /v1."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    metering: str
    admin_port: int | None = None


def nginx(upstream_port: int, folder: Path) -> Running:
    """A plain reverse proxy with kept-alive upstream connections; reads no body, counts nothing."""
    if shutil.which("nginx") is None:
        raise FileNotFoundError("nginx is not installed: apt-get install nginx-light (or your system's package)")
    port = processes.free_port()
    conf = folder / "nginx.conf"
    (folder / "tmp").mkdir()
    temp = "".join(
        f"{kind}_temp_path {folder}/tmp/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    conf.write_text(f"""
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log warn;
events {{ worker_connections 8192; }}
http {{
  access_log off; {temp}
  client_max_body_size 64m; client_body_buffer_size 1m; keepalive_timeout 75s; keepalive_requests 1000000;
  upstream provider {{ server 127.0.0.1:{upstream_port}; keepalive 512; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
""")
    log = folder / "nginx.log"
    process = processes.start(["nginx", "-p", str(folder), "-c", str(conf)], processes.PROXY_CORE, log=log)
    processes.until_open(port, process)
    return Running("nginx", f"http://127.0.0.1:{port}/v1", process, "none")


PEERS: dict[str, Callable[[int, Path], Running]] = {"nginx": nginx}
