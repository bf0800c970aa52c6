"""Any interleaving of uploads and queries with equal and overlapping texts, over workspaces and tracks, in the real
LightRAG: each token lands where it was asked for.

Every call's bill bears a number, so a record of Taximeter's tells which texts it is for; whose they are is told by who
uploaded or asked them. The rule for ties stands in `taximeter_rag/lightrag/embedding.py`.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rag.lightrag_house import LightRAG, Node
from rag.lightrag_provider import NUMBERS, Bill, LightRAGProvider
from rag.test_lightrag_truth import versions
from waits import happens

EXAMPLES = 8
WORKSPACES = ("alpha", "beta")
PARAGRAPHS = 3
_MARKS = re.compile(r"doc[a-z]+\d+mark")

Key = tuple[str, str | None, str | None]
"""Workspace, track, document."""

places = st.sampled_from(WORKSPACES)
paragraphs = st.lists(st.integers(0, PARAGRAPHS - 1), min_size=1, max_size=PARAGRAPHS, unique=True)
uploads = st.tuples(st.just("upload"), places, st.lists(paragraphs, min_size=1, max_size=2))
queries = st.tuples(st.just("query"), places, st.integers(0, PARAGRAPHS - 1), st.sampled_from(("naive", "mix")))
waves = st.lists(st.lists(st.one_of(uploads, uploads, queries), min_size=2, max_size=4), min_size=1, max_size=2)
TWO_CUSTOMERS = [[("upload", name, [[0, 1, 2]]) for name in WORKSPACES]]
TWO_UPLOADS = [[("upload", "alpha", [[0, 1]]), ("upload", "alpha", [[0, 2]])]]


@dataclass
class Round:
    """What one example did: the texts of each document and query, by where they belong."""

    rag: LightRAG
    number: int
    documents: dict[Key, str] = field(default_factory=dict)
    chunks: dict[Key, int] = field(default_factory=dict)
    told: dict[Key, dict[str, Any]] = field(default_factory=dict)
    queries: dict[Key, str] = field(default_factory=dict)
    contents: Counter[tuple[str, str]] = field(default_factory=Counter)

    def paragraph(self, which: int) -> str:
        mark = f"docround{self.number * 10 + which}mark"
        parts = 1 if which == 0 else 5  # the first is one chunk, when alone, and a query asks just that
        return "\n".join(
            f"The machine {mark} has part {n} which turns a wheel of {mark} each day." for n in range(parts)
        )

    def content(self, workspace: str, which: list[int]) -> str:
        """Equal in several workspaces; LightRAG refuses the very same in one, so a second one has a tail."""
        text = "\n".join(map(self.paragraph, which))
        self.contents[workspace, text] += 1
        tail = self.contents[workspace, text]
        return text if tail == 1 else f"{text}\nThis docagain{self.number * 100 + tail}mark is another copy."

    async def run(self, wave: list[Any]) -> None:
        jobs = []
        for what, workspace, *rest in wave:
            if what == "upload":
                jobs.append(self.upload(workspace, [self.content(workspace, which) for which in rest[0]]))
            else:
                jobs.append(self.query(workspace, self.paragraph(rest[0]), rest[1]))
        await asyncio.gather(*jobs)

    async def upload(self, workspace: str, texts: list[str]) -> None:
        number = sum(self.contents.values())
        names = [f"{workspace}-{self.number}-{number}-{hash(text)}-{at}.txt" for at, text in enumerate(texts)]
        body = {"texts": texts, "file_sources": names}
        answer = await self.rag.client.post("/documents/texts", json=body, headers=self.rag.headers(workspace))
        assert answer.status_code == 200, answer.text
        track = answer.json()["track_id"]
        status = await self.rag.until_ended(track, workspace)
        assert len(status["documents"]) == len(texts)
        for each in status["documents"]:
            assert each["status"] == "processed", each
            key = (workspace, track, each["id"])
            self.documents[key] = texts[names.index(each["file_path"])]
            self.chunks[key], self.told[key] = each["chunks_count"], each["metadata"]["token_usage"]

    async def query(self, workspace: str, text: str, mode: str) -> None:
        body = {"query": text, "mode": mode, "enable_rerank": False}
        answer = await self.rag.client.post("/query", json=body, headers=self.rag.headers(workspace))
        assert answer.status_code == 200, answer.text
        key = (workspace, answer.headers["x-track-id"], None)
        self.queries[key], self.told[key] = text, answer.json()["token_usage"]


def check(played: Round, records: dict[int, Key], bills: list[Bill]) -> None:
    """Each call of a round is on the books of who asked for what it held, and each of these has all that is its own."""
    charged: dict[Key, list[Bill]] = {}
    for number, key in records.items():
        charged.setdefault(key, []).append(bills[number])
    for key, calls in charged.items():
        assert key in played.documents or key in played.queries, f"{key} never asked for anything"
        embedded = [text for bill in calls if bill.kind == "embedding" for text in bill.texts]
        if key in played.documents:
            content = played.documents[key]
            for bill in calls:
                assert bill.kind in ("extract", "embedding")
                for text in bill.texts:
                    said = set(_MARKS.findall(text.lower()))
                    mine = text in content or said <= set(_MARKS.findall(content))  # a chunk may cut a mark in two
                    assert mine and (said or bill.kind == "extract" or text in content), f"{key}: {text!r}"
            chunks = [text for text in embedded if text in content]
            assert len(chunks) == len(set(chunks)) == played.chunks[key], f"{key}: {chunks} of {content}"
        else:
            assert embedded.count(played.queries[key]) == 1
            assert sum(bill.kind == "embedding" for bill in calls) <= 2
    for key in {*played.documents, *played.queries}:
        sums: Counter[str] = Counter()
        for bill in charged.get(key, ()):
            llm = bill.kind != "embedding"
            sums["llm_input_tokens" if llm else "embedding_tokens"] += bill.prompt
            sums["llm_output_tokens"] += bill.completion
        told = {name: played.told[key][name] for name in ("llm_input_tokens", "llm_output_tokens", "embedding_tokens")}
        assert told == {name: sums[name] for name in told}, key
        assert sums["embedding_tokens"] > 0, f"{key} embedded nothing"
    for workspace in WORKSPACES:  # what a workspace uploaded was extracted and embedded on its own books
        own = {key: content for key, content in played.documents.items() if key[0] == workspace}
        wanted = {mark for content in own.values() for mark in _MARKS.findall(content)}
        for kind in ("extract", "embedding"):
            calls = [bill for key in own for bill in charged.get(key, ()) if bill.kind == kind]
            assert wanted == {mark for bill in calls for text in bill.texts for mark in _MARKS.findall(text)}


class House:
    """A LightRAG that serves two workspaces, for all examples."""

    def __init__(self, provider: LightRAGProvider, node: Node, rag: LightRAG) -> None:
        self.provider, self.node, self.rag, self.rounds = provider, node, rag, 0

    async def play(self, waves: list[list[Any]]) -> None:
        self.rounds += 1
        first, played = len(self.provider.bills), Round(self.rag, self.rounds)
        for wave in waves:
            await played.run(wave)
        records: dict[int, Key] = {}

        async def all_are_there() -> bool:
            answer = await self.node.ask("/usage/events?limit=1000")
            found = {(each["input_tokens"] or 0) % NUMBERS: each for each in answer["data"]}
            records.clear()
            for number in range(first, len(self.provider.bills)):
                if number in found:
                    records[number] = tuple(found[number][name] for name in ("workspace", "track", "document"))
            return len(records) == len(self.provider.bills) - first

        await happens(all_are_there, "every call's record")
        check(played, records, self.provider.bills)


@versions
def test_each_token_lands_where_it_was_asked_for(tmp_path: Path, site: Path, version: str) -> None:
    async def opened(stack: AsyncExitStack) -> House:
        provider = await stack.enter_async_context(LightRAGProvider(numbered=True))
        node = await stack.enter_async_context(Node(tmp_path, provider))
        environ = {"TAXIMETER_WORKSPACES": ",".join(WORKSPACES)}
        rag = LightRAG(tmp_path / "rag", node, site, version=version, environ=environ)
        return House(provider, node, await stack.enter_async_context(rag))

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        house = runner.run(opened(stack))
        try:
            for known in (TWO_CUSTOMERS, TWO_UPLOADS):
                runner.run(house.play(known))

            # One server for all examples, so nothing to shrink: an example cannot be repeated as it was.
            @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, phases=(Phase.generate,), database=None)
            @given(waves)
            def any_interleaving(waves: list[list[Any]]) -> None:
                runner.run(house.play(waves))

            any_interleaving()
        finally:
            runner.run(stack.aclose())
