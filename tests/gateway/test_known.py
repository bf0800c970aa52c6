"""A head that comes again is not read again: its call is judged, tagged and sent as if it were."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from gateway.test_cost import ANSWER, JSON, UNARY, script
from taximeter.keys.rule import Keys, ProxyKey, digest
from upstream import response

KEYS = [ProxyKey(id=f"key_{name}", sha256=digest(f"tm-{name}".encode()), workspace=name) for name in ("one", "two")]


class Caller:
    """A connection of a client whose requests differ in their bodies only, where no header is given."""

    async def open(self, port: int) -> Caller:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def call(self, body: bytes = UNARY, *more: bytes, path: bytes = b"/v1/chat/completions") -> int:
        """Its answer's status."""
        head = [b"POST %b HTTP/1.1" % path, b"host: localhost", b"content-type: application/json", *more]
        self.writer.write(b"\r\n".join(head) + b"\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        told = await self.reader.readuntil(b"\r\n\r\n")
        [length] = [int(line[15:]) for line in told.split(b"\r\n") if line.startswith(b"content-length:")]
        await self.reader.readexactly(length)
        return int(told[9:12])


def asking(model: str) -> bytes:
    return msgspec.json.encode({"model": model, "messages": [{"role": "user", "content": "hi " * len(model)}]})


def told(running: Any, *names: str) -> list[tuple[object, ...]]:
    return [tuple(record.get(name) for name in names) for record in running.records]


async def test_a_key_that_is_revoked_ends_with_its_next_call_also_on_its_own_connection(serve, provider):
    provider.handler = lambda _: script(response(ANSWER, headers=JSON))
    async with serve(provider, keys=KEYS, auth={"mode": "keys"}) as running:
        caller = await Caller().open(running.port)
        one, two = b"x-taximeter-key: tm-one", b"x-taximeter-key: tm-two"
        assert [await caller.call(UNARY, key) for key in (one, one, one, two, one, two, two)] == [200] * 7
        running.gate.admission.keys = Keys(KEYS[1:])
        assert [await caller.call(UNARY, key) for key in (two, one, one, two)] == [200, 401, 401, 200]
        assert await caller.call() == 401
        caller.writer.close()
        named = ["one"] * 3 + ["two", "one", "two", "two"] + ["two", "default", "default", "two", "default"]
        assert told(running, "workspace") == [(name,) for name in named]


async def test_tags_in_a_repeated_head_are_every_calls_and_no_others(serve, provider):
    provider.handler = lambda _: script(response(ANSWER, headers=JSON))
    async with serve(provider) as running:
        caller = await Caller().open(running.port)
        tagged = b"x-workspace: acme", b"x-track-id: t1"
        for headers in (tagged, tagged, tagged, (), (), tagged):
            assert await caller.call(UNARY, *headers) == 200
        caller.writer.close()
        found = [("acme", "t1")] * 3 + [("default", None)] * 2 + [("acme", "t1")]
        assert told(running, "workspace", "track") == found


async def test_what_goes_on_is_each_upstreams_own_though_the_head_is_the_same(serve, provider, monkeypatch):
    monkeypatch.setenv("OTHERS_KEY", "sk-other")
    provider.handler = lambda _: script(response(ANSWER, headers=JSON))
    other = {"name": "other", "base_url": provider.base_url + "/x", "models": ["other-*"], "api_key_env": "OTHERS_KEY"}
    async with serve(provider, upstream={"models": ["gpt-*"]}, upstreams=[other]) as running:
        caller = await Caller().open(running.port)
        models = ["gpt-4o", "other-1", "gpt-4o", "other-22", "other-1", "gpt-4o-mini"]
        for model in models:
            assert await caller.call(asking(model), b"authorization: Bearer mine", b"x-extra: 1") == 200
        caller.writer.close()
        assert [record["request_model"] for record in running.records] == models
    for model, request in zip(models, provider.requests, strict=True):
        head, others = dict(request.headers), model.startswith("other")
        assert head["authorization"] == ("Bearer sk-other" if others else "Bearer mine")
        assert head["x-extra"] == "1"
        assert int(head["content-length"]) == len(request.body) == len(asking(model))
        assert request.target == ("/v1/x/chat/completions" if others else "/v1/chat/completions")


async def test_a_body_that_is_too_long_to_be_read_whole_streams_through_behind_ones_that_are_not(serve, provider):
    provider.handler = lambda _: script(response(ANSWER, headers=JSON))
    async with serve(provider, limits={"json_body_bytes": 200}) as running:
        caller = await Caller().open(running.port)
        bodies = [asking("m"), asking("mm"), asking("m" * 60), asking("m"), asking("m" * 60)]
        for body in bodies:
            assert await caller.call(body) == 200
        caller.writer.close()
        assert told(running, "request_bytes") == [(len(body),) for body in bodies]
    assert [request.body for request in provider.requests] == bodies
