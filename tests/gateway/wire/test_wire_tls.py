"""TLS: certificates and names are verified, SNI is sent, further authorities can be named."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from pathlib import Path

import pytest
import trustme

from taximeter.core.errors import ConfigError, UpstreamCut, UpstreamUnreachable
from upstream import CLOSE, LAST_CHUNK, Provider, chunk, response, stream_head

OK = response(b"fine")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def serving(authority: trustme.CA, *names: str, **options) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, **options).configure_cert(context)
    return context


async def test_a_verified_connection_is_reused_and_streams(authority, ca_file, client_of) -> None:
    async with Provider(ssl=serving(authority, "127.0.0.1")) as provider:
        client = client_of(provider, ca_file=ca_file)
        go_on = asyncio.Event()
        provider.script(stream_head(), chunk(b"a"), go_on, chunk(b"b" * 300_000), LAST_CHUNK)
        answer = await client.send()
        assert await answer.read() == b"a"
        go_on.set()
        size = 0
        while piece := await answer.read():
            size += len(piece)
        assert size == 300_000
        provider.script(OK)
        assert await client.answer(b"x" * 1_000_000) == (200, b"fine")
        assert provider.requests[-1].body_bytes == 1_000_000
        assert provider.connections == 1


async def test_the_name_is_sent_and_checked_and_every_address_tried(authority, ca_file, client_of) -> None:
    """`localhost` is ::1 and 127.0.0.1 on most machines; the provider listens on one of them only."""
    seen: list[str | None] = []
    context = serving(authority, "localhost")
    context.sni_callback = lambda _, name, __: seen.append(name)
    async with Provider(ssl=context) as provider:
        client = client_of(provider, ca_file=ca_file, base_url=f"https://localhost:{provider.port}/v1")
        provider.script(OK)
        assert await client.answer() == (200, b"fine")
        assert seen == ["localhost"]
        assert provider.requests[0].header("host") == f"localhost:{provider.port}"


async def refused(client, provider: Provider, why: str) -> None:
    with pytest.raises(UpstreamUnreachable, match=why) as caught:
        await client.send()
    assert not caught.value.sent
    assert provider.requests == []
    assert client.pool._slots == 1000 and client.pool.live == 0


async def test_an_unknown_authority_is_refused(authority, client_of) -> None:
    async with Provider(ssl=serving(authority, "127.0.0.1")) as provider:
        await refused(client_of(provider), provider, "certificate is not valid")


async def test_another_hosts_certificate_is_refused(authority, ca_file, client_of) -> None:
    async with Provider(ssl=serving(authority, "other.example")) as provider:
        await refused(client_of(provider, ca_file=ca_file), provider, "certificate is not valid")


async def test_an_expired_certificate_is_refused(authority, ca_file, client_of) -> None:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    async with Provider(ssl=serving(authority, "127.0.0.1", not_before=past, not_after=past)) as provider:
        await refused(client_of(provider, ca_file=ca_file), provider, "certificate is not valid")


async def test_plain_http_on_a_tls_port_is_refused(ca_file, client_of) -> None:
    async with Provider(on_connect=(OK,)) as provider:
        client = client_of(provider, ca_file=ca_file, base_url=f"https://127.0.0.1:{provider.port}/v1")
        await refused(client, provider, "TLS failed|cannot be reached")


async def test_a_hang_up_in_the_handshake_is_unreachable(ca_file, client_of) -> None:
    async with Provider(on_connect=(CLOSE,)) as provider:
        client = client_of(provider, ca_file=ca_file, base_url=f"https://127.0.0.1:{provider.port}/v1")
        await refused(client, provider, "TLS failed|cannot be reached")


async def test_a_cut_is_a_cut_over_tls_too(authority, ca_file, client_of) -> None:
    async with Provider(ssl=serving(authority, "127.0.0.1")) as provider:
        client = client_of(provider, ca_file=ca_file)
        provider.script(stream_head(), chunk(b"a"), CLOSE)
        answer = await client.send()
        assert await answer.read() == b"a"
        with pytest.raises(UpstreamCut):
            await answer.read()


async def test_an_idle_close_over_tls_is_noticed(authority, ca_file, client_of) -> None:
    async with Provider(ssl=serving(authority, "127.0.0.1")) as provider:
        client = client_of(provider, ca_file=ca_file)
        provider.script(OK, CLOSE)
        await client.answer()
        await provider.until(lambda: provider.open_connections == 0)
        provider.script(OK)
        assert await client.answer() == (200, b"fine")
        assert provider.connections == 2


async def test_an_upstream_that_asks_who_we_are_is_shown_our_certificate(
    authority, ca_file, client_of, tmp_path
) -> None:
    context = serving(authority, "127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    mine = tmp_path / "mine.pem"
    authority.issue_cert("client.example").private_key_and_cert_chain_pem.write_to_path(mine)
    async with Provider(ssl=context) as provider:
        with pytest.raises((UpstreamUnreachable, UpstreamCut)):
            await client_of(provider, ca_file=ca_file).answer()
        provider.script(OK)
        client = client_of(provider, ca_file=ca_file, client_cert_file=str(mine))
        assert await client.answer() == (200, b"fine")
        assert len(provider.requests) == 1


async def test_a_certificate_is_not_looked_at_only_where_that_is_said_and_then_it_is_told(client_of, caplog) -> None:
    async with Provider(ssl=serving(trustme.CA(), "elsewhere.example")) as provider:
        with pytest.raises(UpstreamUnreachable, match="certificate is not valid"):
            await client_of(provider).answer()
        assert "NOT verified" not in caplog.text
        provider.script(OK)
        assert await client_of(provider, tls_verify=False).answer() == (200, b"fine")
    assert "upstream openai: its certificate is NOT verified" in caplog.text


async def test_a_key_that_has_gone_bad_since_it_was_checked_names_its_upstream(client_of, provider, tmp_path) -> None:
    with pytest.raises(ConfigError, match="upstream 'openai': its certificates or key cannot be read"):
        client_of(provider, base_url="https://h/v1", client_cert_file=str(tmp_path / "gone.pem"))
