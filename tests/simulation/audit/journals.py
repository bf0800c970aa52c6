"""The journals, read as what they are: files of JSON lines. Each is whole, has ended, and has nothing open in it."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from simulation.audit import interrupted
from simulation.audit.uneven import NotYet, Uneven

if TYPE_CHECKING:
    from simulation.simulation import Simulation


class Said(dict[str, Any]):
    """A record, as its line says it; `DEFAULTS` says what a member that is left out stands for. It is not changed."""

    __slots__ = ("series", "sums")
    sums: Counter[str]
    """What it adds, once that was worked out (`sums.adds`)."""
    series: tuple[str, ...]
    """What it adds to in history, likewise (`sql`)."""


DEFAULTS: dict[str, Any] = {
    "kind": "usage", "attempt": 1, "operation": "other", "stream": False, "partial": False, "inconsistent": False,
    "input_source": "none", "output_source": "none", "tags": {}, "files": [], "request_bytes": 0, "response_bytes": 0,
}  # fmt: skip
"""docs/design.md, section 3. Of any other member, null."""


_TOLD_AT = {"open": "started_at", "tick": "at", "close": "ended_at", "cut": "at"}
"""When a line was written, or of when it tells: its writer was alive then."""


class Journal(NamedTuple):
    """One file."""

    journal_id: str
    node: str
    """Where it lies, or lay last."""
    written_by: str
    """The node its header names."""
    records: list[Said]
    lines: list[bytes]
    """The same records as they are written, from brace to brace."""
    seq: int
    """The last number given in it."""


def files(simulation: Simulation) -> list[tuple[str, bytes]]:
    """Every file of every journal's directory, those that were removed too.

    One that is there and was removed, too, came back with a power loss, or from a copy.
    """
    there: dict[str, bytes] = {}
    names: Counter[str] = Counter()
    for node in simulation.nodes:
        for folder in (node.directory / "journal", node.directory / "journal" / "aside"):
            with contextlib.suppress(FileNotFoundError):
                for name, data in simulation.disk.copy(str(folder)).items():
                    there[f"{folder}/{name}"] = data
                    names[name] += 1
    if twice := [name for name, count in names.items() if count > 1]:
        raise Uneven(f"they are there twice: {twice}")
    gone: dict[str, tuple[str, bytes]] = {}
    for path, data in simulation.disk.removed:
        name = PurePosixPath(path).name
        if data.startswith(b"\0"):  # the power took its first page: who adopts it names it, and an operator moves it
            continue
        if name not in gone or b"\n" in data:  # else a power loss had brought its name back, and no line
            gone[name] = path, data
    return [*there.items(), *(found for name, found in gone.items() if name not in names)]


def read(
    found: list[tuple[str, bytes]], known: dict[tuple[str, bytes], Journal], *, power_lost: bool
) -> dict[str, Journal]:
    """All journals by their ids. `known`: those read before, as books that are not even yet are looked at again.

    `power_lost`: a file may lack lines, where it says so.
    """
    journals: dict[str, Journal] = {}
    for path, data in found:
        name = PurePosixPath(path)
        if name.suffix != ".jsonl" or name.name.startswith(".") or "journal" not in name.parts:
            continue
        if power_lost and b"\n" not in data:
            continue  # a power loss left its name
        if not data.endswith(b"\n"):
            raise Uneven(f"{path} ends in the middle of a line")
        if (path, data) not in known:
            known[path, data] = _journal(path, data, power_lost=power_lost)
        journals[name.stem] = known[path, data]
    twice = Counter(
        (said["request_id"], said.get("attempt", 1), said.get("kind"), said.get("line"))
        for journal in journals.values()
        for said in journal.records
        if said.get("kind", "usage") == "usage"
    )
    if again := [key for key, count in twice.items() if count > 1]:
        raise Uneven(f"attempts with more than one record: {again[:5]}")
    return journals


def _journal(path: str, data: bytes, *, power_lost: bool) -> Journal:
    name, texts = PurePosixPath(path), data.split(b"\n")[:-1]
    torn = [text for text in texts if power_lost and b"\0" in text]  # pages that were not written
    texts, lacks_a_page = [text for text in texts if text not in torn], bool(torn)
    lines = [_json(path, text) for text in texts]
    header = lines[0].get("journal", {})
    if header.get("journal_id") != name.stem:
        raise Uneven(f"{path} has no header")
    if "end" not in lines[-1]:
        raise NotYet(f"{path} has not ended")
    journal = Journal(name.stem, name.parts[2], header["node"], [], [], lines[-1]["end"]["seq"])
    opened: Counter[tuple[str, int]] = Counter()
    ticks: dict[tuple[str, int], Any] = {}
    alive_us = header["started_at"]
    for text, line in zip(texts[1:-1], lines[1:-1], strict=True):
        [(kind, said)] = line.items()
        if kind == "open":
            opened[said["request_id"], said.get("attempt", 1)] += 1
        elif kind == "tick":
            ticks[said["request_id"], said.get("attempt", 1)] = said
        elif kind == "close":
            opened[said["request_id"], said.get("attempt", 1)] -= 1
            of_dead_writer = said["outcome"] == "interrupted" and not {"duration_ms", "kind", "line"} & said.keys()
            if of_dead_writer and not torn and said["ended_at"] != max(alive_us, said["started_at"]):
                raise Uneven(f"its writer was last alive at {alive_us}, when it must have ended: {said}")
            told = ticks.pop((said["request_id"], said.get("attempt", 1)), None)
            if of_dead_writer and not torn and (wrong := interrupted.wrong(said, told)):
                raise Uneven(f"by the last that its writer told, {told}, it should say {wrong}: {said}")
            journal.records.append(Said(said))
            journal.lines.append(text[len(b'{"close":') : -1])
        elif kind == "cut" and power_lost:
            torn.append(text)
        else:
            raise Uneven(f"{path} has a line {kind} in its middle")
        alive_us = max(alive_us, said[_TOLD_AT[kind]])
    given = [str(said.get("event_id")) for said in journal.records]
    if torn:
        seqs = [int(each.rpartition(":")[2]) for each in given]
        if seqs != sorted(set(seqs)) or any(not each.startswith(f"{name.stem}:") for each in given):
            raise Uneven(f"{path} gives numbers twice: {seqs}")
    elif given != [f"{name.stem}:{seq}" for seq in range(1, len(given) + 1)]:
        raise Uneven(f"{path} does not number its records 1, 2, 3 …: {given[:20]}")
    if lines[-1]["end"]["seq"] != len(given) and not torn:
        raise Uneven(f"{path} says it ends with {lines[-1]['end']}, and has {len(given)} records")
    left = [call for call, count in opened.items() if count > 0]
    if left and not lacks_a_page:  # else they ended on that page, and history has them
        raise Uneven(f"{path} has open calls: {left[:5]}")
    return journal


def _json(path: str, line: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        raise Uneven(f"{path} has a line that is none: {line[:200]!r}") from None
    return found


def known_lost(found: list[tuple[str, bytes]], *, power_lost: bool) -> int:
    """Calls of which writers say that no line could be kept. `power_lost`: what they said may be gone."""
    lost = 0
    for path, data in found:
        if path.endswith(".status") and "/." not in path:
            try:
                said = json.loads(data or b"{}")
            except ValueError:
                if not power_lost:
                    raise
                continue
            lost += said.get("lost", 0) + said.get("unsaved", 0)
    return lost
