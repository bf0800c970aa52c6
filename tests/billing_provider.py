"""A provider's usage and cost API on a real socket, scripted: calls it billed, in the shapes that are documented.

OpenAI: organization usage and costs; Anthropic: Usage and Cost Analytics API, and the older reports of the Admin API;
OpenRouter: activity and generations. The shapes are held against the providers' own SDKs in test_sources.py.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from taximeter.reconcile.rule import DAY_S, start_s

Query = dict[str, list[str]]
Answer = Any
"""A dict is sent as JSON, bytes as they are, an int is a bare status."""


@dataclass
class Billed:
    """What was billed of one day, model and key."""

    day: str
    model: str
    key: str = "key_1"
    project: str = "proj_1"
    input: int = 0
    cached: int = 0
    written: int = 0
    output: int = 0
    requests: int = 1
    usd: str = "0"
    kind: str = "completions"


@dataclass
class Billing:
    """`async with Billing([...]) as billing`: `billing.url`. `faults`: what the next requests get instead."""

    billed: list[Billed]
    hints: dict[str, str] = field(default_factory=dict)
    generations: dict[str, dict[str, Any]] = field(default_factory=dict)
    credential: str = "admin-secret"
    faults: deque[Any] = field(default_factory=deque)
    rows_a_page: int = 1_000
    asked: list[tuple[str, Query]] = field(default_factory=list)
    paused: list[float] = field(default_factory=list)

    async def pause(self, seconds: float) -> None:
        """For what is patient: it is written down, and nobody waits."""
        self.paused.append(seconds)

    async def __aenter__(self) -> Billing:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *fields = head.split("\r\n")
            headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in fields)}
            parts = urlsplit(line.split()[1])
            query = parse_qs(parts.query)
            self.asked.append((parts.path, query))
            answer = self._fault() if self.faults else self._answer(parts.path, query, headers)
            status, more, body = answer if isinstance(answer, tuple) else (200, {}, answer)
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            told = "".join(f"{name}: {value}\r\n" for name, value in more.items())
            cut = more.get("cut")
            length = len(content) + (100 if cut else 0)
            writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n{told}\r\n".encode())
            writer.write(content)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _fault(self) -> Answer:
        return self.faults.popleft()

    def _answer(self, path: str, query: Query, headers: dict[str, str]) -> Answer:
        given = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if given != self.credential:
            return 401, {}, {"error": {"message": "Incorrect API key provided."}}
        for prefix, answer in self._routes().items():
            if path.startswith(prefix):
                return answer(path.removeprefix(prefix), query)
        return 404, {}, {"error": {"message": "Not found"}}

    def _routes(self) -> dict[str, Callable[[str, Query], Answer]]:
        return {
            "/organization/usage/": self._usage,
            "/organization/costs": self._costs,
            "/organization/projects/": lambda rest, _: self._hint(rest.rpartition("/")[2], "redacted_value"),
            "/v1/organizations/analytics/": self._analytics,
            "/v1/organizations/usage_report/messages": self._messages,
            "/v1/organizations/cost_report": self._cost_report,
            "/v1/organizations/api_keys/": lambda rest, _: self._hint(rest, "partial_key_hint"),
            "/activity": self._activity,
            "/generation": self._generation,
            "/key": lambda rest, query: {"data": {}},
        }

    def _hint(self, key: str, name: str) -> Answer:
        return {"id": key, name: self.hints[key]} if key in self.hints else (404, {}, {"error": {"message": "None"}})

    # ── OpenAI ───────────────────────────────────────────────────────────────────────────────────────────────

    def _usage(self, kind: str, query: Query) -> Answer:
        def result(each: Billed) -> dict[str, Any]:
            told: dict[str, Any] = {"input_tokens": each.input, "num_model_requests": each.requests}
            if kind == "completions":
                told |= {
                    "input_cached_tokens": each.cached,
                    "input_cache_write_tokens": each.written,
                    "output_tokens": each.output,
                }
            return {"object": f"organization.usage.{kind}.result", **told, **_grouped(each, query)}

        return self._page(query, (each for each in self.billed if each.kind == kind), result)

    def _costs(self, rest: str, query: Query) -> Answer:
        def result(each: Billed) -> dict[str, Any]:
            amount = {"value": float(each.usd), "currency": "usd"}
            named = _grouped(each, query) | ({"line_item": f"{each.model}, input"} if _asks(query, "line_item") else {})
            return {"object": "organization.costs.result", "amount": amount, **named}

        return self._page(query, self.billed, result)

    def _page(self, query: Query, billed: Iterable[Billed], result: Callable[[Billed], dict[str, Any]]) -> Answer:
        found = list(billed)
        first, last, most = (int(query[name][0]) for name in ("start_time", "end_time", "limit"))
        starts = list(range(first, last, DAY_S))
        at = int(query.get("page", ["0"])[0])
        most = min(most, self.rows_a_page)
        data = [
            {
                "object": "bucket",
                "start_time": start,
                "end_time": start + DAY_S,
                "results": [result(each) for each in found if start_s(each.day) == start],
            }
            for start in starts[at : at + most]
        ]
        more = at + most < len(starts)
        return {"object": "page", "data": data, "has_more": more, "next_page": str(at + most) if more else None}

    # ── Anthropic ────────────────────────────────────────────────────────────────────────────────────────────

    def _within(self, query: Query) -> list[Billed]:
        first, last = (datetime.fromisoformat(query[name][0]).timestamp() for name in ("starting_at", "ending_at"))
        return [each for each in self.billed if first <= start_s(each.day) < last]

    def _analytics(self, kind: str, query: Query) -> Answer:
        found = self._within(query)
        at, most = int(query.get("page", ["0"])[0]), min(int(query["limit"][0]), self.rows_a_page)
        rows = []
        for each in found[at : at + most]:
            group = dict.fromkeys(("model", "api_key_id", "workspace_id")) | _named(each, query)
            measured = {"usage": _anthropic(each)} if kind == "usage" else {"cost": _cents(each)}
            rows.append({"starting_at": _at(each), "ending_at": _at(each, DAY_S), "group": group, **measured})
        more = at + most < len(found)
        return {"data": rows, "has_more": more, "next_page": str(at + most) if more else None,
                "data_refreshed_at": "2026-11-30T04:00:00Z"}  # fmt: skip

    def _messages(self, rest: str, query: Query) -> Answer:
        return self._report(query, lambda each: _anthropic(each, total=False) | _named(each, query))

    def _cost_report(self, rest: str, query: Query) -> Answer:
        def result(each: Billed) -> dict[str, Any]:
            described = {"model": each.model, "description": f"{each.model} Usage"}
            return _cents(each) | (described if _asks(query, "description") else {}) | _named(each, query)

        return self._report(query, result)

    def _report(self, query: Query, result: Callable[[Billed], dict[str, Any]]) -> Answer:
        days = sorted({each.day for each in self._within(query)})
        data = [
            {
                "starting_at": _at(Billed(day, "")),
                "ending_at": _at(Billed(day, ""), DAY_S),
                "results": [result(each) for each in self.billed if each.day == day],
            }
            for day in days
        ]
        return {"data": data, "has_more": False, "next_page": None}

    # ── OpenRouter ───────────────────────────────────────────────────────────────────────────────────────────

    def _activity(self, rest: str, query: Query) -> Answer:
        key = query.get("api_key_hash", [""])[0]
        return {"data": [_activity(each) for each in self.billed if key in ("", each.key)]}

    def _generation(self, rest: str, query: Query) -> Answer:
        found = self.generations.get(query["id"][0])
        return (
            (404, {}, {"error": {"message": "Generation not found", "code": 404}}) if found is None else {"data": found}
        )


def _asks(query: Query, name: str) -> bool:
    return name in query.get("group_by[]", [])


def _grouped(each: Billed, query: Query) -> dict[str, Any]:
    named = {"model": each.model, "project_id": each.project, "api_key_id": each.key}
    return {name: value if _asks(query, name) else None for name, value in named.items()}


def _named(each: Billed, query: Query) -> dict[str, Any]:
    named = {"model": each.model, "api_key_id": each.key, "workspace_id": each.project}
    return {name: value for name, value in named.items() if _asks(query, name)}


def _anthropic(each: Billed, *, total: bool = True) -> dict[str, Any]:
    told = {
        "uncached_input_tokens": each.input - each.cached - each.written,
        "cache_read_input_tokens": each.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": each.written, "ephemeral_1h_input_tokens": 0},
        "output_tokens": each.output,
        "server_tool_use": {"web_search_requests": 0},
    }
    return told | ({"requests": each.requests, "total_tokens": each.input + each.output} if total else {})


def _cents(each: Billed) -> dict[str, Any]:
    cents = f"{float(each.usd) * 100:.7f}"
    return {"amount": cents, "currency": "USD", "list_amount": cents, "requests": each.requests}


def _activity(each: Billed) -> dict[str, Any]:
    return {
        "date": each.day,
        "model": each.model,
        "model_permaslug": each.model,
        "endpoint_id": "e",
        "provider_name": "OpenAI",
        "usage": float(each.usd),
        "byok_usage_inference": 0.0,
        "requests": each.requests,
        "prompt_tokens": each.input,
        "completion_tokens": each.output,
        "reasoning_tokens": 0,
        "cached_tokens": each.cached,
    }


def _at(each: Billed, later_s: int = 0) -> str:
    return datetime.fromtimestamp(start_s(each.day) + later_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
