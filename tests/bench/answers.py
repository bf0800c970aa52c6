"""Whether a proxy's answer is right: it says what the provider's own answer to the same request says."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from bench import processes
from bench.figures import LeftOut
from bench.running import Running

ANSWER_S = 30.0
"""Longest wait for an answer, and for the first that is right."""
PAUSE_S = 0.02
OK = 200


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    def says(self) -> tuple[object, ...]:
        """The text, and what was used for it. Raises ValueError, KeyError, IndexError or TypeError: no such answer."""
        if self.body.startswith(b"data:"):
            return _stream_says(self.body)
        told: Any = json.loads(self.body)
        usage = told["usage"]
        if "data" in told:
            return ("embedding", usage["prompt_tokens"])
        if "choices" in told:
            return (told["choices"][0]["message"]["content"], usage["prompt_tokens"], usage["completion_tokens"])
        return (told["content"][0]["text"], usage["input_tokens"], usage["output_tokens"])


def _stream_says(body: bytes) -> tuple[object, ...]:
    """All its text; the end is one of its own. Usage is not compared: who does not ask for it may not get it."""
    events = [line[5:].strip() for line in body.splitlines() if line.startswith(b"data:")]
    if events[-1] != b"[DONE]":
        raise ValueError("a stream without its last event")
    parts: list[Any] = [json.loads(event) for event in events[:-1]]
    return ("".join(choice["delta"].get("content") or "" for part in parts for choice in part["choices"]),)


def post(url: str, body: bytes, headers: dict[str, str]) -> Answer:
    """One call on a connection of its own. Raises OSError, HTTPException."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_S)
    told = {"Content-Type": "application/json", "Authorization": "Bearer sk-bench", **headers}
    try:
        connection.request("POST", parts.path, body, told)
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, response.read())
    finally:
        connection.close()


def first(running: Running, path: str, body: bytes) -> float:
    """Wait for the first answer with 200; seconds since the proxy's process was started. Raises LeftOut."""
    said, begun = "nothing", time.monotonic()
    while time.monotonic() - begun < ANSWER_S:
        try:
            answer = post(running.url + path, running.named(body), running.headers)
        except (OSError, http.client.HTTPException) as error:
            said = repr(error)
        else:
            if answer.status == OK:
                return processes.age_s(running.process.pid)
            said = f"{answer.status} {answer.body[:200]!r}"
        time.sleep(PAUSE_S)
    raise LeftOut(f"{running.name} answers {path} with {said} for {ANSWER_S:.0f} s")


def check(running: Running, path: str, body: bytes, direct: Answer) -> None:
    """Raises LeftOut where an answer does not say what the provider's own does."""
    try:
        got = post(running.url + path, running.named(body), running.headers)
        right = got.status == OK and got.says() == direct.says() and running.marks.items() <= got.headers.items()
    except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
        raise LeftOut(f"{running.name} gives a wrong answer on {path}: {error!r}") from error
    if not right:
        raise LeftOut(f"{running.name} gives a wrong answer on {path}: {got.status} {got.body[:200]!r}")
