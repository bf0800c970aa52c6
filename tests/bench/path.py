"""Section `path`: the loop turns and system calls of one unary call, from its first byte in to the last byte out.

Counted by strace, one call at a time, on a worker that is warm: nothing here depends on how fast the machine is. What
timers do beside the calls (syncing, ticks) falls between a few of them; the shape that most calls have is shown.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import paced, peers, processes
from bench.figures import LeftOut
from bench.latency import END
from bench.node import taximeter
from bench.running import Running
from bench.scenarios import UNARY
from waits import tree, until

CALLS, WARM_CALLS = 200, 50
INTRODUCTION = "From the first byte of a request to the last of its answer, one call at a time, counted by strace."
WAITS = ("epoll_wait", "epoll_pwait", "epoll_pwait2")
"""A turn of a loop begins where one of these comes back."""
_LINE = re.compile(r"^(?P<thread>\d+) +(?P<rest>.*)$")
_CALL = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)")
_ENDS = re.compile(r"<TCP:\[[^\]]*?:(?P<local>\d+)->[^\]]*?:(?P<remote>\d+)\]>")
_FILE = re.compile(r"<(?P<path>/[^>]*)>")


@dataclass(frozen=True)
class Call:
    """A system call, and what it was made on; of client and upstream also whether it holds the request or answer."""

    name: str
    on: str


Turn = tuple[Call, ...]
Shape = tuple[Turn, ...]


def measure() -> list[str]:
    """Lines for the page. Raises LeftOut."""
    if shutil.which("strace") is None:
        raise LeftOut("strace is not installed: apt-get install strace (or your system's package)")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taximeter-bench-")))
        port = stack.enter_context(UNARY.upstream(folder))
        lines = [INTRODUCTION, ""]
        for name, start in (("taximeter", taximeter), ("nginx", peers.nginx)):
            own = folder / name
            own.mkdir()
            try:
                running = start(port, own)
            except LeftOut as missing:
                lines += [f"Left out: {missing}", ""]
                continue
            stack.callback(processes.stop, running.process)
            lines += page(name, shapes(_traced(running, own), int(running.url.split(":")[2].split("/")[0]), port))
    return lines


def _traced(running: Running, folder: Path) -> str:
    """What strace wrote of the process that answers, over `CALLS` calls."""
    caller = paced.Caller(running.url + UNARY.path, UNARY.body, END)
    for _ in range(WARM_CALLS):
        caller.call()
    pids = tree(running.process.pid)
    pid = next((one for one in pids if processes.title(one) == "worker"), pids[0])
    with _strace(pid, folder) as log:
        for _ in range(CALLS):
            caller.call()
    caller.close()
    return log.read_text(errors="replace")


@contextlib.contextmanager
def _strace(pid: int, folder: Path) -> Iterator[Path]:
    """Attached from here to there, with what a descriptor is beside its number; the log."""
    log, said = folder / "strace.log", folder / "strace.said"
    argv = ["strace", "-f", "-yy", "-s", "12", "-o", str(log), "-p", str(pid)]
    with said.open("wb") as out, subprocess.Popen(argv, stdout=out, stderr=out) as process:
        try:
            until(lambda: process.poll() is not None or "attached" in said.read_text(), "strace", process.pid)
            if process.poll() is not None:
                raise LeftOut(f"strace may not attach: {said.read_text().strip()}")
            yield log
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)


def shapes(log: str, port: int, provider: int) -> Counter[Shape]:
    """How often calls had which shape; `port`: the proxy's own, `provider`: the upstream's."""
    turns = _turns(log, port, provider)
    begins = [at for at, turn in enumerate(turns) if any(call.on == "client: request" for call in turn)]
    whole = zip(begins, [*begins[1:], len(turns)], strict=True)
    return Counter(tuple(turn for turn in turns[begin:end] if turn) for begin, end in whole)


def _turns(log: str, port: int, provider: int) -> list[Turn]:
    """The turns of the loop that takes the requests; what other threads do is left out. An idle turn is empty."""
    lines = [found.groupdict() for line in log.splitlines() if (found := _LINE.match(line))]
    main = next((line["thread"] for line in lines if '"POST ' in line["rest"]), "")
    turns: list[list[Call]] = []
    begun = ""
    for line in lines:
        if line["thread"] != main:
            continue
        rest = line["rest"]
        if "<unfinished ...>" in rest:
            begun = rest.partition("<unfinished")[0]
            continue
        if resumed := re.match(r"<\.\.\. \w+ resumed>", rest):
            rest, begun = begun + rest[resumed.end() :], ""
        if not (found := _CALL.match(rest)):
            continue
        if found["name"] in WAITS:
            turns.append([])
        elif turns:
            turns[-1].append(Call(found["name"], _on(found["arguments"], port, provider)))
    return [tuple(turn) for turn in turns]


def _on(arguments: str, port: int, provider: int) -> str:
    """What a call is made on, and with what: the client, the upstream, a file, or nothing that is known."""
    ends = _ENDS.search(arguments)
    if ends and int(ends["local"]) == port:
        return "client: request" if '"POST ' in arguments else "client: answer" if '"HTTP' in arguments else "client"
    if ends and int(ends["remote"]) == provider:
        return (
            "upstream: request" if '"POST ' in arguments else "upstream: answer" if '"HTTP' in arguments else "upstream"
        )
    if file := _FILE.search(arguments):
        return "journal" if "/journal/" in file["path"] else Path(file["path"]).name
    return ""


def page(name: str, seen: Counter[Shape]) -> list[str]:
    """A row for each turn of the usual shape, with its system calls in their order."""
    [(usual, often)] = seen.most_common(1)
    calls = sum(len(turn) for turn in usual) + len(usual)
    lines = [
        f"**{name}**: {len(usual)} turns of its loop and {calls} system calls, in {often} of {seen.total()} calls.",
        "",
        "| turn | what the loop waits with, and what it does then |",
        "|---:|---|",
    ]
    for number, turn in enumerate(usual, 1):
        done = ", ".join(f"`{call.name}`" + (f" ({call.on})" if call.on else "") for call in turn)
        lines.append(f"| {number} | `epoll_wait`, {done} |")
    return [*lines, ""]
