"""`evidence keygen | seal | roots | keys`: the keys that sign, and what they have signed."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import click

from taximeter.cli.evidence_places import evidence_of, history_url
from taximeter.cli.options import guarded
from taximeter.cli.show import console, count, echo, table

_history = click.option("--history", metavar="URL", help="Of this history database (sqlite:///… postgresql://…).")
_config = click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings of the node.")
_json = click.option("--json", "as_json", is_flag=True, help="For machines.")


@click.group()
def evidence() -> None:
    """What proves that history is what was delivered (docs/evidence.md); `verify` and `receipt` check it."""


@evidence.command()
@click.argument("file", type=click.Path(path_type=Path))
@guarded
def keygen(file: Path) -> None:
    """Make an Ed25519 key: FILE, for its owner only, and FILE.pub, for whoever checks."""
    from taximeter.evidence.keys import generate

    made = generate(file)
    echo(f"{file}: private key {made.id}; set evidence.key_file to it, and keep a copy where Taximeter is not.")
    echo(f"{file}.pub: public key; give it to whoever is to check, before there is anything to doubt.")


@evidence.command()
@_config
@guarded
def seal(config_file: Path | None) -> None:
    """Make a root now over all that is under none yet. A running proxy makes one after each day (UTC)."""
    from taximeter.config import load
    from taximeter.config.envfile import environment
    from taximeter.evidence.keys import signers
    from taximeter.evidence.statements import SignedRoot, told_of
    from taximeter.node.audit import command_log
    from taximeter.sinks.history.database import Database
    from taximeter.sinks.history.sink import History

    settings = load(config_file)
    signing = signers(settings.evidence, environment(settings.env_file, os.environ))
    url = history_url(None, config_file)
    with Database(url, read_only=True) as looked_at:  # none is made
        looked_at.prepare()

    async def sealed() -> SignedRoot | None:
        history = History(url)
        try:
            return await history.seal_evidence(time.time_ns() // 1_000, signing)
        finally:
            await history.close()

    with command_log(settings).act("evidence.seal", "") as change:
        made = asyncio.run(sealed())
        change.after = {"root": None if made is None else made.digest}
    echo("There is nothing that is under no root." if made is None else told_of(made))


@evidence.command()
@_history
@_config
@_json
@guarded
def roots(history: str | None, config_file: Path | None, as_json: bool) -> None:
    """The roots there are, with their SHA-256: kept elsewhere, it holds the operator to them too."""
    import msgspec

    from taximeter.core.times import shown
    from taximeter.evidence.statements import root_of

    with evidence_of(history_url(history, config_file)) as source:
        found = source.roots()
    if as_json:
        echo(msgspec.json.encode(found))
        return
    said = [(root_of(each.statement), each.digest) for each in found]
    rows = [
        (str(each.number), shown(each.sealed_at) or "", count(each.records), ", ".join(each.signers) or "—", digest)
        for each, digest in said
    ]
    if not rows:
        echo("There is no root yet: one is made after each day (UTC), or by `taximeter evidence seal`.")
        return
    out = console()
    if max(len("   ".join(row)) for row in rows) <= out.width:
        out.print(table(["Root", "Made at", "Records", "Signed by", "SHA-256"], [], rows))
        return
    for number, made_at, many, by, digest in rows:  # a hash that is to be copied is not broken
        echo(f"Root {number}, made at {made_at}, records: {many}, signed by: {by}")
        echo(digest)


@evidence.command()
@_history
@_config
@guarded
def keys(history: str | None, config_file: Path | None) -> None:
    """The public keys of all that ever signed a root here, in PEM."""
    from taximeter.evidence.keys import public_pem

    with evidence_of(history_url(history, config_file)) as source:
        found = source.keys()
        if not found:
            echo("No root has been signed.", err=True)
        for name, public in found.items():
            for line in (f"# {name}", *public_pem(public).splitlines()):
                echo(line)
