"""Do the books agree? The provider's own list, the journals, SQL, Redis, and what clients saw.

Everything is summed here by `core.totals.add` over the journal's records and compared cell by cell.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec
import redis

from faults.load import Load
from taximeter.core.record import Outcome, Record, Source
from taximeter.core.totals import FIELDS, add, empty
from taximeter.journal.format import UNREADABLE, decode_line
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.read.reader import Reader
from taximeter.sinks.history.write.tag_rollups import TagRoller
from taximeter.sinks.query import Filters
from upstream import Billed, Provider

Sums = dict[str, dict[str, int]]

BOOKKEEPING = ("cursor", "gen", "models", "tasks", "tallies", "held", "reserved", "reserved_at")
"""Keys of a workspace that are no sums."""


class Uneven(AssertionError):
    """The books do not agree; the message says which and where."""


def compare(
    data_dirs: Sequence[Path], history_url: str, client: redis.Redis, provider: Provider, load: Load, lost: int = 0
) -> dict[str, int]:
    """Compare everything. Raises Uneven; answers how much was compared."""
    records = written(data_dirs)
    _same_as_provider(records, provider, lost)
    _same_as_clients(records, provider, load, lost)
    return {"reached the provider": len(reached(provider)), "known lost": lost, **alike(records, history_url, client)}


def alike(records: Sequence[Record], history_url: str, client: redis.Redis) -> dict[str, int]:
    """Compare the journals' records with SQL and Redis. Raises Uneven; answers how much was compared."""
    _once(records)
    _same_in_sql(records, history_url)
    _same_in_redis(records, client)
    return {"records": len(records), **Counter(str(record.outcome) for record in records)}


def lines(data_dirs: Iterable[Path]) -> Iterator[tuple[Path, bytes]]:
    """Every whole line of every journal."""
    for folder in data_dirs:
        for file in sorted((folder / "journal").glob("*.jsonl")):
            with suppress(FileNotFoundError):
                yield from ((file, line) for line in file.read_bytes().split(b"\n")[:-1])


def written(data_dirs: Iterable[Path]) -> list[Record]:
    """The records of the journals, as they stand in the files."""
    found = []
    for file, text in lines(data_dirs):
        with suppress(*UNREADABLE):
            record = decode_line(text).close
            if record is not None:
                if record.event_id.partition(":")[0] != file.stem:
                    raise Uneven(f"{file} holds {record.event_id}")
                found.append(record)
    return found


def open_calls(data_dirs: Iterable[Path]) -> list[str]:
    """Requests with an `open` line and no `close` line."""
    opened: Counter[tuple[str, int]] = Counter()
    for _, text in lines(data_dirs):
        with suppress(ValueError):
            line = json.loads(text)
            for name, step in (("open", 1), ("close", -1)):
                if name in line and line[name].get("kind", "usage") == "usage":
                    opened[line[name]["request_id"], line[name].get("attempt", 1)] += step
    return [f"{request}#{attempt}" for (request, attempt), n in opened.items() if n > 0]


def reached(provider: Provider) -> list[str]:
    """Marks of the calls that reached the provider."""
    marks = (request.header("x-marker") for request in provider.requests)
    return [mark for mark in marks if mark is not None]


def _once(records: Sequence[Record]) -> None:
    """Each journal's seqs are 1, 2, 3 …, each attempt has one record."""
    seqs: dict[str, list[int]] = {}
    for record in records:
        journal_id, _, seq = record.event_id.partition(":")
        seqs.setdefault(journal_id, []).append(int(seq))
    for journal_id, given in seqs.items():
        if given != list(range(1, len(given) + 1)):
            raise Uneven(f"journal {journal_id} has the seqs {given[:20]} …")
    twice = [key for key, n in Counter((r.request_id, r.attempt) for r in records).items() if n > 1]
    if twice:
        raise Uneven(f"attempts with more than one record: {twice[:5]}")


def _same_as_provider(records: Sequence[Record], provider: Provider, lost: int) -> None:
    by_mark: dict[str, list[Record]] = {}
    for record in records:
        by_mark.setdefault(record.track or "", []).append(record)
    marks = reached(provider)
    if again := [mark for mark, n in Counter(marks).items() if n > 1]:
        raise Uneven(f"sent to the provider more than once: {again[:5]}")
    missing = [mark for mark in marks if mark not in by_mark]
    if len(missing) != lost:
        raise Uneven(
            f"{len(missing)} calls reached the provider and have no record, {lost} are known lost: {missing[:5]}"
        )
    for mark, found in by_mark.items():
        if len(found) > 1:
            raise Uneven(f"{mark} has {len(found)} records: {found}")
    for mark in by_mark.keys() - set(marks):
        _check_unsent(by_mark[mark][0])
    for bill in provider.ledger:
        if bill.marker in by_mark:
            _check_figures(bill, by_mark[bill.marker][0])


def _check_unsent(record: Record) -> None:
    """What never reached the provider used nothing that anyone could know."""
    if record.input_tokens is not None or record.output_tokens is not None or record.outcome is Outcome.OK:
        raise Uneven(f"never reached the provider, and yet: {record}")


def _check_figures(bill: Billed, record: Record) -> None:
    """Every figure said to be the provider's is the provider's; a call that went well says so."""
    usage = bill.usage
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    details = usage.get("prompt_tokens_details") or {}
    for ours, source, theirs in (
        (record.input_tokens, record.input_source, prompt),
        (record.output_tokens, record.output_source, usage.get("completion_tokens")),
        (record.cached_input_tokens, record.input_source, details.get("cached_tokens")),
    ):
        if source is Source.REPORTED and theirs is not None and (ours or 0) != theirs:
            raise Uneven(f"{bill.marker}: recorded {ours}, the provider says {theirs}: {record}")
    if record.outcome is Outcome.OK and bill.complete and prompt and record.input_source is not Source.REPORTED:
        raise Uneven(f"{bill.marker} went well and was billed, but its figures are {record.input_source}: {record}")


