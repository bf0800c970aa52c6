"""Names and texts from outside that would break a line, move a cursor or turn the reading order, through a real node.

Nothing of that may stand in its log, in what the command prints, or in a page.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from nodes import Node, node
from taximeter.core.visible import visible
from taximeter.node.datadir import Runtime
from upstream import Provider, Request, Script, response
from waits import HANG_S, until

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc"),
    pytest.mark.xdist_group("processes"),
]

ODD = (
    "\x1b[31mred\x1b]0;t\x07 \x9b2J\x7f\r\n2026-01-01 00:00:00,000 INFO worker 1: forged"
    "\u202eevil\u2066x\u2069\u2028y\u2029\ufeff[bold]"
)
"""As a provider or a client may write it into JSON."""
ASKED, SERVED = f"asked-{ODD}", f"served-{ODD}"
UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
LOG_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ (supervisor|control|worker 1): |  \| "
    r"|Tax|  [a-zR]| {16}(from|NOT|no file)"  # what `serve` says when it is ready
)
USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}


def odd_in(text: str) -> set[str]:
    """The characters of a line that a reader would not see for what they are."""
    return {each for each in text if unicodedata.category(each) in UNSEEN and each != "\n"}


def answer(request: Request) -> Script:
    """Names, errors and heads as bad as a provider can write them."""
    asked = request.header("x-case")
    fields = [
        ("content-type", "application/json"),
        ("x-request-id", "id-\x1b[31m".replace("\x1b", "")),
        ("x-odd", "\x85\xad"),
    ]
    if asked == "error":
        error = {"error": {"message": ODD, "type": ODD, "code": ODD}}
        return Script((response(json.dumps(error).encode(), 500, fields),))
    if asked == "garbage":
        return Script((b"HTTP/1.1 200 \x1b[31m\nX: \x1b\r\n\r\n",))
    body = {"id": ODD, "model": SERVED, "service_tier": ODD, "choices": [], "usage": USAGE}
    return Script((response(json.dumps(body).encode(), 200, fields),))


@pytest.fixture
def served(tmp_path: Path, provider: Provider) -> Iterator[Node]:
    provider.handler = answer
    upstream = {"name": "openai", "base_url": provider.base_url, "forward_credentials": True}
    with node(tmp_path, TAXIMETER_UPSTREAM=json.dumps([upstream]), TAXIMETER_TAGS__BODY="true") as made:
        yield made


async def calls(runtime: Runtime) -> None:
    """Every way in which a client may bring odd text."""
    url = f"http://{runtime.listen}/v1/chat/completions"
    messages = [{"role": "user", "content": ODD}]
    async with httpx2.AsyncClient(timeout=HANG_S) as client:
        for case in ("ok", "error", "garbage"):
            given: dict[str, Any] = {"x-workspace": "acme", "x-track-id": "t1", "x-odd": "\x85\u00ad".encode("latin-1")}
            body = {"model": ASKED, "user": ODD, "messages": messages}
            await client.post(url, json=body, headers=given | {"x-case": case})
        for headers in ({b"x-workspace": b"a\x85b"}, {b"host": b"\x85evil"}, {b"x-task": "é".encode()}):
            assert (await client.post(url, json={"model": ASKED}, headers=headers)).status_code in (400, 403)
        await client.post(url, content=b'{"model": "\xff\x1b[31m", "messages": ' + b"[" * 5_000)
        assert (await client.get(f"http://{runtime.listen}/u/no%0d%0asuch/v1/{quote(ODD)}")).status_code in (400, 404)
        for path in (
            f"/usage/requests/{quote(ODD, safe='')}",
            f"/usage?{quote(ODD)}=1",
            f"/{quote(ODD)}",
            "/usage?tz=" + quote(ODD),
        ):
            assert (await client.get(f"http://{runtime.admin_listen}{path}")).status_code in (400, 404), path


def lines_of(text: str) -> list[str]:
    """As a log's reader splits it: at line feeds alone."""
    return text.split("\n")


async def test_no_odd_character_reaches_a_log_a_terminal_or_a_page(served: Node, provider: Provider) -> None:
    runtime = await asyncio.to_thread(served.start, "serve")
    await calls(runtime)
    control = f"http://{runtime.admin_listen}"
    async with httpx2.AsyncClient(timeout=HANG_S, base_url=control) as client:
        told = (await client.get("/usage", params={"group_by": "model"})).json()
        assert {SERVED, ASKED} <= {part["model"] for part in told["groups"]}, "the API answers exactly what was said"
        records = (await client.get("/usage/events", params={"limit": "100"})).json()["data"]
        ok = next(each for each in records if each["response_model"] == SERVED)
        pages = [
            "/", "/dashboard/analytics", "/dashboard/workspaces/acme", "/dashboard/records", "/dashboard/live",
            "/dashboard/health", f"/dashboard/records?model={quote(ASKED)}", f"/dashboard/requests/{ok['request_id']}",
            "/dashboard/workspaces/acme/tracks/t1", f"/dashboard/analytics?candidate={quote(ODD)}",
            f"/dashboard/requests/{quote(ODD, safe='')}", f"/dashboard/records?{quote(ODD)}=1", "/?tz=" + quote(ODD),
            "/dashboard/performance", f"/dashboard/records?sort={quote(ODD)}", f"/dashboard/search?q={quote(ODD)}",
            "/dashboard/search?q=served", f"/dashboard/workspaces/{quote(ODD, safe='')}", f"/{quote(ODD, safe='')}",
            "/dashboard/keys", "/dashboard/budgets",
        ]  # fmt: skip
        for page in pages:
            html = await client.get(page, headers={"accept": "text/html"})
            assert html.status_code in (200, 303, 400, 404), page
            assert odd_in(html.text) == set(), page
        assert visible(SERVED)[:30] in (await client.get("/dashboard/records")).text

    verbs = [
        ["by-model"], ["by-model", "--json"], ["stats", "--model", ASKED], ["stats", "--json"], ["costs"],
        ["top", "--once"],
        ["tail", "--no-follow"], ["tail", "--no-follow", "--json"], ["track", "t1"], ["trends", "--by", "model"],
        ["peaks"], ["alternatives"], ["status"], ["by-provider", "--tz", ODD], ["track", ODD],
        ["alternatives", "--candidate", ODD],
        ["reprice", "--dry-run", "--from", ODD], ["keys", "revoke", ODD], ["budgets", "end", ODD], [ODD],
    ]  # fmt: skip
    for verb in verbs:
        done = await asyncio.to_thread(served.run, *verb)
        printed = done.stdout + done.stderr
        assert "Traceback" not in printed, (verb, printed)
        assert [(line, odd_in(line)) for line in lines_of(printed) if odd_in(line)] == [], verb
        assert not any(line.startswith("2026-01-01") for line in lines_of(printed)), verb
        with contextlib.suppress(ValueError):
            json.loads(done.stdout)
    shown = (await asyncio.to_thread(served.run, "tail", "--no-follow")).stdout
    assert visible(SERVED) in shown
    everything = json.loads((await asyncio.to_thread(served.run, "by-model", "--json")).stdout)
    assert SERVED in {part["model"] for part in everything["groups"]}

    await asyncio.to_thread(
        until, lambda: visible(SERVED)[:20] in served.log, "a warning about a model without a price"
    )
    assert await asyncio.to_thread(served.stop) == 0
    for line in lines_of(served.log):
        assert odd_in(line) == set(), line
        assert line == "" or LOG_LINE.match(line), line
