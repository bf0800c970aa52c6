"""The provider's side of what is billed later: what it accepted, what it answers of it, and what it bills."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from simulation.events.later import Job, Line


class Served(NamedTuple):
    """What an answer told, to its last byte."""

    job: Job
    file: bool
    """Of its lines; else of the object."""


class Objects:
    """The provider's side: what it accepted, and what it answers of it."""

    def __init__(self, jobs: list[Job], now_s: Callable[[], float], seed: int, troubled_s: float) -> None:
        self.jobs = {job.name: job for job in jobs}
        self._by_marker = {job.asked.marker: job for job in jobs}
        self._now_s = now_s
        self._troubled_s = troubled_s
        self.luck = random.Random(f"{seed}/objects")
        """What becomes of what control asks for, and where answers are cut into pieces."""
        self.accepted: dict[str, float] = {}
        """When each object that there is was asked for."""
        self._cancelled: set[str] = set()
        self.served: dict[str, list[Served]] = {}
        """Marker of a poll -> what its answer tells of objects that had ended."""
        self.telling: list[Served] = []
        """What the last answer tells."""
        self.collected: list[Served] = []
        """What answers to control tell, whole or not."""
        self.passed: list[Served] = []
        """What has left to the last byte, to whomever."""

    def fate(self) -> str:
        """What becomes of a request of control; in the end it goes well."""
        if self._now_s() > self._troubled_s:
            return "ok"
        return self.luck.choices(("ok", "cut", "refused", "unreachable"), (80, 8, 8, 4))[0]

    def concerned(self, method: bytes, target: bytes) -> bool:
        """Whether a request is about these."""
        path = target.partition(b"?")[0]
        return method == b"GET" or path.startswith((b"/v1/responses", b"/v1/batches"))

    def answer(self, marker: str | None, method: bytes, target: bytes) -> tuple[int, bytes, list[bytes]]:
        """Status, content-type and pieces of an answer; `marker` None: control asks."""
        self.telling = []
        path, _, query = target.decode().partition("?")
        parts = path.split("/")[2:]
        if method == b"POST" and len(parts) == 1:
            assert marker is not None
            job = self._by_marker[marker]
            self.accepted.setdefault(job.name, self._now_s())
            return _json(self._object(job))
        if method == b"GET" and len(parts) == 1:
            mine = [self.jobs[name] for name in self.accepted if self.jobs[name].batch]
            self._note(marker, mine)
            return self._pieces(_json({"object": "list", "data": [self._object(job) for job in mine]}))
        name = parts[1].removeprefix("file-")
        if name not in self.accepted or (parts[0] == "files" and not self.has_file(self.jobs[name])):
            return _json({"error": {"message": f"No {parts[0]} with id {parts[1]}.", "code": "not_found"}}, 404)
        job = self.jobs[name]
        if parts[-1] == "cancel" and not self.state(job):
            self._cancelled.add(name)
        if parts[0] == "files":
            self._note(marker, [job], file=True)
            return self._pieces((200, b"application/octet-stream", [_results(job)]))
        self._note(marker, [job])
        found = self._object(job)
        if query == "stream=true" and self.state(job):
            event = {"type": f"response.{found['status']}", "sequence_number": 0, "response": found}
            text = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
            return self._pieces((200, b"text/event-stream", [text]))
        return self._pieces(_json(found))

    def state(self, job: Job) -> str:
        """How it ended; "": it goes on, or was never accepted."""
        if job.name in self._cancelled:
            return "cancelled"
        at_s = self.accepted.get(job.name)
        return job.ends if at_s is not None and self._now_s() >= at_s + job.takes_s else ""

    def billed(self, job: Job) -> tuple[Line, ...]:
        """What the provider bills of it now."""
        state = self.state(job)
        if not state or state == "failed":
            return ()
        return tuple(line for line in job.lines if not line.failed)

    def has_file(self, job: Job) -> bool:
        """Whether there are results by now."""
        return job.batch and self.state(job) not in ("", "failed")

    def _note(self, marker: str | None, jobs: list[Job], *, file: bool = False) -> None:
        self.telling = served = [Served(job, file) for job in jobs if self.state(job)]
        if marker is None:
            self.collected += served
        else:
            self.served[marker] = served

    def _object(self, job: Job) -> dict[str, Any]:
        state = self.state(job)
        if job.batch:
            file = job.file if self.has_file(job) else None
            return {"id": job.name, "object": "batch", "status": state or "in_progress", "output_file_id": file}
        found: dict[str, Any] = {
            "id": job.name,
            "object": "response",
            "model": "gpt-4o-mini",
            "background": True,
            "output": [],
        }
        [line] = job.lines
        told = state in ("completed", "incomplete")
        usage = {"input_tokens": line.prompt_tokens, "output_tokens": line.output_tokens} if told else None
        return {**found, "status": state or "in_progress", "usage": usage}

    def _pieces(self, answer: tuple[int, bytes, list[bytes]]) -> tuple[int, bytes, list[bytes]]:
        status, kind, [data] = answer
        ends = [*sorted({self.luck.randrange(1, len(data)) for _ in range(3)}), len(data)]
        return status, kind, [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _json(body: Any, status: int = 200) -> tuple[int, bytes, list[bytes]]:
    return status, b"application/json", [json.dumps(body).encode()]


def _results(job: Job) -> bytes:
    lines = []
    for line in job.lines:
        usage = {"prompt_tokens": line.prompt_tokens, "completion_tokens": line.output_tokens}
        body = {"object": "chat.completion", "model": "gpt-4o-mini", "choices": [], "usage": usage}
        response = {"status_code": 200, "body": body}
        if line.failed:
            response = {"status_code": 429, "body": {"error": {"message": "slow down"}}}
        lines.append(json.dumps({"custom_id": line.name, "response": response, "error": None}).encode() + b"\n")
    return b"".join(lines)
