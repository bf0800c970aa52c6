import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.core.errors import BadRequest, Forbidden, RequestError
from taximeter.core.hosts import Hosts, is_loopback

HOSTS = Hosts(["taximeter.internal", "*.example.org"])


@pytest.mark.parametrize(
    "host",
    [b"localhost", b"localhost:8001", b"LOCALHOST:1", b"127.0.0.1:8000", b"[::1]:8000", b"[::1]", b"10.1.2.3:80",
     b"app.localhost:3000", b"taximeter.internal", b"Taximeter.Internal.:8001", b"a.b.example.org:1"],
)  # fmt: skip
def test_names_addresses_and_loopback_are_accepted(host):
    HOSTS.check(host)
    HOSTS.check(host)  # remembered


@pytest.mark.parametrize("host", [b"evil.com", b"localhost.evil.com:8001", b"example.org", b"notexample.org"])
def test_a_rebound_name_is_refused_and_the_error_says_where_to_allow_it(host):
    with pytest.raises(Forbidden, match=r"control\.allowed_hosts"):
        HOSTS.check(host)


@pytest.mark.parametrize(
    "host",
    [None, b"", b"a b", b"localhost:port", b"[::1", b"[::1]x", b"local/host", b"b\xc3\xa9", b"localhost,evil.com"],
)
def test_what_is_not_a_host_is_a_bad_request(host):
    with pytest.raises(BadRequest):
        HOSTS.check(host)


@pytest.mark.parametrize(
    ("host", "origin"),
    [(b"10.0.0.5:8001", b"http://10.0.0.5:8001"), (b"127.0.0.1:8001", b"http://localhost:3000"),
     (b"taximeter.internal", b"https://ui.example.org"), (b"127.0.0.1", b"http://[::1]:5173")],
)  # fmt: skip
def test_same_origin_loopback_and_allowed_origins_pass(host, origin):
    HOSTS.check(host, origin)


@pytest.mark.parametrize("origin", [b"http://evil.com", b"http://6.6.6.6", b"null", b"", b"http://10.0.0.5:9"])
def test_a_foreign_origin_is_refused_even_on_a_bare_address(origin):
    with pytest.raises(Forbidden, match="origin"):
        HOSTS.check(b"10.0.0.5:8001", origin)


def test_a_star_allows_any_name():
    Hosts(["*"]).check(b"whatever.net", b"https://other.net")
    Hosts(["*"]).check(None)


@given(st.binary(max_size=60), st.none() | st.binary(max_size=60))
def test_any_bytes_pass_or_are_refused_but_never_crash(host, origin):
    with contextlib.suppress(RequestError):
        HOSTS.check(host, origin)


def test_remembered_hosts_stay_bounded():
    hosts = Hosts(["*"])
    for number in range(500):
        hosts.check(b"h%d" % number)
    assert len(hosts.accepted) == 64


@pytest.mark.parametrize(
    ("host", "is_it"),
    [
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("evil.com", False),
        ("", False),
    ],
)
def test_loopback_is_told_from_the_rest(host, is_it):
    assert is_loopback(host) is is_it
