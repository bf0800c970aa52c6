import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.core import origins
from taximeter.core.origins import Origins

LISTED = Origins(["https://UI.example.org", "https://*.apps.example.org", "http://10.0.0.7:*", "null", "file://"])


@pytest.mark.parametrize(
    "origin",
    [b"https://ui.example.org", b"https://a.b.apps.example.org", b"http://10.0.0.7:5173", b"null", b"file://"],
)
def test_an_origin_on_the_list_may_call(origin):
    assert origin in LISTED


@pytest.mark.parametrize(
    "origin",
    [b"http://ui.example.org", b"https://ui.example.org:8443", b"https://ui.example.org.evil.com", b"",
     b"https://apps.example.org", b"https://evil.com", b"nullx", b"file:///etc"],
)  # fmt: skip
def test_any_other_may_not(origin):
    assert origin not in LISTED


@given(st.binary(max_size=40))
def test_a_star_is_any(origin):
    assert origin in Origins(["*"])
    assert origin not in Origins([])


@pytest.mark.parametrize("pattern", ["*", "null", "file://", "https://ui.example.org", "http://localhost:*",
                                     "chrome-extension://abcdef", "https://*.example.org"])  # fmt: skip
def test_what_an_entry_may_be(pattern):
    assert origins.problem(pattern) == ""


@pytest.mark.parametrize(
    ("pattern", "why"),
    [("https://ui.example.org/", "last /"), ("ui.example.org", "scheme://"), ("https://ui.example.org/app", "path"),
     ("", "scheme"), ("Null", "null"), ("https://me@example.org", "scheme")],
)  # fmt: skip
def test_what_is_no_origin_is_told(pattern, why):
    assert why in origins.problem(pattern)


def test_any_page_of_the_web_may_be_of_a_wide_entry():
    assert [one for one in ("*", "null", "https://*", "http*", "file://", "https://*.example.org") if
            origins.is_wide(one)] == ["*", "null", "https://*", "http*"]  # fmt: skip


PREFLIGHT = {b"origin": b"https://ui.example.org", b"access-control-request-method": b"POST"}


def test_a_preflight_is_answered_with_what_it_asks_for():
    assert origins.is_preflight(PREFLIGHT)
    assert not origins.is_preflight({b"origin": b"null"})
    told = dict(origins.permission(PREFLIGHT))
    assert (told[b"access-control-allow-origin"], told[b"access-control-allow-methods"]) == (
        b"https://ui.example.org", b"POST",
    )  # fmt: skip
    assert b"access-control-allow-headers" not in told
    asked = {b"access-control-request-headers": b"x-a, x-b", b"access-control-request-private-network": b"true"}
    told = dict(origins.permission({**PREFLIGHT, **asked}))
    assert told[b"access-control-allow-headers"] == b"x-a, x-b"
    assert told[b"access-control-allow-private-network"] == b"true"


def test_an_answer_may_be_read_and_so_may_our_own_error():
    upstream = [(b"content-type", b"a"), (b"access-control-allow-origin", b"*")]
    seen = origins.readable(b"null", upstream)
    assert [value for name, value in seen if name == b"access-control-allow-origin"] == [b"null"]
    assert origins.readable_if_ours(b"null", upstream) == upstream
    ours = [(b"x-taximeter-error", b"refused")]
    assert dict(origins.readable_if_ours(b"null", ours))[b"access-control-allow-origin"] == b"null"
