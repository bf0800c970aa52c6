"""How many files and sockets a process may have open: raised as far as the system lets us, and told."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger("taximeter.supervisor")

ENOUGH = 1 << 20
"""More is never asked for: some programs walk through all that they may have."""
FEW = 4096
"""A call holds two sockets, of the client and of the upstream."""


def raise_limit() -> int:
    """Let this process and its children have as many open as the hard limit allows. Returns how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        log.info("Each process may have %d files and sockets open: the hard limit; the soft one was %d", most, soft)
        soft = most
    if soft < FEW:
        log.warning(
            "%d open files are enough for about %d calls at a time in one worker. Raise the hard limit (LimitNOFILE= "
            "in a systemd unit, `ulimit -Hn`, --ulimit nofile=… of a container).",
            soft,
            soft // 2,
        )
    return soft
