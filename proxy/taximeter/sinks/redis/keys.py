"""The names of the Redis counters' keys, their periods and how long they live (DESIGN §5).

All keys of a workspace share the hash tag `{workspace}`, so that one script may touch them on a Cluster. One that is
split has parts, of which each but the first has a tag of its own, `{workspace|1}`: what it used is the sum over them.
Names that others chose (models most of all) are escaped and bounded. Each is made once and then remembered. Pure.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote
from zlib import crc32

from taximeter.budgets.tally import Tally

WORKSPACES = "tm:workspaces"
"""Set of every workspace with counters; entered before its first count."""
WATERMARK = "tm:{tm:workspaces}:watermark"
"""Hash journal_id -> seq up to which *every* workspace has been counted, plus `generation` and `history`.

In one slot with WORKSPACES, so that a fail-over that forgets a workspace also forgets that it was counted.
"""
MOVED = "tm:{tm:workspaces}:moved"
"""Hash journal_id -> when (s since epoch) its watermark last rose."""
CURSOR_LIVES_S = 30 * 86_400
"""A workspace's cursor in a journal goes this long after the watermark last rose: its file is long gone then."""
REBUILDING = "tm:{tm:workspaces}:rebuilding"
"""Lease of whoever is rebuilding now."""
AUDITOR = "tm:{tm:workspaces}:auditor"
"""Lease of whoever compares counters with history now (nodes.Turn)."""
NODES = "tm:nodes"
"""Hash node -> `<history id> <last seen, s since epoch>`."""

GENERATION_FIELD, HISTORY_FIELD = "generation", "history"
REBUILDING_PREFIX = "rebuild:"
"""A workspace's generation starts with this while its counters are being written anew."""

MAX_PARTS = 64
"""Into so many parts a workspace's counters are split at most: whoever reads them reads each."""

MAX_NAMES = 200
"""Models, and tasks, with a hash of their own in a workspace; the others are summed in `other`."""
MAX_NAME_CHARS = 200

HOUR_US = 3_600_000_000
_DAY_S = 86_400
DAY_LIVES_S = 400 * _DAY_S
HOUR_LIVES_S = 8 * _DAY_S
TRACK_LIVES_S = 30 * _DAY_S

_plain = re.compile(r"[A-Za-z0-9._:@/+~-]{1,200}").fullmatch


@lru_cache(maxsize=16_384)
def name(text: str) -> str:
    """`text` as part of a key: characters other than `A-Za-z0-9._:@/+~-` percent-encoded (UTF-8), at most 200 long.

    A longer one is cut to 167 characters and `~` and 32 hex digits of its SHA-256: distinct names stay distinct.
    An empty one is `~`.
    """
    if _plain(text):
        return text
    quoted = quote(text, safe="._:@/+~-", errors="surrogatepass") or "~"
    if len(quoted) <= MAX_NAME_CHARS:
        return quoted
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{quoted[: MAX_NAME_CHARS - 33]}~{digest[:32]}"


def prefix(workspace: str, part: int = 0) -> str:
    """What every key of a workspace, or of one of its parts, starts with. No name has a `|` that is not escaped."""
    return f"tm:{{{name(workspace)}|{part}}}:" if part else f"tm:{{{name(workspace)}}}:"


def prefixes(workspace: str, parts: int) -> list[str]:
    """Those of all parts, the first of which is where a workspace that is not split has everything."""
    return [prefix(workspace, part) for part in range(parts)]


def whole(of_part: str) -> str:
    """The prefix of a part -> that of its workspace's first."""
    before, bar, _ = of_part.partition("|")
    return f"{before}}}:" if bar else of_part


def part_of(journal_id: str, parts: int) -> int:
    """Which part a journal's records are counted in, all of them and its cursor, as long as there are so many."""
    return crc32(journal_id.encode()) % parts if parts > 1 else 0


def generation(token: str, parts: int) -> str:
    """What `gen` says: a token that changes whenever the counters are written anew, and, where a workspace is split,
    `/` and into how many parts."""
    return f"{token}/{parts}" if parts > 1 else token