def _same_as_clients(records: Sequence[Record], provider: Provider, load: Load, lost: int) -> None:
    """A client that has the end of its answer finds it written down as such, whatever was killed next."""
    by_mark = {record.track: record for record in records}
    for mark in load.whole:
        record = by_mark.get(mark)
        if record is None:
            if not lost:
                raise Uneven(f"a client has the whole answer to {mark}, which has no record")
        elif record.outcome is not Outcome.OK or record.status != 200:
            raise Uneven(f"a client has the whole answer to {mark}, recorded as {record}")


def fold(records: Iterable[Record]) -> Sums:
    """Redis key -> field -> sum, zeros left out, from the rules of the design's section 5."""
    cells: dict[str, list[int]] = {}
    for record in records:
        at = datetime.fromtimestamp(record.ended_at / 1e6, UTC)
        scopes = ["total", f"month:{at:%Y-%m}", f"day:{at:%Y-%m-%d}", f"hour:{at:%Y-%m-%dT%H}"]
        scopes.append(f"model:{record.provider}/{record.response_model or record.request_model or 'unknown'}")
        scopes += [f"{name}:{value}" for name, value in (("task", record.task), ("track", record.track)) if value]
        for scope in scopes:
            add(cells.setdefault(f"tm:{{{record.workspace}}}:{scope}", empty()), record)
    return {key: _named(cell) for key, cell in cells.items()}


def _named(cell: Sequence[int]) -> dict[str, int]:
    return {field: n for field, n in zip(FIELDS, cell, strict=True) if n}


def in_redis(client: redis.Redis) -> Sums:
    """Every sum there is in Redis."""
    found: Sums = {}
    keys = [key for key in client.scan_iter("tm:{*}:*", count=1000) if "{tm:" not in key]
    for key in keys:
        of = key.partition("}:")[2]
        if of not in BOOKKEEPING and not of.startswith("tally:"):
            told = cast(dict[str, str], client.hgetall(key))
            sums = {field: int(n) for field, n in told.items() if int(n)}
            if sums:
                found[key] = sums
    return found


def _same_in_redis(records: Sequence[Record], client: redis.Redis) -> None:
    _same("Redis", in_redis(client), {key: sums for key, sums in fold(records).items() if sums})


def _same_in_sql(records: Sequence[Record], history_url: str) -> None:
    with Reader.open(history_url) as reader:
        found, page = [], None
        while True:
            some, page = reader.events(Filters(), 1000, page)
            found += some
            if page is None:
                break
        _same("SQL records", _by_id(found), _by_id(records))
        asked: tuple[tuple[tuple[str, ...], str | None], ...] = (
            (("workspace",), None),
            (("workspace",), "hour"),
            (("workspace",), "month"),
            (("workspace", "provider", "model"), "day"),
            (("workspace", "task"), None),
        )
        for names, window in asked:
            _same_groups(reader, records, names, window)
        # The roll-ups by tag: as far as control had come with them, then to the end.
        by_track: tuple[tuple[tuple[str, ...], str | None], ...] = ((("workspace", "track"), None), (("track",), "day"))
        for names, window in by_track:
            _same_groups(reader, records, names, window)
        with Database(history_url) as database:
            while TagRoller(database).roll_up():
                pass
        for names, window in by_track:
            _same_groups(reader, records, names, window)


def _same_groups(reader: Reader, records: Sequence[Record], names: Sequence[str], window: str | None) -> None:
    groups = reader.usage(Filters(), names, cast(Any, window))
    told = {_key(g.key, names, g.start_us, window): _named(msgspec.structs.astuple(g.totals)) for g in groups}
    _same(f"SQL by {names} and {window}", told, _grouped(records, names, window))


def _by_id(records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    return {record.event_id: _comparable(msgspec.json.decode(msgspec.json.encode(record))) for record in records}


def _comparable(record: dict[str, Any]) -> dict[str, Any]:
    """Without what SQL keeps in another form: usage may be laid out otherwise, durations are rounded."""
    kept = {name: value for name, value in record.items() if name not in ("usage", "duration_ms", "ttft_ms")}
    return {"kind": "usage", **kept}


def _grouped(records: Iterable[Record], names: Sequence[str], window: str | None) -> Sums:
    cells: dict[str, list[int]] = {}
    for record in records:
        model = record.response_model or record.request_model or "unknown"
        key = {name: model if name == "model" else getattr(record, name) for name in names}
        add(cells.setdefault(_key(key, names, record.ended_at, window), empty()), record)
    return {key: _named(cell) for key, cell in cells.items()}


def _key(key: dict[str, str | None], names: Sequence[str], at_us: int | None, window: str | None) -> str:
    """A group's name. The first window of an unbounded range begins at its first record: hence only its period."""
    period = {None: "", "month": "%Y-%m", "day": "%F", "hour": "%F %H"}[window]
    start = datetime.fromtimestamp((at_us or 0) / 1e6, UTC).strftime(period) if period else ""
    return " ".join([*(key[name] or "-" for name in names), start])


def _same(what: str, told: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise Uneven with the first few differences."""
    if told == expected:
        return
    differing = [key for key in sorted(told.keys() | expected.keys()) if told.get(key) != expected.get(key)]
    shown = "\n".join(f"  {key}: {told.get(key)}, expected {expected.get(key)}" for key in differing[:4])
    raise Uneven(f"{what} differs from the journals in {len(differing)} of {len(expected)} places:\n{shown}")
