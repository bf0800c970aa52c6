"""Whether the node of a data directory is ready: exit code 0 or 1. The image's HEALTHCHECK, every few seconds.

    python3 -I -S probe.py        # asks what runs on $TAXIMETER_DATA_DIR

`taximeter status` tells people the same and more; it loads ten times as much. Standard library only, and little of it.
"""

import json
import os
import socket
import sys

WAIT_S = 5


def ready(data_dir: str) -> bool:
    """Whether `/readyz` answers 200. Raises OSError or ValueError where nothing runs, or answers something else."""
    with open(os.path.join(data_dir, "runtime.json"), "rb") as file:  # noqa: PTH118, PTH123 - pathlib costs 10 ms
        host, _, port = json.load(file)["admin_listen"].rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), WAIT_S) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        status = connection.makefile("rb").readline().split()
    return status[1:2] == [b"200"]


if __name__ == "__main__":
    try:
        good = ready(os.environ.get("TAXIMETER_DATA_DIR", "data"))
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"not ready: {error}")
    sys.exit(0 if good else "not ready: `taximeter status` says why")
