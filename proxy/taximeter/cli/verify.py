"""`verify`: whether history, an export or the journals are what was delivered; `receipt`: the same of one request."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from taximeter.cli.evidence_places import evidence_of, history_url, journal_of
from taximeter.cli.known import Unknown
from taximeter.cli.options import FAILED, guarded, in_range
from taximeter.cli.show import console, count, echo, table
from taximeter.core.errors import BadRequest
from taximeter.core.times import range_us, zone

if TYPE_CHECKING:
    from taximeter.evidence.report import Report

_public = click.option(
    "--public-key", "public_files", multiple=True, type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="PEM of the keys to be believed, got from elsewhere than what is checked; can be repeated.",
)  # fmt: skip
_history = click.option("--history", metavar="URL", help="Of this history database (sqlite:///… postgresql://…).")
_config = click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings of the node.")
_json = click.option("--json", "as_json", is_flag=True, help="For machines.")


@click.command()
@click.argument("export", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_public
@click.option(
    "--root", "known", multiple=True, metavar="SHA256", help="Of a root that you were told of: it has to be there."
)
@_history
@_config
@_json
@guarded
@in_range
def verify(
    params: dict[str, list[str]],
    export: Path | None,
    public_files: Sequence[Path],
    known: Sequence[str],
    history: str | None,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Prove that no record is missing, none was changed and none was added: of this node's history and the journals
    that are still there, or offline of an EXPORT (`taximeter export -o FILE.evidence`).

    Exits with 1 where anything is not as it was delivered; each fault is named. docs/evidence.md says what is proven.
    """
    from taximeter.evidence.check import check
    from taximeter.evidence.files import check_files, explain

    trusted, (from_us, to_us), known = _keys(public_files), _range(params), _digests(known)
    if export is not None:
        from taximeter.evidence.bundle import Bundle

        bundle = Bundle(export)
        from_us, to_us = _within(bundle.head.from_us, bundle.head.to_us, from_us, to_us)
        _tell(check(bundle, from_us, to_us, trusted, known), as_json)
        return
    journal = journal_of(history, config_file)
    with evidence_of(history_url(history, config_file)) as source:
        report = check(source, from_us, to_us, trusted, known)
        if journal is not None:
            check_files(journal, source, report)
            explain(report, journal, source)
    _tell(report, as_json)


@click.command()
@click.argument("request_id", required=False)
@click.option(
    "--check", "checked", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Check this one."
)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write it here; default: standard output.")
@click.option("--workspace", help="Whose call, where those of several have this id.")
@_public
@_history
@_config
@_json
@guarded
def receipt(
    request_id: str | None,
    checked: Path | None,
    output: Path | None,
    workspace: str | None,
    public_files: Sequence[Path],
    history: str | None,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """One request's records as they were billed, each with the proof that it is under a signed root; or, with --check,
    whether such a receipt holds, offline."""
    from taximeter.evidence import receipts

    if (request_id is None) == (checked is None):
        raise BadRequest("Name a request, or --check FILE.")
    if checked is not None:
        found = receipts.decode(checked.read_bytes())
        _tell(receipts.check(found, str(checked), _keys(public_files)), as_json)
        return
    if public_files:
        raise BadRequest(
            "--public-key is for --check: a receipt is made of what was signed, and checked by who gets it."
        )
    with evidence_of(history_url(history, config_file)) as source:
        places = source.places(request_id or "", workspace)
        if not places:
            raise Unknown(f"Nothing is recorded of the request {request_id!r}.")
        made = receipts.receipt(source, request_id or "", places)
    text = receipts.encode(made)
    if output is None:
        echo(text)
    else:
        output.write_bytes(text + b"\n")
        cost = "no known cost" if made.cost_usd is None else f"{made.cost_usd} USD"
        echo(f"{output}: {_many(len(made.records), 'record')} of {made.request_id}, {cost}", err=True)


def _keys(files: Sequence[Path]) -> list[bytes]:
    from taximeter.evidence.keys import public_keys

    return [key for file in files for key in public_keys(file)]


def _digests(known: Sequence[str]) -> list[str]:
    """Raises BadRequest where one is no SHA-256."""
    for digest in known:
        if not re.fullmatch("[0-9a-fA-F]{64}", digest):
            raise BadRequest(
                f"--root {digest}: a SHA-256 has 64 hex digits; `taximeter evidence roots` shows those there are."
            )
    return [digest.lower() for digest in known]


def _range(params: dict[str, list[str]]) -> tuple[int | None, int | None]:
    first, last = (params[name][0] if name in params else None for name in ("from", "to"))
    tz = params["tz"][0] if "tz" in params else "UTC"
    zone(tz)
    return range_us(first, last, tz)


def _within(
    known_from: int | None, known_to: int | None, from_us: int | None, to_us: int | None
) -> tuple[int | None, int | None]:
    """The period asked for, of the one that an export has. Raises BadRequest where that has less."""
    begins_before = known_from is not None and from_us is not None and from_us < known_from
    ends_behind = known_to is not None and to_us is not None and to_us > known_to
    if begins_before or ends_behind:
        raise BadRequest(f"The export is of {_moment(known_from)} to {_moment(known_to)}; that period is not in it.")
    return (known_from if from_us is None else from_us), (known_to if to_us is None else to_us)


def _tell(report: Report, as_json: bool) -> None:
    """What was found; ends with FAILED where it does not hold."""
    import msgspec

    if as_json:
        echo(msgspec.json.encode(report))
    else:
        for line in _lines(report):
            echo(line)
        if report.faults:
            rows = [(each.kind.replace("_", " "), each.place or "—", each.problem) for each in report.faults]
            console().print(table(["What", "Where", "Problem"], [], rows))
    if not report.holds:
        if not as_json:
            more = f", and {count(report.more_faults)} more" if report.more_faults else ""
            echo(f"NOT as delivered: {_many(len(report.faults), 'fault')}{more}.", err=True)
        sys.exit(FAILED)


def _lines(report: Report) -> list[str]:
    period = f"{_moment(report.from_us)} to {_moment(report.to_us)}"
    lines = [f"{report.source}, {period if report.from_us or report.to_us else 'all of it'}"]
    of = f", of {_many(report.journals, 'journal')}"
    lines.append(f"As it was delivered: {_many(report.records, 'record')}{of}.")
    signed = f"Signed: {count(report.signed_roots)} of {_many(report.roots, 'root')}"
    if report.sealed_us is not None:
        signed += f", the last of {_moment(report.sealed_us)}"
    lines.append(f"{signed} (keys: {', '.join(report.keys)})." if report.keys else f"{signed}.")
    if report.trusted_roots:
        lines.append(f"Spoken for by the keys given: {_many(report.trusted_roots, 'root')}.")
    if report.files:
        told = f"In {_many(report.files, 'journal file')}, as it was delivered: {_many(report.lines, 'line')}"
        lines.append(f"{told}; still to be delivered: {count(report.undelivered)}.")
    counts = (
        ("Deleted by retention (that they were there is proven, not what they said)", report.deleted),
        ("Delivered before there was evidence (nothing is proven of them)", report.before_evidence),
        ("In the export with no more than their hash", report.left_out),
        ("Numbers without a record (unreadable, set aside, or lines that tell of other calls)", report.absent_seqs),
    )
    lines += [f"{words}: {count(number)}." for words, number in counts if number]
    return lines + report.notes


def _many(number: int, what: str) -> str:
    return f"{count(number)} {what}{'' if number == 1 else 's'}"


def _moment(at_us: int | None) -> str:
    return "—" if at_us is None else f"{datetime.fromtimestamp(at_us / 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"
