"""Proxy keys, the admin token and dashboard sessions of ours reach no upstream, wherever a client put them."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from hashlib import sha256
from urllib.parse import unquote_to_bytes

import pytest

from taximeter.gateway.upstream.credentials import Screen
from taximeter.keys import rule as keys
from taximeter.keys.rule import ProxyKey

KEY = keys.make(bytes(range(32))).encode()
ADMIN = b"correct horse battery staple"
SESSION = b"Qm9yZ2VzIHRoZSBsaWJyYXJpYW4"
BODY = b'{"model":"m","messages":[]}'


def basic(user: bytes, password: bytes = b"") -> bytes:
    return b"Authorization: Basic " + b64encode(user + b":" + password)


HIDDEN = {
    "Token": b"Authorization: Token " + KEY,
    "token, lower case": b"authorization: token " + KEY,
    "bare": b"Authorization: " + KEY,
    "Bearer twice": b"Authorization: Bearer Bearer " + KEY,
    "ApiKey": b"Authorization: ApiKey  " + KEY,
    "a parameter": b'Authorization: Digest username="x", response="' + KEY + b'"',
    "Basic user": basic(KEY),
    "Basic password": basic(b"x", KEY),
    "Basic without padding": basic(KEY).rstrip(b"="),
    "basic, lower case": basic(b"x", KEY).replace(b"Basic", b"basic"),
    "an unknown key": b"Authorization: Token tm-short",
    "a quoted key": b'x-api-key: "' + KEY + b'"',
    "api-key": b"api-key: Bearer " + KEY,
    "x-goog-api-key": b"X-Goog-Api-Key: " + KEY,
    "a header of any name": b"X-My-Secret: " + KEY,
    "a header, in the middle": b"X-My-Secret: key=" + KEY + b"; v=1",
    "a WebSocket protocol": b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key." + KEY,
    "behind another prefix": b"Authorization: Bearer sk-" + KEY,
    "baggage": b"baggage: key=" + KEY,
    "Referer": b"Referer: http://x/?api_key=" + KEY,
    "Referer's path": b"Referer: http://x/" + KEY + b"/",
    "User-Agent": b"User-Agent: client (" + KEY + b")",
    "Proxy-Authorization": b"Proxy-Authorization: Bearer " + KEY,
    "the session": b"Cookie: taximeter_session=" + SESSION,
    "a cookie": b"Cookie: token=" + KEY,
    "an encoded cookie": b"Cookie: token=%74m-" + KEY[3:],
    "the admin token": b"Authorization: Bearer " + ADMIN,
    "the admin token, otherwise": b"Authorization: Token " + ADMIN,
    "the admin token in Basic": basic(b"admin", ADMIN),
    "the admin token in x-api-key": b"x-api-key: " + ADMIN,
}
QUERIES = {
    "api_key": b"api_key=" + KEY,
    "key": b"key=" + KEY,
    "token": b"access_token=" + KEY,
    "bare": KEY,
    "any name": b"x=" + KEY,
    "encoded": b"api_key=%74%6d-" + KEY[3:],
    "encoded, in upper case": b"api%5Fkey=%74%6D%2D" + KEY[3:],
    "the admin token": b"api_key=" + ADMIN.replace(b" ", b"%20"),
}


async def ask(running, *fields: bytes, target: bytes = b"/v1/chat/completions") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    head = [b"POST " + target + b" HTTP/1.1", b"Host: localhost", b"Content-Type: application/json", *fields]
    head += [b"Content-Length: %d" % len(BODY), b"Connection: close", b"", BODY]
    writer.write(b"\r\n".join(head))
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


@pytest.fixture
async def running(serve, provider):
    auth = {"admin_token_sha256": sha256(ADMIN).hexdigest()}
    known = ProxyKey(id="k1", sha256=keys.digest(KEY), workspace="acme")
    async with serve(provider, auth=auth, keys=[known]) as running:
        yield running


def holds_secret(head: bytes) -> bool:
    shown = unquote_to_bytes(head)
    return any(
        each in shown for each in (KEY, KEY[3:], b"tm-", ADMIN, SESSION, b64encode(KEY)[:20], b"Basic", b"basic")
    )


@pytest.mark.parametrize("field", HIDDEN.values(), ids=HIDDEN.keys())
async def test_a_secret_of_ours_in_any_header_never_leaves(running, provider, field: bytes) -> None:
    rest = [b"X-Before: 1", field, b"X-After:  two  words", b"User-Agent: tm-client/1.0"]
    await ask(running, *rest)
    (seen,) = provider.requests
    head = seen.raw_head.replace(b"tm-client/1.0", b"")
    assert not holds_secret(head), head
    assert (seen.header("x-before"), seen.header("x-after")) == ("1", "two  words")
    assert "tm-client/1.0" in (seen.header("user-agent") or "")


@pytest.mark.parametrize("part", QUERIES.values(), ids=QUERIES.keys())
async def test_a_secret_of_ours_in_a_query_never_leaves(running, provider, part: bytes) -> None:
    await ask(running, target=b"/v1/x?a=1%20&" + part + b"&b=%2B&c&=d")
    (seen,) = provider.requests
    assert not holds_secret(seen.raw_head), seen.raw_head
    assert seen.target.endswith("/x?a=1%20&b=%2B&c&=d")


async def test_other_cookies_go_on(running, provider) -> None:
    await ask(running, b"Cookie: a=1; taximeter_session=" + SESSION + b"; b=tm; c=atm-1")
    (seen,) = provider.requests
    assert seen.header("cookie") == "a=1; b=tm; c=atm-1"


async def test_where_there_is_no_admin_token_only_others_bearers_go_on_unread(serve, provider) -> None:
    async with serve(provider) as running:
        await ask(running, b"Cookie: Bearer x; taximeter_session=" + SESSION)
        await ask(running, b"Authorization: Bearer sk-" + KEY)
        await ask(running, b"Authorization: Bearer sk-1")
    session, key, other = provider.requests
    assert not holds_secret(session.raw_head) and not holds_secret(key.raw_head)
    assert other.header("authorization") == "Bearer sk-1"


@pytest.mark.parametrize("path", [b"/v1/" + KEY, b"/v1/x/" + KEY + b"/y", b"/v1/%74m-" + KEY[3:]])
async def test_a_path_that_holds_a_proxy_key_is_refused(running, provider, path: bytes) -> None:
    assert (await ask(running, target=path)).startswith(b"HTTP/1.1 400 ")
    assert provider.requests == []
    (record,) = running.records
    assert record["outcome"] == "refused"


OTHERS = [
    b"Authorization: Bearer sk-tm-abcdefghijklmnopqrstuvwxyz",
    b"Authorization: Bearer eyJ0eXAiOiJKV1QifQ.tm-abcdefghijklmnopqrstuvwxyz.x",
    b"Authorization: Basic " + b64encode(b"user:atm-password"),
    b"Authorization: Basic not/base64!",
    b"Cookie: session=%41; other=taximeter",
    b"X-Version: tm-1",
    b"X-Note: atm-abcdefghijklmnopqrstuvwxyz",
]


@pytest.mark.parametrize("field", OTHERS)
async def test_what_is_not_ours_goes_on_byte_for_byte(running, provider, field: bytes) -> None:
    await ask(running, field, target=b"/v1/x?key=AIza-tm-abc&t=%zz")
    (seen,) = provider.requests
    name, _, value = field.decode().partition(": ")
    assert seen.header(name.lower()) == value
    assert seen.target.endswith("/x?key=AIza-tm-abc&t=%zz")


def test_without_an_admin_token_nothing_is_taken_for_it() -> None:
    assert Screen().header(b"authorization", b"Bearer ") == b"Bearer "
    assert Screen().query(b"key=&token=", "openai", forward=True) == b"key=&token="


@pytest.mark.parametrize("query", [b"metadata[team]=tm-blue&x=tm-1", b"after=tm-1&key=AIza", b"q=atm-1"])
async def test_a_query_with_tm_that_is_no_key_goes_on_as_it_came(running, provider, query: bytes) -> None:
    await ask(running, target=b"/v1/chat/completions?" + query)
    (seen,) = provider.requests
    assert seen.target.endswith("?" + query.decode())


@pytest.mark.parametrize("query", [b"api_key=tm-short", b"Token=tm-short", b"x=" + KEY])
async def test_a_query_with_a_key_in_a_credential_s_place_loses_it(running, provider, query: bytes) -> None:
    await ask(running, target=b"/v1/x?a=1&" + query)
    (seen,) = provider.requests
    assert seen.target.endswith("/x?a=1")
