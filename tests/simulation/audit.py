"""The auditor: what the provider billed, what the journals hold, and what each sink has of it.

It believes none of them: journals are read as JSON, and sums are made from the records in them.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec

from faults import ledger_check
from faults.ledger_check import Uneven
from taximeter.budgets.tally import charged, used
from taximeter.core.record import Operation, Outcome, Record, Source
from taximeter.journal.format import ASIDE
from taximeter.sinks.redis.keys import prefix

if TYPE_CHECKING:
    from simulation.simulation import Simulation

__all__ = ["NotYet", "Uneven", "compare"]


class NotYet(Uneven):
    """It may come right by itself; if it does not, it is uneven."""


_record = msgspec.json.Decoder(Record).decode


def compare(simulation: Simulation) -> None:
    """All books, at rest. Raises Uneven."""
    records = _journals(simulation)
    ledger_check._once(records)
    lost = _lost(simulation)
    _as_billed(simulation, records, lost)
    _as_clients_saw(simulation, records, lost)
    ledger_check._same_in_sql(records, simulation.sql.url)
    _in_redis(simulation, records)
    _within_budgets(simulation, records, lost)
    _posted(simulation, records)
    aside = [path for path, _ in _files(simulation) if path.endswith(".letter")]
    if aside:
        raise Uneven(f"records were set aside, and nothing is wrong with them: {aside}")
    drift = sum(node.control.counters.auditor.drift for node in simulation.nodes if node.control is not None)
    if drift and not simulation.redis_forgot:
        raise Uneven(f"the audit of Redis against history had to mend {drift} workspaces, and Redis had lost nothing")
    simulation.world.counts["records"] = len(records)
    simulation.world.counts["known lost"] = lost


def _files(simulation: Simulation) -> list[tuple[str, bytes]]:
    """Every file of every journal's directory, those that were removed too."""
    found = list(simulation.disk.removed)
    for node in simulation.nodes:
        for folder in (node.directory / "journal", node.directory / "journal" / ASIDE):
            with contextlib.suppress(FileNotFoundError):
                found += [(f"{folder}/{name}", data) for name, data in simulation.disk.copy(str(folder)).items()]
    return found


def _journals(simulation: Simulation) -> list[Record]:
    """The records of all journals; each is whole, ended, and has nothing open."""
    records: list[Record] = []
    seen: set[str] = set()
    for path, data in _files(simulation):
        name = PurePosixPath(path)
        if name.suffix != ".jsonl" or name.name.startswith("."):
            continue
        if name.stem in seen:
            raise Uneven(f"{path} is there twice")
        seen.add(name.stem)
        if not data.endswith(b"\n"):
            raise Uneven(f"{path} ends in the middle of a line")
        records += _of_file(path, name.stem, [_json(path, line) for line in data.split(b"\n")[:-1]])
    return records


