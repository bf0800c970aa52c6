"""Long answers look again whether their caller still may have them, and end by themselves once he may not."""

import asyncio
from contextlib import asynccontextmanager

import httpx2
import pytest
from litestar.exceptions import LitestarException

from control_plane import bearing, record
from fuzz.running import ADMIN, running_node
from taximeter.config import AuthSettings, Settings
from taximeter.control.door import gate
from taximeter.control.door.sessions import LASTS_S, Sessions
from taximeter.core.errors import AnswerCut
from taximeter.keys.rule import digest
from taximeter.server.exchange import _is_expected

TOKEN = "the-admin-token"


def secured():
    return Settings(auth=AuthSettings(admin_token_sha256=digest(TOKEN)))


@asynccontextmanager
async def watching(control, **given):
    """A live view that has begun; what is left of it is read by `rest`."""
    async with control.client.stream("GET", "/usage/live", **given) as answer:
        assert answer.status_code == 200
        chunks = answer.aiter_bytes()
        assert await anext(chunks) == b": watching\r\n\r\n"
        yield chunks


async def rest(chunks):
    """The end of a stream that ends properly, bounded."""
    async with asyncio.timeout(10):
        return b"".join([chunk async for chunk in chunks])


def test_it_looks_at_least_each_second():
    assert gate.LOOK_AGAIN_S <= 1


async def test_a_live_view_ends_when_its_key_is_revoked(start):
    control = await start(secured())
    key, secret = control.keys.create("acme")
    _, others = control.keys.create("acme")
    async with watching(control, headers=bearing(secret)) as view, watching(control, headers=bearing(others)) as stays:
        control.keys.revoke(key.id)
        said = await rest(view)
        assert said == gate.ENDED
        await control.add(record(1))
        assert b"event: record" in await anext(stays)
    async with asyncio.timeout(5):
        while control.live.watchers:
            await asyncio.sleep(0.01)


async def sign_in(control, token):
    answer = await control.client.post("/dashboard/login", data={"token": token}, follow_redirects=False)
    assert answer.status_code == 303


async def test_a_live_view_ends_with_its_session(start):
    now = [0.0]
    control = await start(secured(), sessions=Sessions(lambda: now[0]))
    await sign_in(control, TOKEN)
    async with watching(control) as view:
        assert (await control.client.post("/dashboard/logout", follow_redirects=False)).status_code == 303
        assert await rest(view) == gate.ENDED
    await sign_in(control, TOKEN)
    async with watching(control) as view:
        now[0] = LASTS_S
        assert await rest(view) == gate.ENDED


async def test_a_live_view_ends_when_the_admin_token_is_another(start):
    settings = secured()
    control = await start(settings)
    async with watching(control, headers=bearing(TOKEN)) as view:
        settings.auth.admin_token_sha256 = digest("another")
        assert await rest(view) == gate.ENDED


async def test_a_live_view_of_loopback_ends_with_the_trust_in_it(control):
    async with watching(control) as view:
        await control.client.get("/usage", headers={"via": "1.1 proxy"})
        assert await rest(view) == gate.ENDED


class Stalling:
    """A history whose export stops after its first records."""

    def __init__(self, history):
        self._history = history

    def __getattr__(self, name):
        return getattr(self._history, name)

    async def export(self, filters, chunk=2_000):
        async for records in self._history.export(filters, chunk):
            yield records
        await asyncio.Event().wait()


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
async def test_a_download_is_cut_and_does_not_look_whole(start, kind):
    control = await start(secured(), wrapped=Stalling)
    await control.add(record(1))
    key, secret = control.keys.create("acme")
    async with control.client.stream("GET", f"/usage/export.{kind}", headers=bearing(secret)) as answer:
        chunks = answer.aiter_bytes()
        got = b""
        while b"req-1" not in got:
            got += await anext(chunks)
        control.keys.revoke(key.id)
        with pytest.raises(httpx2.RemoteProtocolError):  # closed without its last chunk
            await rest(chunks)


async def test_a_download_that_has_not_begun_is_refused(start):
    control = await start(secured(), wrapped=Stalling)
    key, secret = control.keys.create("acme")
    asked = asyncio.ensure_future(control.client.get("/usage/export.parquet", headers=bearing(secret)))
    await control.client.get("/healthz")
    control.keys.revoke(key.id)
    answer = await asked
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_a_wait_is_refused(start):
    control = await start(secured())
    waiting = asyncio.Event()

    async def settled(track, timeout_s, workspace=None):
        waiting.set()
        await asyncio.Event().wait()

    control.waits.settled = settled
    key, secret = control.keys.create("acme")
    asked = asyncio.ensure_future(control.client.get("/usage/tracks/t?wait=300", headers=bearing(secret)))
    await waiting.wait()
    control.keys.revoke(key.id)
    assert (await asked).status_code == 401


async def test_the_dashboards_page_is_led_to_the_sign_in(start):
    control = await start(secured())
    waiting = asyncio.Event()

    async def drain(timeout_s, sinks=("history",)):
        waiting.set()
        await asyncio.Event().wait()

    await sign_in(control, TOKEN)
    control.waits.drain = drain
    asked = asyncio.ensure_future(control.client.get("/dashboard/records", follow_redirects=False))
    await waiting.wait()
    await control.client.post("/dashboard/logout", follow_redirects=False)
    answer = await asked
    assert answer.status_code == 303 and answer.headers["location"].startswith("/dashboard/login")


@pytest.mark.xdist_group("processes")
def test_a_served_live_view_ends_with_its_key_and_the_log_is_quiet(tmp_path):
    """The same with the real server and the key file, as a running Taximeter has them."""
    with running_node(tmp_path) as (running, url), httpx2.Client(base_url=url, timeout=20) as client:
        made = client.post("/keys", json={"workspace": "acme"}, headers=ADMIN).json()
        with client.stream("GET", "/usage/live", headers=bearing(made["key"])) as answer:
            chunks = answer.iter_bytes()
            assert next(chunks) == b": watching\r\n\r\n"
            assert client.delete(f"/keys/{made['id']}", headers=ADMIN).status_code == 200
            assert b"".join(chunks) == gate.ENDED
        assert "ERROR" not in running.log


def test_an_answer_that_was_cut_is_no_news():
    """Litestar wraps what is raised after an answer began; the server closes the connection, and that is all of it."""
    wrapped = LitestarException("Exception caught after response started")
    wrapped.__cause__ = AnswerCut("the right to this answer ended")
    other = LitestarException("Exception caught after response started")
    other.__cause__ = ValueError("a fault")

    assert _is_expected(wrapped) and not _is_expected(other)
