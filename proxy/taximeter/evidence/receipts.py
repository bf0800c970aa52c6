"""A receipt: one request's records as they were billed, each with the proof that it is under a signed root. Pure but
for the signatures' arithmetic. What it is made of is read from a Source; it is checked with nothing else at hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from taximeter.core.errors import BadRequest, Conflict, NotFound, NotReady
from taximeter.evidence import tree
from taximeter.evidence.chain import follow, hash_of, members, unpack
from taximeter.evidence.report import Fault, Kind, Report
from taximeter.evidence.roots import check_roots
from taximeter.evidence.source import Source
from taximeter.evidence.statements import Root, SignedRoot, leaf, root_of, segment_of

VERSION = 1


class Proof(msgspec.Struct, kw_only=True):
    """That a record is under a root. Hashes are SHA-256, in hex."""

    content: str
    """The record, as its hash was made: JSON of this very text."""
    previous: str
    """The link of the record before it in its journal."""
    index: int
    path: list[str]
    """Its place among its segment's records, and what has to be known of the others."""
    segment: str
    """What is said of the segment."""
    segment_index: int
    segment_path: list[str]
    """The segment's place among the root's, likewise."""
    root: int
    """Number of the root."""


class Receipt(msgspec.Struct, kw_only=True):
    """What `taximeter receipt` writes."""

    taximeter_receipt: int
    request_id: str
    cost_usd: str | None
    """Of all its attempts and corrections so far; null where none has a cost."""
    records: list[dict[str, Any]]
    """As they can be read; what is proven are the proofs' contents, in the same order."""
    proofs: list[Proof]
    history: str
    roots: list[SignedRoot]
    keys: dict[str, str]
    """Public keys of those that signed, by id; whether they are the operator's, a receipt cannot tell."""


class _Costing(msgspec.Struct):
    request_id: str
    cost_nusd: int | None = None


def receipt(source: Source, request_id: str, places: Sequence[tuple[str, int]]) -> Receipt:
    """The receipt of a request's records: of these seqs of journals. Raises NotFound without any; NotReady where one
    is under no root yet; Conflict where they are of several workspaces, or the receipt would not hold: nobody is
    handed one that his own check finds false."""
    if not places:
        raise NotFound(f"nothing is recorded of a request {request_id!r}")
    proofs = [_proof(source, journal, seq) for journal, seq in places]
    wanted = {proof.root for proof in proofs}
    roots = [each for each in source.roots() if root_of(each.statement).number in wanted]
    used = {signature.key for each in roots for signature in each.signatures}
    contents = [proof.content.encode() for proof in proofs]
    of = sorted({str(members(content).get("workspace")) for content in contents})
    if len(of) > 1:  # ids are the clients'
        raise Conflict(f"calls of several workspaces have the id {request_id!r}: {', '.join(of)}; name one of them")
    made = Receipt(
        taximeter_receipt=VERSION,
        request_id=request_id,
        cost_usd=_cost(contents),
        records=[members(content) for content in contents],
        proofs=proofs,
        history=source.history,
        roots=roots,
        keys={name: public.hex() for name, public in source.keys().items() if name in used},
    )
    if faults := check(made, request_id).faults:
        raise Conflict(f"no receipt of {request_id!r} would hold ({faults[0].problem}); see `taximeter verify`")
    return made


def _cost(contents: Iterable[bytes]) -> str | None:
    costs = [msgspec.json.decode(content, type=_Costing).cost_nusd for content in contents]
    known = [cost for cost in costs if cost is not None]
    return f"{Decimal(sum(known)).scaleb(-9):f}" if known else None


def _proof(source: Source, journal: str, seq: int) -> Proof:
    held = source.holding(journal, seq)
    if held is None:
        raise NotFound(f"record {seq} of journal {journal} was delivered before there was evidence")
    if held.root_no is None:
        raise NotReady(
            "its record is under no root yet: one is made after midnight UTC, or now by `taximeter evidence seal`"
        )
    said, packed = segment_of(held.statement), source.entries(held)
    entries = unpack(packed or b"")
    index = next((place for place, entry in enumerate(entries) if entry.seq == seq), None)
    found = [one for one in source.records(journal, seq - 1, seq) if one.seq == seq]
    if index is None or not found:
        raise NotFound(f"record {seq} of journal {journal} is not as it was delivered; see `taximeter verify`")
    beside = list(source.segments(held.root_no))
    at = beside.index(held)
    return Proof(
        content=found[0].content.decode(),
        previous=entries[index - 1].link.hex() if index else said.previous,
        index=index,
        path=_hex(tree.path([entry.link for entry in entries], index)),
        segment=held.statement,
        segment_index=at,
        segment_path=_hex(tree.path([leaf(each.statement) for each in beside], at)),
        root=held.root_no,
    )