def _json(path: str, line: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        raise Uneven(f"{path} has a line that is none: {line[:200]!r}") from None
    return found


def _of_file(path: str, journal_id: str, lines: list[dict[str, Any]]) -> list[Record]:
    if lines[0].get("journal", {}).get("journal_id") != journal_id:
        raise Uneven(f"{path} has no header")
    if "end" not in lines[-1]:
        raise Uneven(f"{path} has not ended")
    records, opened = [], Counter[tuple[str, int]]()
    for line in lines[1:-1]:
        [(kind, said)] = line.items()
        if kind == "open":
            opened[said["request_id"], said.get("attempt", 1)] += 1
        elif kind == "close":
            opened[said["request_id"], said.get("attempt", 1)] -= 1
            records.append(_record(json.dumps(said).encode()))
        elif kind != "tick":
            raise Uneven(f"{path} has a line {kind} in its middle")
    if lines[-1]["end"]["seq"] != len(records):
        raise Uneven(f"{path} says it ends with {lines[-1]['end']}, and has {len(records)} records")
    if left := [call for call, count in opened.items() if count > 0]:
        raise Uneven(f"{path} has open calls: {left[:5]}")
    return records


def _lost(simulation: Simulation) -> int:
    """Calls of which writers say that no line could be kept."""
    lost = 0
    for path, data in _files(simulation):
        if path.endswith(".status") and "/." not in path:
            said = json.loads(data or b"{}")
            lost += said.get("lost", 0) + said.get("unsaved", 0)
    return lost


def _as_billed(simulation: Simulation, records: list[Record], lost: int) -> None:
    """Each call that reached the provider has one record, with the provider's own figures."""
    by_marker: dict[str, list[Record]] = {}
    for record in records:
        by_marker.setdefault(record.document or "", []).append(record)
    provider = simulation.provider
    if twice := [marker for marker, n in Counter(provider.reached).items() if n > 1]:
        raise Uneven(f"sent to the provider more than once: {twice[:5]}")
    if twice := [marker for marker, of in by_marker.items() if len(of) > 1]:
        raise Uneven(f"more than one record: {by_marker[twice[0]]}")
    missing = [marker for marker in provider.reached if marker not in by_marker]
    if len(missing) > lost and not simulation.mute:
        raise Uneven(f"{len(missing)} calls were billed and have no record, {lost} are known lost: {missing[:5]}")
    unwritten = sum(caller.plan.marker not in by_marker for caller in simulation.callers)
    if not 0 <= lost <= unwritten:
        raise Uneven(f"{lost} calls are said to be lost, and {unwritten} have no record")
    for marker in provider.reached:
        for record in by_marker.get(marker, ()):
            _figures(provider.bills[marker], record)
    reached = set(provider.reached)
    for marker, [record] in by_marker.items():
        if marker not in reached and (record.input_tokens is not None or record.output_tokens is not None):
            raise Uneven(f"never reached the provider, and yet: {record}")


def _figures(bill: Any, record: Record) -> None:
    if record.input_source is Source.REPORTED and record.input_tokens != bill.prompt_tokens:
        raise Uneven(f"the provider billed {bill}: {record}")
    if record.output_source is Source.REPORTED and (record.output_tokens or 0) != bill.output_tokens:
        raise Uneven(f"the provider billed {bill}: {record}")
    if record.outcome is Outcome.OK and bill.complete and record.input_source is not Source.REPORTED:
        raise Uneven(f"it went well, and is not as the provider billed it, {bill}: {record}")


def _as_clients_saw(simulation: Simulation, records: list[Record], lost: int) -> None:
    """A client that has all of a good answer finds it recorded as such."""
    by_marker = {record.document: record for record in records}
    troubled = any(fault.kind in ("disk full", "disk write errors") for fault in simulation.plan.faults)
    for caller in simulation.callers:
        if not caller.whole or caller.status != 200:
            continue
        record = by_marker.get(caller.plan.marker)
        if record is None:
            if not lost and not simulation.mute:
                raise Uneven(f"a client has the whole answer to {caller.plan.marker}, which has no record")
        elif record.outcome is Outcome.INTERRUPTED and troubled:
            continue  # its close line waited for the disk in the memory of a process that died
        elif record.outcome is not Outcome.OK:
            raise Uneven(f"a client has the whole answer to {caller.plan.marker}, recorded as {record}")


def _in_redis(simulation: Simulation, records: list[Record]) -> None:
    """Every sum, and nothing held."""
    found: dict[str, dict[str, int]] = {}
    model = simulation.redis.model
    for key in model.scan(b"tm:{"):
        value, name = model.keys[key], key.decode()
        of = name.partition("}:")[2]
        if "{tm:" in name or of in ledger_check.BOOKKEEPING or of.startswith("tally:"):
            continue
        sums = {field.decode(): int(amount) for field, amount in value.items() if int(amount)}
        if sums:
            found[name] = sums
    ledger_check._same("Redis", found, {key: sums for key, sums in ledger_check.fold(records).items() if sums})


def _within_budgets(simulation: Simulation, records: list[Record], lost: int) -> None:
    """No budget was spent beyond its limit, by the provider's own bill; its sums are exact, and nothing is held."""
    model, plan = simulation.redis.model, simulation.plan
    for said in plan.budgets:
        unit = said["unit"]
        billed: Counter[str] = Counter()
        for caller in simulation.callers:
            bill = simulation.provider.bills.get(caller.plan.marker)
            if bill is not None and caller.plan.workspace == "w0" and (caller.plan.track or "track" not in said):
                amount = bill.prompt_tokens + (bill.output_tokens if unit == "tokens" else 0)
                billed[(caller.plan.track or "") if "track" in said else ""] += amount
        for value, amount in billed.items():
            if amount > said["limit"]:
                raise Uneven(f"the provider billed {amount} of {value or 'w0'}, and its budget is {said}")
    if not plan.budgets or lost:  # what a call of which nothing is recorded holds stays held
        return
    for key in (b"reserved", b"reserved_at"):
        if left := model.keys.get(prefix("w0").encode() + key):
            raise NotYet(f"Redis: at rest {key.decode()} of w0 is {left}")
    held = model.keys.get(prefix("w0").encode() + b"held") or {}
    if left := {field: n for field, n in held.items() if not field.startswith(b":") and int(n)}:
        raise NotYet(f"Redis: at rest w0 still holds {left}")
    mine = [record for record in records if record.workspace == "w0"]
    for said in plan.budgets:
        tallied: Counter[str] = Counter()
        start = prefix("w0").encode() + f"tally:{said['unit']}:total:".encode()
        for key in model.scan(start):
            if (b":track=" in key) == ("track" in said):
                tallied["used"] += int(model.keys[key].get(b"used", 0))
                tallied["charged"] += int(model.keys[key].get(b"charged", 0))
        counted = [record for record in mine if record.track or "track" not in said]
        due = {"used": sum(map(used(said["unit"]), counted)), "charged": sum(map(charged(said["unit"]), counted))}
        if dict(tallied) != due and any(due.values()):
            raise (NotYet if simulation.redis_forgot else Uneven)(f"Redis has {dict(tallied)} for {said}, it is {due}")


def _posted(simulation: Simulation, records: list[Record]) -> None:
    """The receiver has everything once: each record as an event, or each track's tokens in its segments."""
    settings = simulation.nodes[0].settings.webhook
    if not settings.url:
        return
    receiver = simulation.receiver
    if receiver.unlike:
        raise Uneven(f"letters came again with another body: {receiver.unlike[:5]}")
    if settings.format == "cloudevents":
        ours, theirs = {record.event_id for record in records}, set(receiver.taken)
        if theirs - ours:
            raise Uneven(f"events of no record: {sorted(theirs - ours)[:5]}")
        if ours - theirs:
            raise NotYet(
                f"{len(ours - theirs)} records never came to the webhook's receiver: {sorted(ours - theirs)[:5]}"
            )
        return
    came: Counter[tuple[str, str]] = Counter()
    for letter in receiver.taken.values():
        body = json.loads(letter.body)
        came[body["workspace"], body["track_id"]] += body["metrics"]["total_tokens"]
    due: Counter[tuple[str, str]] = Counter()
    for record in records:
        if record.track and record.operation is Operation.LLM:
            due[record.workspace, record.track] += record.total_tokens or 0
    if more := came - due:
        raise Uneven(f"the webhook's receiver got more than was used: {more}")
    if less := due - came:
        raise NotYet(f"the webhook's receiver still lacks {less}")
