"""Redis, read as bytes: every hash of sums, the sets that name them, how far it has counted, what is held."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from simulation.audit.journals import Journal, Said
from simulation.audit.sums import Sums, model, named, total
from simulation.audit.uneven import Uneven, same

Keys = Mapping[bytes, Any]

BOOKKEEPING = re.compile(r"(cursor|gen|models|tasks|tallies|held|reserved|reserved_at)$|tally:|cap:|rate")
"""What of a workspace is no sum, after its prefix."""


@lru_cache(10_000)
def name(text: str) -> str:
    """A name as part of a key (docs/design.md, section 5)."""
    found = quote(text, safe="._:@/+~-", errors="surrogatepass") or "~"
    if len(found) <= 200:
        return found
    return f"{found[:167]}~{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def prefix(workspace: str) -> str:
    return f"tm:{{{name(workspace)}}}:"


def compare(keys: Keys, journals: Mapping[str, Journal], *, forgot: bool) -> None:
    """Raises Uneven. `forgot`: it came back once without something that it had known."""
    records = [said for journal in journals.values() for said in journal.records]
    expected = _expected(records)
    same("Redis", _told(keys), expected)
    _names(keys, expected)
    _cursors(keys, journals, forgot=forgot)


def _whole(key: str) -> str:
    """A workspace's own key, of one of a part of it (docs/scaling.md, a hot workspace)."""
    return re.sub(r"^(tm:\{[^}|]*)\|[0-9]+\}", r"\1}", key)


def _told(keys: Keys) -> Sums:
    found: Sums = {}
    for key, value in keys.items():
        text = key.decode()
        if not text.startswith("tm:{") or "{tm:" in text or BOOKKEEPING.match(text.partition("}:")[2]):
            continue
        sums = found.setdefault(_whole(text), {})
        for field, amount in value.items():
            sums[field.decode()] = sums.get(field.decode(), 0) + int(amount)
    stripped = {key: {field: amount for field, amount in sums.items() if amount} for key, sums in found.items()}
    return {key: sums for key, sums in stripped.items() if sums}


def _scopes(said: Said) -> list[str]:
    """What a record is summed in, after the prefix."""
    at_us, task, track = said["ended_at"], said.get("task"), said.get("track")
    found = ["total", *(named(at_us, form) for form in ("month:%Y-%m", "day:%Y-%m-%d", "hour:%Y-%m-%dT%H"))]
    found.append(f"model:{name(said['provider'])}/{name(model(said))}")
    found += [f"task:{name(task)}"] if task else []
    found += [f"track:{name(track)}"] if track else []
    return found


def _expected(records: Iterable[Said]) -> Sums:
    scoped: dict[str, list[Said]] = {}
    for said in records:
        for scope in _scopes(said):
            scoped.setdefault(prefix(said["workspace"]) + scope, []).append(said)
    return {key: sums for key, those in scoped.items() if (sums := total(those, details=False))}


def _names(keys: Keys, expected: Sums) -> None:
    """Every workspace, and each one's models and tasks, are in the sets that name them."""
    spaces = {key.partition("{")[2].partition("}")[0].encode() for key in expected}
    if not spaces <= keys.get(b"tm:workspaces", set()):
        raise Uneven(f"Redis' list of workspaces lacks some of {spaces}: {keys.get(b'tm:workspaces')}")
    for kind in ("model", "task"):
        sets = [there for key, there in keys.items() if key.endswith(b"}:%bs" % kind.encode())]
        listed = {_whole(key.decode()) for there in sets for key in there}
        there = {key for key in expected if key.partition("}:")[2].startswith(f"{kind}:")}
        if not there <= listed:
            raise Uneven(f"Redis' list of {kind}s lacks {there - listed}")


def _cursors(keys: Keys, journals: Mapping[str, Journal], *, forgot: bool) -> None:
    """No mark is beyond its journal's end; each journal is passed whole, where nothing was forgotten."""
    marks = {key.decode(): value for key, value in keys.get(b"tm:{tm:workspaces}:watermark", {}).items()}
    ends = {each.journal_id: each.seq for each in journals.values()}
    for journal_id, end in ends.items():
        mark = int(marks.get(journal_id, 0))
        if mark > end or (mark < end and not forgot):
            raise Uneven(f"Redis says that it has counted journal {journal_id} up to {mark}, and it ends at {end}")
    for key, value in keys.items():
        if key.endswith(b"}:cursor"):
            for journal_id, seq in value.items():
                if int(seq) > ends.get(journal_id.decode(), 0):
                    raise Uneven(f"Redis' {key.decode()} of journal {journal_id.decode()} is at {int(seq)}, beyond it")
    in_parts = Counter(
        (_whole(key.decode()), journal_id)
        for key, value in keys.items()
        if key.endswith(b"}:cursor")
        for journal_id in value
    )
    if twice := [each for each, count in in_parts.items() if count > 1]:
        raise Uneven(f"Redis counts a journal in more than one part of a workspace: {twice[:3]}")