def parts_in(generation: str) -> int:
    """Into how many parts a workspace of this generation is split; 1 where it is not."""
    said = generation.rpartition("/")[2] if "/" in generation else ""
    return min(max(int(said), 1), MAX_PARTS) if said.isdecimal() else 1


@lru_cache(maxsize=4_096)
def model(provider: str, served: str) -> str:
    """The part of a model's key after the prefix: `model:<provider>/<model>`."""
    return f"model:{name(provider)}/{name(served)}"


@lru_cache(maxsize=4_096)
def task(label: str) -> str:
    return f"task:{name(label)}"


@lru_cache(maxsize=4_096)
def track(label: str) -> str:
    return f"track:{name(label)}"


@lru_cache(maxsize=4_096)
def periods(hour: int) -> tuple[str, str, str, int, int]:
    """Hours since epoch -> month, day and hour keys after the prefix, and when (s since epoch) day and hour expire."""
    at = datetime.fromtimestamp(hour * 3_600, UTC)
    day_ends = (hour // 24 + 1) * _DAY_S
    return (
        f"month:{at:%Y-%m}",
        f"day:{at:%Y-%m-%d}",
        f"hour:{at:%Y-%m-%dT%H}",
        day_ends + DAY_LIVES_S,
        (hour + 1) * 3_600 + HOUR_LIVES_S,
    )


def hour_of(text: str) -> int:
    """Hours since epoch of an hour `2026-11-22T09`, or of a day's first `2026-11-22`."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) // 3_600


@lru_cache(maxsize=16_384)
def tally(of: Tally, start_s: int, values: tuple[str, ...]) -> str:
    """What a tally comes to in the bucket that begins then, of one combination of values: `tally:<unit>:<period>:
    <start_s>` and `:<dimension>=<value>` for each of its scope."""
    said = "".join(f":{dimension}={name(said)}" for (dimension, _), said in zip(of.scope, values, strict=True))
    return f"tally:{of.unit}:{of.when.label}:{start_s}{said}"


def tally_expires_s(of: Tally, start_s: int, last_s: int) -> int:
    """When (s since epoch) such a sum goes whose last record ended then; 0: never.

    The total of each value of a dimension goes when the value has not been used for as long as days are kept.
    """
    expires_s = of.when.expires_s(start_s)
    if expires_s is not None:
        return expires_s
    return (last_s // _DAY_S + 1) * _DAY_S + DAY_LIVES_S if of.each else 0


CAP = "cap:"
"""What a cap's key after the prefix begins with: its limit, in nano-USD or tokens. A rebuild leaves it alone."""
RATES, RATE = "rates", "rate:"
"""After the prefix: the state of a workspace's rates; what keys of their windows and calls begin with. A rebuild leaves
them alone."""


def cap(unit: str, track: str) -> str:
    return f"{CAP}{unit}:{name(track)}"


ASKED = "tm:asked"
"""Set of workspaces whose calls could not be decided, as nothing was known of their budgets."""
TALLIES = "tallies"
"""Set, after the prefix: what is added up for budgets of a workspace (budgets.tally), each as JSON."""
HELD, RESERVED, RESERVED_AT = "held", "reserved", "reserved_at"
"""After the prefix: allowance (`held_field`) -> sum held by calls in flight; call -> what it holds, of which of them;
calls by when they reserved (s since epoch). A rebuild leaves them alone. In `held` too, with a colon before: `:epoch`
(a number; negative while what calls hold is being gathered; missing: it may not all be there), and for each asker of
reservations how often it has reserved in that epoch."""

EPOCH_FIELD = ":epoch"
WANTED_FIELD = ":wanted"
"""Likewise: how often somebody needed what slices hold (gateway.admission.slices)."""


def held_field(budget_id: str, own: tuple[str, ...]) -> str:
    """The field of HELD for an allowance: the budget's id, and `/` with the values that tell it from its others."""
    return "/".join((budget_id, *map(name, own)))


@lru_cache(maxsize=4_096)
def track_expires_s(hour: int) -> int:
    """When (s since epoch) a track expires whose last record ended in this hour (since epoch): most records of a busy
    track do not move it."""
    return (hour + 1) * 3_600 + TRACK_LIVES_S
