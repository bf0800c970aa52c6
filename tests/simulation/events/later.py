"""What is asked for now and billed later, as clients plan it: background responses and batches (`objects` answers).

Whoever asked polls, on whatever node, again and again, and fetches the results before or after it knows that they are
there. What an object comes to is drawn beforehand; when it is done follows from when it was accepted.
"""

from __future__ import annotations

import json
import random
from typing import Any, NamedTuple

from simulation.actors.client import Plan

OWN_KEY = "SIMULATED_KEY"
"""The variable with the credential by which control collects."""
ENVIRON = {OWN_KEY: "sk-simulated"}


class Line(NamedTuple):
    """What one request of a batch uses; of a background response the only one."""

    name: str
    prompt_tokens: int
    output_tokens: int
    failed: bool = False
    """It is billed nothing."""


class Job(NamedTuple):
    """One object."""

    name: str
    asked: Plan
    takes_s: float
    ends: str
    """The state in which it ends, unless it is cancelled before."""
    lines: tuple[Line, ...]
    polls: tuple[Plan, ...]

    @property
    def batch(self) -> bool:
        return self.name.startswith("batch")

    @property
    def file(self) -> str:
        """Of its results."""
        return f"file-{self.name}"

    @property
    def calls(self) -> tuple[Plan, ...]:
        """Every request that is about it."""
        return self.asked, *self.polls

    def __str__(self) -> str:
        looks = ", ".join(f"{poll.target.decode()} {poll.fate} at {poll.at_s:.3f} s" for poll in self.polls)
        return f"{self.asked.at_s:7.3f} s: {self.name} of {len(self.lines)} lines, {self.ends}; {looks}"


def draw(seed: int | str, over_s: float, workspaces: int) -> tuple[list[Job], bool]:
    """Of about every third seed; and whether control fetches what nobody does."""
    drawn = random.Random(f"{seed}/later")
    if drawn.random() > 0.35:
        return [], False
    jobs = [_job(drawn, n, over_s, workspaces) for n in range(drawn.randrange(1, 8))]
    return jobs, drawn.random() < 0.4


def _job(drawn: random.Random, n: int, over_s: float, workspaces: int) -> Job:
    batch = drawn.random() < 0.6
    name = f"{'batch' if batch else 'resp'}_job-{n}"
    lines = tuple(
        Line(f"line-{k}", drawn.randrange(1, 50), drawn.randrange(1, 20), failed=drawn.random() < 0.1)
        for k in range(drawn.choice((1, 5, 40)))
    )
    if not batch:
        lines = (lines[0]._replace(name="", failed=False),)
    body: dict[str, Any] = {"model": "gpt-4o-mini", "input": "word word", "background": True, "max_output_tokens": 20}
    if batch:
        body = {"input_file_id": "file-in", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    at_s = drawn.random() * over_s / 2
    asked = Plan(
        at_s=at_s,
        marker=f"job-{n}",
        target=b"/v1/batches" if batch else b"/v1/responses",
        body=json.dumps(body).encode(),
        workspace=f"w{drawn.choice((0, drawn.randrange(workspaces)))}",
        track=drawn.choice((None, "t1", "jobs")),
        fate=drawn.choices(("ok", "cut", "refused"), (90, 5, 5))[0],
        leaves_after_s=drawn.expovariate(1 / 0.15) if drawn.random() < 0.05 else None,
        where=drawn.randrange(1 << 30),
        task=(None, "extract", "answer")[n % 3],
        end_user=(None, "u1")[n % 2],
    )
    ends = ("completed", "failed", "cancelled", "expired") if batch else ("completed", "failed", "incomplete")
    state = drawn.choices(ends, (80, 10, 5, 5)[: len(ends)])[0]
    polls = [_poll(drawn, asked, name, k, at_s, over_s) for k in range(drawn.choice((0, 2, 6, 10)))]
    if drawn.random() < 0.2:  # nobody gets the results to their end
        polls = [poll._replace(fate="cut") if b"/files/" in poll.target else poll for poll in polls]
    return Job(name, asked, drawn.uniform(0.05, 2.0), state, lines, tuple(polls))


def _poll(drawn: random.Random, asked: Plan, name: str, k: int, at_s: float, over_s: float) -> Plan:
    """One look, mostly by whoever asked."""
    kinds: tuple[str, ...] = (
        f"/v1/batches/{name}",
        f"/v1/files/file-{name}/content",
        "/v1/batches",
        f"/v1/batches/{name}/cancel",
    )
    if name.startswith("resp"):
        kinds = (f"/v1/responses/{name}", f"/v1/responses/{name}?stream=true", f"/v1/responses/{name}/cancel")
    target = drawn.choices(kinds, (45, 45, 8, 2) if len(kinds) == 4 else (70, 26, 4))[0]
    return asked._replace(
        at_s=drawn.uniform(at_s, over_s),
        marker=f"{asked.marker}.{k}",
        method=b"POST" if target.endswith("/cancel") else b"GET",
        target=target.encode(),
        body=b"",
        workspace=asked.workspace if drawn.random() < 0.92 else "w-other",
        fate=drawn.choices(("ok", "cut", "refused", "unreachable"), (80, 12, 5, 3))[0],
        leaves_after_s=drawn.expovariate(1 / 0.15) if drawn.random() < 0.08 else None,
        where=drawn.randrange(1 << 30),
        task="poll",
        end_user=None,
    )
