"""The two listening sockets, and what is said when there is none to be had."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest
from msgspec import structs

from taximeter.config import Settings
from taximeter.supervisor import listening
from taximeter.supervisor.listening import ListenError, address_of, handed_over, listen


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


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Hands over sockets as systemd does, at descriptors of this process; returns their addresses."""
    opened: list[socket.socket] = []

    def hand_over(count: int = 2, names: str = "", pid: int | None = None) -> list[str]:
        opened.extend(socket.create_server(("127.0.0.1", 0)) for _ in range(count))
        first = max(each.fileno() for each in opened) + 10
        for place, each in enumerate(opened):
            os.dup2(each.fileno(), first + place)
        monkeypatch.setattr(listening, "_FIRST_FD", first)
        monkeypatch.setenv("LISTEN_PID", str(pid or os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", str(count))
        monkeypatch.setenv("LISTEN_FDNAMES", names or ":".join(["taximeter.socket"] * count))
        return [address_of(each) for each in opened]

    yield hand_over
    for each in opened:
        each.close()


@pytest.mark.parametrize("names", ["", "admin_listen:listen"])
def test_sockets_of_a_socket_unit_are_taken_by_name_else_in_order(given: Callable[..., list[str]], names: str) -> None:
    addresses = given(2, names)
    settings = ["admin_listen", "listen"] if names else ["listen", "admin_listen"]
    taken = handed_over(structs.replace(Settings(), **dict(zip(settings, addresses, strict=True))))
    assert {name: address_of(each) for name, each in taken.items()} == dict(zip(settings, addresses, strict=True))
    assert not any(os.get_inheritable(each.fileno()) for each in taken.values())
    for each in taken.values():
        each.close()
    assert not [name for name in os.environ if name.startswith("LISTEN_")], "children must not take them for theirs"


def test_a_socket_elsewhere_than_the_settings_say_is_refused(given: Callable[..., list[str]]) -> None:
    (address,) = given(1)
    with pytest.raises(ListenError, match=f"handed over is {address}, but listen = '127.0.0.1:8000'"):
        handed_over(Settings())


def test_sockets_meant_for_another_process_are_left_alone(given: Callable[..., list[str]]) -> None:
    given(1, pid=1)
    assert handed_over(Settings()) == {}


def test_more_sockets_than_ports_are_refused(given: Callable[..., list[str]]) -> None:
    addresses = given(3)
    with pytest.raises(ListenError, match="handed over 3 sockets"):
        handed_over(Settings(listen=addresses[0], admin_listen=addresses[1]))
