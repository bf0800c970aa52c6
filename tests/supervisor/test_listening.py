"""The two listening sockets, and what is said when there is none to be had."""

from __future__ import annotations

import socket

import pytest

from taximeter.supervisor.listening import ListenError, address_of, listen


def test_a_port_is_opened_once_only() -> None:
    with listen("listen", "127.0.0.1:0") as opened:
        address = address_of(opened)
        assert address.startswith("127.0.0.1:")
        with pytest.raises(
            ListenError, match=r"is in use by another program\. Stop it, or set listen \(TAXIMETER_LISTEN\)"
        ):
            listen("listen", address)
        socket.create_connection(opened.getsockname()).close()


def test_ipv6_is_written_with_brackets() -> None:
    try:
        opened = listen("listen", "[::1]:0")
    except ListenError:
        pytest.skip("no IPv6 here")
    with opened:
        assert address_of(opened).startswith("[::1]:")


@pytest.mark.parametrize(
    ("address", "why"), [("192.0.2.1:0", "no such address"), ("no.such.host.invalid:0", "admin_listen = ")]
)
def test_an_address_that_is_not_ours_is_named(address: str, why: str) -> None:
    with pytest.raises(ListenError, match=why):
        listen("admin_listen", address)
