"""What the product answers when it is asked, for the auditor to compare: it takes no answer for the truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from taximeter.evidence.check import check
from taximeter.evidence.keys import Signer
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.read.evidence import HistoryEvidence
from taximeter.sinks.history.read.reader import Reader
from taximeter.sinks.prometheus.families import Exposition
from taximeter.sinks.query import Filters

if TYPE_CHECKING:
    from simulation.actors.node import Control

Answered = list[tuple[dict[str, str | None], int | None, dict[str, int]]]
"""Names, when it begins (µs since epoch), sums."""


def metrics(control: Control) -> str:
    """The text of /metrics."""
    return Exposition(control.parts.metrics).render()[0].decode()


def reading(url: str) -> Reader:
    """For the questions below; a context manager."""
    return Reader.open(url)


def usage(reader: Reader, names: tuple[str, ...], window: Any = None) -> Answered:
    """As `GET /usage` has it."""
    found = reader.usage(Filters(), names, window)
    return [
        (dict(each.key), each.start_us, {name: getattr(each.totals, name) for name in each.totals.__struct_fields__})
        for each in found
    ]


def event_ids(reader: Reader) -> Iterator[str]:
    """Of every record, as `GET /usage/events` lists them."""
    page = None
    while True:
        some, page = reader.events(Filters(), 20, page)
        yield from (record.event_id for record in some)
        if page is None:
            return


def evidence(url: str) -> list[str]:
    """What `taximeter evidence verify` finds wrong with the history."""
    with Database(url) as database, HistoryEvidence.of(database) as source:
        return [str(fault) for fault in check(source).faults]


def signer() -> Signer:
    """The same in every simulation."""
    return Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
