"""The check itself: roots over segments, segments over entries, entries over records (docs/evidence.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from taximeter.core.bounds import FOREVER_US
from taximeter.evidence import tree
from taximeter.evidence.chain import Entry, begin, follow, hash_of, unpack
from taximeter.evidence.report import Fault, Report
from taximeter.evidence.roots import check_roots
from taximeter.evidence.source import NO_RECORD, Found, Source, Stretch
from taximeter.evidence.statements import Root, Segment, leaf, segment, segment_of, text_of

OUTLIVED = (
    "records are there of a time of which retention is said to have deleted all: it may be deleting now, or they came "
    "late; else it was not retention that deleted the others."
)
OPEN_END = "The period ends after the last root was made: whether there was more of it, no root tells."


def check(
    source: Source,
    from_us: int | None = None,
    to_us: int | None = None,
    trusted: Iterable[bytes] = (),
    known: Iterable[str] = (),
) -> Report:
    """Whether what a source has of a period is what was delivered. `trusted`: public keys; without, those in it.
    `known`: SHA-256 (hex) of roots that there are, as who checks was told."""
    report = Report(source=source.name, history=source.history, from_us=from_us, to_us=to_us)
    checker = _Checker(source, report, from_us or 0, FOREVER_US if to_us is None else to_us)
    signed = source.roots()
    roots = check_roots(signed, source.history, source.keys(), trusted, report)
    for digest in sorted(set(known) - {each.digest for each in signed}):
        problem = f"the root of SHA-256 {digest} is not there: what came behind an older one was taken off or made anew"
        report.add(Fault(kind="root_missing", problem=problem))
    report.sealed_us = roots[-1].sealed_at if roots else None
    if any(root.unchained != source.unchained for root in roots):
        report.add(Fault(kind="root_changed", problem="roots say another beginning of evidence than history does"))
    wanted = [place for place, root in enumerate(roots) if checker.concerns(root)]
    within = roots[wanted[0] : wanted[-1] + 1] if wanted else []
    checker.first = (bool(within) and within[0].number == 1) or not roots
    for root in within:
        checker.root(root)
    checker.unsealed()
    if not roots or (within and within[-1] is roots[-1]):
        checker.ends()
    checker.others()
    records_hold = not any(fault.kind.startswith("record") for fault in report.faults)
    for fault in source.faults(checker.from_us, checker.to_us):
        if records_hold or fault.kind != "sums_differ":  # else it is told already why they differ
            report.add(fault)
    report.journals = len(checker.seen)
    if report.unsealed:
        report.notes.append(f"{report.unsealed} records are under no root yet: nobody has signed what is kept of them.")
    if report.deleted and report.outlived:
        report.notes.append(f"{report.outlived} {OUTLIVED}")
    if report.sealed_us is not None and to_us is not None and to_us > report.sealed_us:
        report.notes.append(OPEN_END)
    return report


class _Checker:
    def __init__(self, source: Source, report: Report, from_us: int, to_us: int) -> None:
        self.source, self.report = source, report
        self.from_us, self.to_us = from_us, to_us
        self.seen: dict[str, Segment] = {}
        """The last segment of each journal."""
        self.upto: dict[str, int] = {}
        """Where the last of them that is not late ends."""
        self.ended: set[str] = set()
        """Journals whose end was among them."""
        self.examined: dict[str, list[tuple[int, int]]] = {}
        self.first = True
        """The check begins with the first root: no journal has segments before."""

    def concerns(self, said: Root | Segment) -> bool:
        """Whether any record of it is of the period."""
        if said.first_us is None or said.last_us is None:
            return self.from_us == 0 and self.to_us == FOREVER_US
        return said.first_us < self.to_us and said.last_us >= self.from_us

    def root(self, root: Root) -> None:
        """Its segments, then whether they are those it was made of."""
        leaves, sizes = [], 0
        for held in self.source.segments(root.number):
            leaves.append(leaf(held.statement))
            sizes += 1
            self.held(held)
        if sizes != root.segments:
            problem = f"it is over {root.segments} segments, of which {sizes} are there"
            self.report.add(Fault(kind="evidence_missing", root=root.number, problem=problem))
        elif tree.root(leaves).hex() != root.root:
            problem = "its segments are not those it was made of"
            self.report.add(Fault(kind="evidence_changed", root=root.number, problem=problem))

    def unsealed(self) -> None:
        for held in self.source.segments(None):
            said = self.held(held)
            self.report.unsealed += said.records if said is not None and self.concerns(said) else 0

    def held(self, held: Stretch) -> Segment | None:
        """A segment: its place in its journal's chain, then what it is of."""
        try:
            said = segment_of(held.statement)
        except ValueError as error:
            self._evidence(held, None, f"what is said of a segment cannot be read: {error}")
            return None
        if said.journal != held.journal:
            self._evidence(held, said, f"a segment says that it is of journal {said.journal}")
            return None
        self.report.segments += 1
        self._follows(held, said)
        if self.concerns(said):
            self._entries(held, said)
        return said

    def _follows(self, held: Stretch, said: Segment) -> None:
        before = self.seen.get(said.journal)
        if before is None:
            if said.number == 1:
                if said.previous != begin(said.journal).hex():
                    self._evidence(held, said, "its chain does not begin as a journal's does")
            elif self.first:
                self._gap(held, said, 0)
        elif said.number != before.number + 1:
            self._gap(held, said, self.upto.get(said.journal, 0))
        elif said.previous != before.last:
            self._evidence(held, said, "its chain does not go on where it had ended")
        if not said.late:
            known = self.upto.get(said.journal)
            if known is not None and said.after != known and before is not None and said.number == before.number + 1:
                self._gap(held, said, known)
            if said.journal in self.ended and said.upto > said.after:
                self._evidence(held, said, "it goes on after its end")
            if said.ended:
                self.ended.add(said.journal)
            self.upto[said.journal] = said.upto
        self.seen[said.journal] = said

    def _gap(self, held: Stretch, said: Segment, known: int) -> None:
        problem = f"what is kept of its chain jumps from seq {known} to {said.after}"
        self.report.add(
            Fault(kind="evidence_missing", journal=said.journal, seq=said.after, root=held.root_no, problem=problem)
        )

    def _entries(self, held: Stretch, said: Segment) -> None:
        packed = self.source.entries(held)
        if packed is None:
            if said.last_us is not None and said.last_us < self.source.deleted_before_us:
                self.report.deleted += said.records
            else:
                self._evidence(held, said, "the entries of its records are gone")
            return
        stretches = self.examined.setdefault(said.journal, [])
        if not said.late:
            stretches.append((said.after, said.upto))
        found = list(self.source.records(said.journal, said.after, said.upto))
        try:
            entries = unpack(packed)
            rebuilt = segment(
                packed, hash_of(said.previous), journal=said.journal, number=said.number, after=said.after,
                upto=said.upto, digest=said.digest, ended=said.ended, late=said.late,
            )  # fmt: skip
        except ValueError as error:
            self._evidence(held, said, f"the entries of its records cannot be read: {error}")
            return
        if text_of(rebuilt) != held.statement:
            self._evidence(held, said, _changed(said, entries, found))
        elif said.late and not entries:
            self._evidence(held, said, "a late segment has no record")
        if not said.late:
            self.report.absent_seqs += said.upto - said.after - len(entries)
        self._records(said, entries, found)

    def _records(self, said: Segment, entries: Sequence[Entry], found: Sequence[Found]) -> None:
        """Each entry's record, and each record's entry."""
        previous = hash_of(said.previous)
        rows: dict[int, list[Found]] = {}
        for one in found:
            rows.setdefault(one.seq, []).append(one)
        late = frozenset() if said.late else self.source.late(said.journal)
        for entry in entries:
            mine = rows.pop(entry.seq, [])
            if not mine:
                self._missing(said, entry)
            for number, one in enumerate(mine):
                if number:
                    self._record("record_added", said.journal, one, "there is another record of the same seq")
                else:
                    self._compare(said.journal, one, entry, previous)
            previous = entry.link
        for seq, strays in rows.items():
            for one in strays:
                if seq not in late:
                    self._record("record_added", said.journal, one, "no such record was delivered")

    def _missing(self, said: Segment, entry: Entry) -> None:
        if entry.at_us < self.source.deleted_before_us:
            self.report.deleted += self.from_us <= entry.at_us < self.to_us
        elif self.from_us <= entry.at_us < self.to_us:
            problem = "it was delivered and is not there"
            self.report.add(Fault(kind="record_missing", journal=said.journal, seq=entry.seq, problem=problem))

    def _compare(self, journal: str, one: Found, entry: Entry, previous: bytes) -> None:
        self.report.outlived += entry.at_us < self.source.deleted_before_us and self.from_us <= entry.at_us < self.to_us
        if not one.content and one.at_us == entry.at_us:
            self.report.left_out += 1
        elif not one.content:
            self._record("record_changed", journal, one, "it ended at another time than it says")
        elif follow(previous, one.content) != entry.link:
            problem = "it cannot be read" if one.content == NO_RECORD else "it is not what was delivered"
            self._record("record_changed", journal, one, problem)
        elif one.at_us != entry.at_us:
            self._record("record_changed", journal, one, "it ended at another time than its entry says")
        elif one.problem:
            self._record("record_changed", journal, one, one.problem)
        else:
            self.report.records += self.from_us <= one.at_us < self.to_us

    def ends(self) -> None:
        """Whether the chains that are kept reach as far as history does."""
        for journal, (seq, last, ended) in self.source.ends().items():
            said = self.seen.get(journal)
            if said is None:
                if self.first:
                    problem = "history is past its beginning, and nothing is kept of its chain"
                    self.report.add(Fault(kind="evidence_missing", journal=journal, problem=problem))
            elif (said.last, self.upto.get(journal, seq)) != (last, seq) or (not said.late and said.ended != ended):
                problem = f"history knows its end, at seq {seq}, otherwise than what is kept of its chain"
                self.report.add(Fault(kind="evidence_missing", journal=journal, seq=seq, problem=problem))

    def others(self) -> None:
        """Records of the period that no segment examined has."""
        for journal, one in self.source.others(self.from_us, self.to_us, self.examined):
            held = self.source.holding(journal, one.seq)
            if held is not None:
                self._elsewhere(held, one)
            elif self.source.is_older(journal, one.seq):
                self.report.before_evidence += 1
            else:
                self._record("record_added", journal, one, "no such record was delivered")

    def _elsewhere(self, held: Stretch, one: Found) -> None:
        """A record of the period in a segment that has none: it was moved there, or never delivered."""
        packed = self.source.entries(held) or b""
        try:
            known = {entry.seq: entry.at_us for entry in unpack(packed)}
        except ValueError:
            known = {}
        if one.seq in known:
            self._record("record_changed", held.journal, one, f"it ended at {known[one.seq]} µs when it was delivered")
        elif one.seq not in self.source.late(held.journal):
            self._record("record_added", held.journal, one, "no such record was delivered")

    def _record(self, kind: str, journal: str, one: Found, problem: str) -> None:
        self.report.add(
            Fault(kind=kind, journal=journal, seq=one.seq, request_id=one.request_id, problem=problem)  # type: ignore[arg-type]
        )

    def _evidence(self, held: Stretch, said: Segment | None, problem: str) -> None:
        place = None if said is None else said.after + 1
        self.report.add(
            Fault(kind="evidence_changed", journal=held.journal, seq=place, root=held.root_no, problem=problem)
        )


def _changed(said: Segment, entries: Sequence[Entry], found: Sequence[Found]) -> str:
    """In what entries differ from what is said of them; where the records are all there, it can be told at which."""
    previous, links, at = hash_of(said.previous), [], {entry.seq: entry for entry in entries}
    for one in found:
        previous = follow(previous, one.content)
        links.append((one.seq, previous))
    if links and tree.root([link for _, link in links]).hex() == said.root:
        wrong = [seq for seq, link in links if seq not in at or at[seq].link != link]
        where = f"of seq {wrong[0]} " if wrong else "of times and places "
        return f"the entries {where}were changed; the records are those that were delivered"
    return f"the {len(entries)} entries are not those of which this is said"