def encode(found: Receipt) -> bytes:
    """As JSON to be read by people too."""
    return msgspec.json.format(msgspec.json.encode(found), indent=2)


def decode(text: bytes) -> Receipt:
    """Raises BadRequest where it is none."""
    try:
        found = msgspec.json.decode(text, type=Receipt)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"This is no receipt as `taximeter receipt` writes it: {error}") from error
    if found.taximeter_receipt != VERSION:
        raise BadRequest(f"The receipt has version {found.taximeter_receipt}; this Taximeter knows {VERSION}.")
    return found


def check(found: Receipt, name: str, trusted: Iterable[bytes] = ()) -> Report:
    """Whether each of its records is under a root, and who signed that. `trusted`: see check.check."""
    report = Report(source=name, history=found.history)
    keys = {key: _public(public) for key, public in found.keys.items()}
    roots: dict[int, Root] = {}
    for signed in found.roots:  # each by itself: those between are not there
        for root in check_roots([signed], found.history, keys, trusted, report, alone=True):
            roots[root.number] = root
    if len(found.records) != len(found.proofs) or not found.proofs:
        report.add(Fault(kind="record_missing", problem="there are not as many proofs as records, or none"))
    events: set[str] = set()
    for shown, proof in zip(found.records, found.proofs, strict=False):
        problem, event = _wrong(found, shown, proof, roots.get(proof.root)), _event(proof.content)
        if problem:
            report.add(_fault("record_changed", found, event, problem))
        elif event in events:
            report.add(_fault("record_added", found, event, "it is there more than once, and counted as often"))
        else:
            report.records += 1
        events.add(event)
    report.journals = len({event.rpartition(":")[0] for event in events})
    if not report.faults and found.cost_usd != _cost(proof.content.encode() for proof in found.proofs):
        report.add(
            Fault(kind="record_changed", request_id=found.request_id, problem="its cost is not the sum of its records'")
        )
    return report


def _fault(kind: Kind, found: Receipt, event_id: str, problem: str) -> Fault:
    journal, _, seq = event_id.rpartition(":")
    place = int(seq) if seq.isdecimal() else None
    return Fault(kind=kind, journal=journal or None, seq=place, request_id=found.request_id, problem=problem)


def _wrong(found: Receipt, shown: dict[str, Any], proof: Proof, root: Root | None) -> str:
    """What is wrong with a proof; "": nothing is."""
    if root is None:
        return f"root {proof.root} is not there"
    try:
        if msgspec.json.decode(proof.content, type=_Costing).request_id != found.request_id:
            return "the record that is proven is another request's"
        if shown != members(proof.content.encode()):
            return "the record that is shown is not the one that is proven"
        said = segment_of(proof.segment)
        link = follow(hash_of(proof.previous), proof.content.encode())
        if tree.climb(link, proof.index, said.records, _bytes(proof.path)).hex() != said.root:
            return "the record is not in its segment"
        under = tree.climb(leaf(proof.segment), proof.segment_index, root.segments, _bytes(proof.segment_path))
        return "" if under.hex() == root.root else "its segment is not under its root"
    except (ValueError, RecursionError) as error:
        return f"its proof cannot be read: {error}"


def _event(content: str) -> str:
    """A record's event id, as far as it can be read."""
    try:
        return str(members(content.encode()).get("event_id"))
    except (ValueError, RecursionError):
        return ""


def _hex(hashes: Iterable[bytes]) -> list[str]:
    return [each.hex() for each in hashes]


def _bytes(hashes: Iterable[str]) -> list[bytes]:
    return [hash_of(each) for each in hashes]


def _public(text: str) -> bytes:
    """A public key; what is none is no bytes, which have signed nothing."""
    try:
        return hash_of(text)
    except ValueError:
        return b""
