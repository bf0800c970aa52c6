"""TCP keepalive and TCP_USER_TIMEOUT (RFC 5482): who is gone without a word is noticed, in silence too.

NATs and load balancers forget connections that say nothing; clients' SDKs switch keepalive on for that reason, and
what stands between must not take it away.
"""

from __future__ import annotations

import socket

PROBES = 3
_LARGEST_S = 32_767
"""What the kernel takes."""


def keepalive(idle_s: float, user_timeout_s: float) -> list[tuple[int, int, int]]:
    """Socket options: probe after `idle_s` of silence; drop a peer that confirms nothing for `user_timeout_s` (0: as
    long as the system does). A listening socket hands them on to what it accepts."""
    idle = min(_LARGEST_S, max(1, round(idle_s)))
    wanted = {
        "TCP_KEEPIDLE": idle,
        "TCP_KEEPINTVL": max(1, idle // PROBES),
        "TCP_KEEPCNT": PROBES,
        "TCP_USER_TIMEOUT": round(user_timeout_s * 1000),
    }
    tcp = [
        (socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in wanted.items() if hasattr(socket, name)
    ]
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *tcp]
