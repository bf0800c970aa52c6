"""`taximeter check` finds a base URL that leads back here by a name, which only a resolver knows."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from taximeter.cli.checking import _try_serving
from taximeter.config import Settings, UpstreamSettings
from taximeter.core.errors import ConfigError


def known(host: str, *_: Any, **__: Any) -> list[Any]:
    """A resolver that knows one name for this machine, and one for another."""
    address = {"gateway.test": "127.0.0.1", "gpu.test": "192.0.2.9"}[host]
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]


@pytest.mark.parametrize("listen", ["127.0.0.1:8000", "0.0.0.0:8000"])
def test_a_name_that_is_resolved_to_this_port_is_refused(monkeypatch: pytest.MonkeyPatch, listen: str) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", known)
    upstreams = [UpstreamSettings(base_url=f"http://{name}.test:8000/v1") for name in ("gpu", "gateway")]
    with pytest.raises(ConfigError, match=r"upstream\[1\]\.base_url: 'http://gateway\.test:8000/v1' .* leads back"):
        _try_serving(Settings(listen=listen, upstream=upstreams), {})
    _try_serving(Settings(listen=listen, upstream=upstreams[:1]), {})
