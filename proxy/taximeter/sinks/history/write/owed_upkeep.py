"""What becomes of what is owed with time: written off, forgotten, taken over from a node that is gone; who may look
after it. Each function is one transaction's worth.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, delete, exists, select, update

from taximeter.core.deferred import FILE
from taximeter.sinks.history.schema import leases, owed, owed_files, owed_lines
from taximeter.sinks.history.write.intern import insert_new
from taximeter.sinks.history.write.owed import EXPIRED, OUTSTANDING

ANYBODY = ""
"""Whose claims are that a node let go of as it ended: the next that looks takes them over."""

BITE = 500
"""Objects a transaction deals with at most."""


def write_off(connection: Connection, workspace: str, provider: str, name: str, now_us: int) -> bool:
    """Give an object up; true for whichever node does so first. What tells of it later settles it all the same."""
    here = (owed.c.workspace == workspace) & (owed.c.provider == provider) & (owed.c.object == name)
    given_up = update(owed).where(here, owed.c.state == OUTSTANDING).values(state=EXPIRED, seen_at=now_us)
    return connection.execute(given_up).rowcount > 0


def take_over(connection: Connection, nodes: Iterable[str], node: str) -> int:
    """What these nodes have claimed and not settled is `node`'s to settle. Everything they wrote must have arrived, or
    be lost for good. Returns how many lines."""
    theirs = owed_lines.c.node.in_(list(nodes)) & owed_lines.c.settled.is_(False)
    return connection.execute(update(owed_lines).where(theirs).values(node=node)).rowcount


def let_go(connection: Connection, node: str) -> int:
    """What a node has claimed and not settled is anybody's: it ends, and may not come back. Everything it wrote must
    have arrived. Returns how many lines."""
    return take_over(connection, [node], ANYBODY)


def forget(connection: Connection, before_us: int, strays_us: int) -> int:
    """A bite of what is no longer kept: objects promised before `before_us` with all their lines, and lines told before
    `strays_us` of what nobody here was promised. Returns how much went, 0: nothing is left.

    An object's lines go with it, never before: while it is here, they keep it from being settled again.
    """
    old = select(owed.c.workspace, owed.c.provider, owed.c.object).where(owed.c.since < before_us)
    gone = 0
    for workspace, provider, name in connection.execute(old.order_by(owed.c.since).limit(BITE)).all():
        of_file = (owed_files.c.workspace == workspace) & (owed_files.c.provider == provider)
        of_line = (owed_lines.c.workspace == workspace) & (owed_lines.c.provider == provider)
        mine = of_file & (owed_files.c.object == name)
        files = select(FILE + owed_files.c.file).where(mine)
        lines = (owed_lines.c.object == name) | owed_lines.c.object.in_(files)
        connection.execute(delete(owed_lines).where(of_line, lines))
        connection.execute(delete(owed_files).where(mine))
        of_object = (owed.c.workspace == workspace) & (owed.c.provider == provider) & (owed.c.object == name)
        gone += connection.execute(delete(owed).where(of_object)).rowcount
    connection.execute(delete(owed_files).where(owed_files.c.at < before_us))
    connection.execute(delete(owed_lines).where(owed_lines.c.at < before_us, owed_lines.c.settled))
    return gone + _forget_strays(connection, strays_us)


def _forget_strays(connection: Connection, before_us: int) -> int:
    of = owed_lines.c
    same = (owed.c.workspace == of.workspace) & (owed.c.provider == of.provider)
    by_file = exists(
        select(owed.c.object)
        .where(same, owed_files.c.workspace == of.workspace, owed_files.c.provider == of.provider)
        .where(owed.c.object == owed_files.c.object, of.object == FILE + owed_files.c.file)
        .correlate(owed_lines)
    )
    promised = exists(select(owed.c.object).where(same, owed.c.object == of.object).correlate(owed_lines)) | by_file
    keys = (of.workspace, of.provider, of.object)
    strays = select(*keys).distinct().where(of.settled.is_(False), of.at < before_us, ~promised).limit(BITE)
    gone = 0
    for workspace, provider, name in connection.execute(strays).all():
        these = (of.workspace == workspace) & (of.provider == provider) & (of.object == name)
        gone += connection.execute(delete(owed_lines).where(these, of.at < before_us)).rowcount
    return gone


def lease(connection: Connection, name: str, node: str, now_us: int, until_us: int) -> bool:
    """Whether `node` may do what this lease is for until then: it had it, or nobody has it now."""
    row = insert_new(leases, connection.dialect.name).values(name=name, node=node, until=until_us)
    if connection.execute(row.returning(leases.c.name)).first() is not None:
        return True
    free = (leases.c.node == node) | (leases.c.until < now_us)
    mine = update(leases).where(leases.c.name == name, free).values(node=node, until=until_us)
    return connection.execute(mine).rowcount > 0
