"""The calls: what the provider billed and what the clients saw, against the records."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from simulation.audit.journals import Said
from simulation.audit.sums import of
from simulation.audit.uneven import Uneven

STRANGERS = ("k-unknown", "k-revoked")
"""Keys that open nothing."""

if TYPE_CHECKING:
    from simulation.simulation import Simulation


def compare(simulation: Simulation, records: list[Said], lost: int, gone: set[str]) -> None:
    """Raises Uneven. `gone`: calls of which a power loss took a line."""
    by_marker: dict[str, Said] = {}
    unnamed: dict[str, Said] = {}
    for said in records:
        if "document" not in said:
            unnamed[said["request_id"]] = said
            continue
        marker = said["document"]
        if marker in by_marker:
            raise Uneven(f"more than one record: {by_marker[marker]} and {said}")
        by_marker[marker] = said
    _said(simulation, by_marker)
    full = any(fault.kind.startswith("disk") for fault in simulation.plan.faults)  # then nobody hears of a refusal
    _strangers(simulation, unnamed, sure=not (lost or gone or full))
    _billed(simulation, by_marker, lost, gone)
    _seen(simulation, by_marker, lost, gone)


def _said(simulation: Simulation, by_marker: dict[str, Said]) -> None:
    """A record is of whom its client said it is; no key goes on."""
    for caller in simulation.callers:
        plan, said = caller.plan, by_marker.get(caller.plan.marker)
        if said is not None:
            names = {"workspace": plan.workspace, "track": plan.track, "task": plan.task, "end_user": plan.end_user}
            wrong = [name for name, value in (names | {"key_id": plan.key or None}).items() if said.get(name) != value]
            if wrong:
                raise Uneven(f"{plan} is recorded with another {wrong}: {said}")
    if simulation.provider.keys_seen:
        raise Uneven(f"{simulation.provider.keys_seen} requests reached the provider with a proxy key")


def _strangers(simulation: Simulation, unnamed: dict[str, Said], *, sure: bool) -> None:
    """A key that opens nothing gets nobody anywhere, and is told so; that is recorded as a refusal, of nobody's.

    `unnamed`: records that say nothing of a document, by request; `sure`: no record is lost.
    """
    callers = [caller for caller in simulation.callers if caller.plan.key in STRANGERS]
    for caller in callers:
        marker = caller.plan.marker
        if marker in simulation.provider.bills or caller.status not in (0, 401, 503):
            raise Uneven(f"{caller.plan.key} opens nothing, and {marker} got {caller.status}")
        said = unnamed.pop(caller.request_id, None)
        if said is None and caller.status == 401 and sure:
            raise Uneven(f"{marker} was refused, and there is no record of it")
    for said in unnamed.values():
        if said["outcome"] not in ("refused", "client_left", "interrupted") or "key_id" in said or not callers:
            raise Uneven(f"a record of no call: {said}")


def _billed(simulation: Simulation, by_marker: dict[str, Said], lost: int, gone: set[str]) -> None:
    """Each call that reached the provider has one record, with the provider's own figures."""
    provider = simulation.provider
    if twice := [marker for marker, n in Counter(provider.reached).items() if n > 1]:
        raise Uneven(f"sent to the provider more than once: {twice[:5]}")
    missing = [marker for marker in provider.reached if marker not in by_marker and marker not in gone]
    if len(missing) > lost and not simulation.mute:
        raise Uneven(f"{len(missing)} calls were billed and have no record, {lost} are known lost: {missing[:5]}")
    unwritten = sum(caller.plan.marker not in by_marker for caller in simulation.callers)
    if not 0 <= lost <= unwritten and not simulation.plan.jobs:  # else it may be what a call told of others
        raise Uneven(f"{lost} calls are said to be lost, and {unwritten} have no record")
    reached = set(provider.reached)
    prices = {
        1,
        simulation.operators.price_times,
        *(deed.amount for deed in simulation.plan.deeds if deed.kind == "reprice"),
    }
    for marker, said in by_marker.items():
        if marker in reached:
            _figures(provider.bills[marker], said, prices)
        elif any(said.get(name) for name in ("input_tokens", "output_tokens", "total_tokens", "cost_nusd")):
            raise Uneven(f"never reached the provider, and yet: {said}")


def _figures(bill: Any, said: Said, prices: set[int]) -> None:
    """`prices`: what has ever been a token's, in times of what it was first."""
    came, went = said.get("input_tokens"), said.get("output_tokens")
    if of(said, "input_source") == "reported" and came != bill.prompt_tokens:
        raise Uneven(f"the provider billed {bill}: {said}")
    if of(said, "output_source") == "reported" and (went or 0) != bill.output_tokens:
        raise Uneven(f"the provider billed {bill}: {said}")
    if said["outcome"] == "interrupted" and "duration_ms" in said:
        raise Uneven(f"its worker lived, for it knew how long the call took, and it is recorded as interrupted: {said}")
    if said["outcome"] == "ok" and bill.complete and of(said, "input_source") != "reported":
        raise Uneven(f"it went well, and is not as the provider billed it, {bill}: {said}")
    if said.get("total_tokens", 0) != (came or 0) + (went or 0) and not of(said, "inconsistent"):
        raise Uneven(f"its total is not the sum of its tokens: {said}")
    price = (came or 0) * 1_000 + (went or 0) * 2_000
    if (came, went) != (None, None) and said.get("cost_nusd") not in [times * price for times in prices]:
        raise Uneven(f"an input token costs 1,000 nano-USD, an output token 2,000: {said}")


def _seen(simulation: Simulation, by_marker: dict[str, Said], lost: int, gone: set[str]) -> None:
    """A client that has all of an answer finds it recorded as what it was."""
    untold, reached = waiting(simulation), set(simulation.provider.reached)
    for caller in simulation.callers:
        if not caller.whole or caller.plan.marker in gone:
            continue
        marker, said = caller.plan.marker, by_marker.get(caller.plan.marker)
        if said is None:
            if caller.status == 200 and not lost and not simulation.mute:
                raise Uneven(f"a client has the whole answer to {marker}, which has no record")
        elif said["outcome"] == "interrupted" and marker in untold:
            continue
        elif caller.status == 200 and said["outcome"] != "ok":
            raise Uneven(f"a client has the whole answer to {marker}, recorded as {said}")
        elif (
            caller.status in (402, 429) and marker not in reached and said["outcome"] not in ("refused", "interrupted")
        ):
            raise Uneven(f"a client was refused {marker} by us, and it is recorded as {said}")


def waiting(simulation: Simulation) -> set[str]:
    """Calls of whose lines some may have waited for a disk in the memory of a process that then died."""
    begun_s: dict[str, float] = {}
    for fault in simulation.plan.faults:
        if fault.kind in ("disk full", "disk write errors"):
            name = simulation.nodes[fault.node].name
            begun_s[name] = min(fault.at_s, begun_s.get(name, fault.at_s))
    return {
        caller.plan.marker
        for caller in simulation.callers
        if caller.process.ended_s > begun_s.get(caller.process.node.name, float("inf"))
    }
