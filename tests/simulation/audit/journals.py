"""The journals, read as what they are: files of JSON lines. Each is whole, has ended, and has nothing open in it."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from simulation.audit.uneven import NotYet, Uneven

if TYPE_CHECKING:
    from simulation.simulation import Simulation


class Said(dict[str, Any]):
    """A record, as its line says it; `DEFAULTS` says what a member that is left out stands for. It is not changed."""

    __slots__ = ("sums",)
    sums: Counter[str]
    """What it adds, once that was worked out (`sums.adds`)."""


DEFAULTS: dict[str, Any] = {
    "kind": "usage", "attempt": 1, "operation": "other", "stream": False, "partial": False, "inconsistent": False,
    "input_source": "none", "output_source": "none", "tags": {}, "files": [], "request_bytes": 0, "response_bytes": 0,
}  # fmt: skip
"""docs/design.md, section 3. Of any other member, null."""


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


def files(simulation: Simulation) -> list[tuple[str, bytes]]:
    """Every file of every journal's directory, those that were removed too."""
    found = list(simulation.disk.removed)
    for node in simulation.nodes:
        for folder in (node.directory / "journal", node.directory / "journal" / "aside"):
            with contextlib.suppress(FileNotFoundError):
                found += [(f"{folder}/{name}", data) for name, data in simulation.disk.copy(str(folder)).items()]
    return found


def read(found: list[tuple[str, bytes]], known: dict[tuple[str, bytes], Journal]) -> dict[str, Journal]:
    """All journals by their ids. `known`: those read before, as books that are not even yet are looked at again."""
    journals: dict[str, Journal] = {}
    for path, data in found:
        name = PurePosixPath(path)
        if name.suffix != ".jsonl" or name.name.startswith(".") or "journal" not in name.parts:
            continue
        if name.stem in journals:
            raise Uneven(f"{path} is there twice")
        if not data.endswith(b"\n"):
            raise Uneven(f"{path} ends in the middle of a line")
        if (path, data) not in known:
            known[path, data] = _journal(path, data)
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


def _journal(path: str, data: bytes) -> Journal:
    name, texts = PurePosixPath(path), data.split(b"\n")[:-1]
    lines = [_json(path, text) for text in texts]
    header = lines[0].get("journal", {})
    if header.get("journal_id") != name.stem:
        raise Uneven(f"{path} has no header")
    if "end" not in lines[-1]:
        raise NotYet(f"{path} has not ended")
    journal = Journal(name.stem, name.parts[2], header["node"], [], [])
    opened: Counter[tuple[str, int]] = Counter()
    for text, line in zip(texts[1:-1], lines[1:-1], strict=True):
        [(kind, said)] = line.items()
        if kind == "open":
            opened[said["request_id"], said.get("attempt", 1)] += 1
        elif kind == "close":
            opened[said["request_id"], said.get("attempt", 1)] -= 1
            journal.records.append(Said(said))
            journal.lines.append(text[len(b'{"close":') : -1])
        elif kind != "tick":
            raise Uneven(f"{path} has a line {kind} in its middle")
    given = [said.get("event_id") for said in journal.records]
    if given != [f"{name.stem}:{seq}" for seq in range(1, len(given) + 1)]:
        raise Uneven(f"{path} does not number its records 1, 2, 3 …: {given[:20]}")
    if lines[-1]["end"]["seq"] != len(given):
        raise Uneven(f"{path} says it ends with {lines[-1]['end']}, and has {len(given)} records")
    if left := [call for call, count in opened.items() if count > 0]:
        raise Uneven(f"{path} has open calls: {left[:5]}")
    return journal


def _json(path: str, line: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        raise Uneven(f"{path} has a line that is none: {line[:200]!r}") from None
    return found


def known_lost(found: list[tuple[str, bytes]]) -> int:
    """Calls of which writers say that no line could be kept."""
    lost = 0
    for path, data in found:
        if path.endswith(".status") and "/." not in path:
            said = json.loads(data or b"{}")
            lost += said.get("lost", 0) + said.get("unsaved", 0)
    return lost
