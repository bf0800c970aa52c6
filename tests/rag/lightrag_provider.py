"""The scripted provider as LightRAG needs it: it extracts entities, finds keywords, answers, embeds and reranks.

Every text of a test bears a mark (`docalpha1mark`, `qryalpha2mark`); what a call is billed for is told by the marks in
its content, never by its headers. A query's mark is stronger than those of the documents in its context.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import openai_like
from upstream import LAST_CHUNK, Provider, Request, Script, chunk, response, stream_head

_MARK = re.compile(r"(doc|qry)[a-z]+\d+mark", re.IGNORECASE)
_PART = re.compile(r"part (\d+)")
DELIMITER, COMPLETE = "<|#|>", "<|COMPLETE|>"
POISON = "poisonous"
"""A chunk with this word cannot be extracted: the provider refuses it."""
UNSPEAKABLE = "unspeakable"
"""A question with this word cannot be answered: the provider refuses it."""
NUMBERS = 1_000
SLOW = "slowly"
"""A query with this word is answered by half and then no further."""


@dataclass
class Bill:
    """One call as the provider would invoice it; `mark` is whose it was."""

    kind: str
    """extract | keywords | answer | embedding | rerank"""
    mark: str
    model: str
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0
    complete: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    """What was embedded; else the one prompt."""


class Sums(Counter[str]):
    """Tokens of one mark: llm_input_tokens, llm_output_tokens, embedding_tokens, cached, reasoning, llm_calls."""


class LightRAGProvider:
    """`async with LightRAGProvider() as provider:` - then `provider.bills` is the truth."""

    def __init__(self, phrases: dict[str, str] | None = None, *, numbered: bool = False) -> None:
        self.phrases = phrases or {}
        """Words that stand for a mark, for texts that bear none."""
        self.numbered = numbered
        """Each bill's prompt tokens end in its place in `bills` (modulo NUMBERS): a record tells which call it is."""
        self.bills: list[Bill] = []
        self.mixed: list[set[str]] = []
        """Marks of calls that held several documents: nobody could say whose they are."""
        self.half_answered = asyncio.Event()
        self.left = 0
        self.gate = asyncio.Event()
        self.provider = Provider(handler=self.handle)

    async def __aenter__(self) -> LightRAGProvider:
        await self.provider.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.provider.__aexit__()

    @property
    def port(self) -> int:
        return self.provider.port

    def sums(self) -> dict[str, Sums]:
        """What each mark was billed for."""
        found: dict[str, Sums] = {}
        for bill in self.bills:
            sums = found.setdefault(bill.mark, Sums())
            if bill.kind == "embedding":
                sums["embedding_tokens"] += bill.prompt
            elif bill.kind == "rerank":
                sums["rerank_tokens"] += bill.prompt
            else:
                sums["llm_input_tokens"] += bill.prompt
                sums["llm_output_tokens"] += bill.completion
                sums["cached"] += bill.cached
                sums["reasoning"] += bill.reasoning
                sums["llm_calls"] += 1
        return found

    def handle(self, request: Request) -> Script:
        halted = asyncio.Event()
        rest: list[bytes] = []

        def first(request: Request) -> bytes:
            begin, more = self.answer(request)
            if more is None:
                halted.set()
            else:
                rest.append(more)
                self.half_answered.set()
            return begin

        return Script((first, halted, lambda _: rest[0] if rest else b""))

    def answer(self, request: Request) -> tuple[bytes, bytes | None]:
        """The answer's bytes; the second part, where there is one, is sent only when somebody opens the gate."""
        body = json.loads(request.body) if request.body else {}
        path = request.target.partition("?")[0]
        if path.endswith(("/embeddings", "/embed")):
            return self._embed(path, body, request), None
        if path.endswith("/rerank"):
            return self._rerank(body, request), None
        return self._chat(path, body, request)

    # ── chat ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _chat(self, path: str, body: dict[str, Any], request: Request) -> tuple[bytes, bytes | None]:
        text = self._marked("\n".join(str(message.get("content")) for message in body["messages"]))
        kind, said = _said(text)
        if (POISON in text and kind == "extract") or (UNSPEAKABLE in text and kind == "answer"):
            wrong = {"error": {"message": "This text is refused.", "type": "invalid_request_error", "code": "refused"}}
            return _json(wrong, 400), None
        words = len(text.split())
        bill = self._bill(kind, text, body, request, prompt=words + 7, completion=len(said.split()) + 11)
        bill.cached, bill.reasoning = words // 3, len(said.split()) // 4
        if "/api/chat" in path:
            return self._ollama(body, said, bill), None
        usage = {
            "prompt_tokens": bill.prompt,
            "completion_tokens": bill.completion,
            "total_tokens": bill.prompt + bill.completion,
            "prompt_tokens_details": {"cached_tokens": bill.cached, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": bill.reasoning, "audio_tokens": 0},
        }
        head = {"id": f"chatcmpl-{len(self.bills)}", "created": openai_like.CREATED, "model": bill.model}
        if not body.get("stream"):
            message = {"role": "assistant", "content": said, "refusal": None}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return _json({**head, "object": "chat.completion", "choices": [choice], "usage": usage}), None
        return self._stream(body, said, usage, head, SLOW in text and kind == "answer", bill)

    def _stream(
        self, body: dict[str, Any], said: str, usage: dict[str, Any], head: dict[str, Any], slow: bool, bill: Bill
    ) -> tuple[bytes, bytes | None]:
        head = {**head, "object": "chat.completion.chunk"}

        def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return chunk(openai_like.sse({**head, "choices": [choice]}))

        words = said.split()
        parts = [event({"role": "assistant", "content": ""}), *(event({"content": word + " "}) for word in words)]
        end = [event({}, "stop")]
        if (body.get("stream_options") or {}).get("include_usage"):
            end.append(chunk(openai_like.sse({**head, "choices": [], "usage": usage})))
        end += [chunk(openai_like.sse("[DONE]")), LAST_CHUNK]
        if slow:
            bill.complete = False
            half = len(parts) // 2
            return stream_head() + b"".join(parts[:half]), b"".join([*parts[half:], *end])
        return stream_head() + b"".join([*parts, *end]), None

    def _ollama(self, body: dict[str, Any], said: str, bill: Bill) -> bytes:
        bill.cached = bill.reasoning = 0  # Ollama tells neither
        done = {"done": True, "done_reason": "stop", "prompt_eval_count": bill.prompt, "eval_count": bill.completion}
        head = {"model": bill.model, "created_at": "2026-11-22T00:00:00Z"}
        whole = {**head, "message": {"role": "assistant", "content": said}, **done, "total_duration": 1}
        if not body.get("stream"):
            return _json(whole)
        first = {**head, "message": {"role": "assistant", "content": said}, "done": False}
        last = {**whole, "message": {"role": "assistant", "content": ""}}
        lines = b"".join(json.dumps(line).encode() + b"\n" for line in (first, last))
        return response(lines, 200, [("content-type", "application/x-ndjson")])

    # ── the others ───────────────────────────────────────────────────────────────────────────────────────────

    def _embed(self, path: str, body: dict[str, Any], request: Request) -> bytes:
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        tokens = sum(len(text.split()) + 1 for text in texts)
        bill = self._bill("embedding", self._marked("\n".join(texts)), body, request, prompt=tokens)
        bill.texts, tokens = tuple(texts), bill.prompt
        if path.endswith("/api/embed"):
            return _json(
                {"model": body["model"], "embeddings": [_vector(t) for t in texts], "prompt_eval_count": tokens}
            )
        packed = "base64" in (body.get("encoding_format"), body.get("embedding_type"))
        data = [
            {"object": "embedding", "index": at, "embedding": _packed(text) if packed else _vector(text)}
            for at, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return _json({"object": "list", "data": data, "model": body["model"], "usage": usage})

    def _rerank(self, body: dict[str, Any], request: Request) -> bytes:
        documents = body["documents"]
        tokens = len(body["query"].split()) + sum(len(str(text).split()) for text in documents)
        self._bill("rerank", body["query"], body, request, prompt=tokens)
        results = [{"index": at, "relevance_score": 0.9 - at / 1000} for at in range(len(documents))]
        usage = {"total_tokens": tokens, "prompt_tokens": tokens}
        return _json({"model": body["model"], "results": results[: body.get("top_n") or None], "usage": usage})

    def _marked(self, text: str) -> str:
        return " ".join([text, *(mark for phrase, mark in self.phrases.items() if phrase in text)])

    def _bill(
        self, kind: str, text: str, body: dict[str, Any], request: Request, *, prompt: int, completion: int = 0
    ) -> Bill:
        marks = {found[0].lower() for found in _MARK.finditer(text)}
        asking = {mark for mark in marks if mark.startswith("qry")}
        whose = asking or marks
        if len(whose) > 1:
            self.mixed.append(whose)
        mark = min(whose) if whose else "nobody"
        prompt = prompt * NUMBERS + len(self.bills) if self.numbered else prompt
        bill = Bill(kind, mark, str(body.get("model")), prompt, completion=completion, headers=request.x_headers)
        bill.texts = (text,)
        self.bills.append(bill)
        return bill


def _said(text: str) -> tuple[str, str]:
    """What kind of prompt of LightRAG's this is, and an answer it can use."""
    marks = [found[0].lower() for found in _MARK.finditer(text)]
    if "high_level_keywords" in text:
        mark = next((mark for mark in marks if mark.startswith("qry")), "nothing")
        return "keywords", json.dumps(
            {"high_level_keywords": [f"{mark} theme"], "low_level_keywords": [f"{mark} part"]}
        )
    if "Knowledge Graph Specialist responsible for extracting" in text or COMPLETE in text:
        return "extract", _extracted(text.rpartition("---Input Text---")[2] or text, marks)
    if "descriptions" in text and "Knowledge Graph Specialist" in text:
        return "extract", f"A part of {marks[0] if marks else 'nothing'}, described by many."
    mark = next((mark for mark in marks if mark.startswith("qry")), "nobody")
    return "answer", f"Answer to {mark} : " + " ".join(f"word{n}" for n in range(24))


def _extracted(text: str, marks: list[str]) -> str:
    """One entity for each numbered part, all of them related to the document's core."""
    if not marks:
        return COMPLETE
    mark = marks[-1]
    core = f"{mark} Core"
    rows = [f"entity{DELIMITER}{core}{DELIMITER}Concept{DELIMITER}The core of {mark}."]
    for number in sorted({int(found[1]) for found in _PART.finditer(text)}):
        name = f"{mark} Part {number}"
        rows.append(f"entity{DELIMITER}{name}{DELIMITER}Artifact{DELIMITER}Part {number} of {mark} turns the core.")
        rows.append(f"relation{DELIMITER}{name}{DELIMITER}{core}{DELIMITER}turns{DELIMITER}{name} turns {core}.")
    return "\n".join([*rows, COMPLETE])


DIMENSIONS = 16


def _vector(text: str) -> list[float]:
    """Nearly the same direction for every text, so every search finds something."""
    seed = hashlib.sha256(text.encode()).digest()
    return [1.0 + (seed[n] - 128) / 512 for n in range(DIMENSIONS)]


def _packed(text: str) -> str:
    return base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *_vector(text))).decode()


def _json(body: dict[str, Any], status: int = 200) -> bytes:
    return response(json.dumps(body).encode(), status, [("content-type", "application/json")])


def document(mark: str, parts: int, *, poison_at: int = 0) -> str:
    """A text of several chunks, with its mark in each of them."""
    sentences = []
    for number in range(1, parts + 1):
        wrong = f" This {mark} line is {POISON}." if number == poison_at else ""
        sentences.append(
            f"The machine {mark} has part {number} which turns another wheel of {mark} when the morning comes.{wrong}"
        )
    return "\n".join(sentences)
