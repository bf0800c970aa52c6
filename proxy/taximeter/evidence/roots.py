"""Whether roots follow each other, and who speaks for them. Pure but for the signatures' arithmetic.

A root is spoken for by a key that was given to the check if that key signed it, or a key that such a root names as its
signer beside it, or if a later root that is spoken for leads to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from taximeter.evidence.keys import is_signed, key_id
from taximeter.evidence.report import Fault, Report
from taximeter.evidence.statements import Root, SignedRoot, root_of

UNGIVEN = "No public key was given: signatures were checked with the keys found beside them."


def check_roots(
    signed: Sequence[SignedRoot],
    history: str,
    keys: Mapping[str, bytes],
    trusted: Iterable[bytes],
    report: Report,
    *,
    alone: bool = False,
) -> list[Root]:
    """The roots that can be read; what is wrong with any is added to the report. `alone`: what was before them is not
    at hand."""
    given = {key_id(public): public for public in trusted}
    known = {**keys, **given}
    roots: list[Root] = []
    signers: list[set[str]] = []
    digest = ""
    for place, each in enumerate(signed, start=1):
        try:
            root = root_of(each.statement)
        except ValueError as error:
            report.add(Fault(kind="root_changed", root=place, problem=f"its statement cannot be read: {error}"))
            digest = each.digest
            continue
        expected = roots[-1].number + 1 if roots else 1
        if root.number != expected and not alone:
            report.add(_fault("root_missing", root, f"it follows root {expected - 1}"))
        elif root.previous != digest and not alone:
            report.add(_fault("root_changed", root, "it names another statement before it than there is"))
        if root.history != history:
            report.add(_fault("root_changed", root, f"it is of another history, {root.history}"))
        roots.append(root)
        signers.append(_signers(root, each, known, report))
        digest = each.digest
    report.roots += len(roots)
    report.signed_roots += sum(map(bool, signers))
    report.keys = sorted(set(report.keys).union(*signers))
    _speak(roots, signers, set(given), report)
    return roots


def _signers(root: Root, signed: SignedRoot, known: Mapping[str, bytes], report: Report) -> set[str]:
    """Whose signatures of it are right."""
    right: set[str] = set()
    for signature in signed.signatures:
        public = known.get(signature.key)
        if public is None:
            report.add(_fault("signature_wrong", root, f"the public key {signature.key} is not there"))
        elif key_id(public) != signature.key or not is_signed(signed.statement, signature, public):
            report.add(_fault("signature_wrong", root, f"its signature by key {signature.key} is wrong"))
        else:
            right.add(signature.key)
    for missing in sorted(set(root.signers) - {signature.key for signature in signed.signatures}):
        report.add(_fault("signature_wrong", root, f"its signature by key {missing} is missing"))
    return right & set(root.signers)


def _speak(roots: Sequence[Root], signers: Sequence[set[str]], trusted: set[str], report: Report) -> None:
    last = 0
    for place, (root, right) in enumerate(zip(roots, signers, strict=True), start=1):
        if right & trusted:
            trusted |= set(root.signers)  # named in what a trusted key has signed: it takes over
            last = place
    report.trusted_roots += last
    if not trusted:
        if report.signed_roots and UNGIVEN not in report.notes:
            report.notes.append(UNGIVEN)
    else:
        for root in roots[last:]:
            why = "no key that was given speaks for it" if root.signers else "it is not signed"
            report.add(_fault("signature_wrong", root, why))
    before: set[str] = set()
    for root, right in zip(roots, signers, strict=True):
        if before and not right:
            report.notes.append(f"Root {root.number} is not signed, though the one before is.")
        elif before and right.isdisjoint(before):
            report.notes.append(f"Root {root.number} is signed by another key, and not by the one before.")
        before = right


def _fault(kind: str, root: Root, problem: str) -> Fault:
    return Fault(kind=kind, root=root.number, problem=problem)  # type: ignore[arg-type]
