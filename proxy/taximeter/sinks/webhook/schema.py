"""The webhook's tables, in the history database: its cursors, what is not sent yet, and the letters on their way.

They are made at the first use of a webhook, so a history without one has none of them.
"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, Integer, MetaData, Table, Text

from taximeter.sinks.cells import FIELDS
from taximeter.sinks.history.schema import Big

metadata = MetaData()

cursors = Table(
    "webhook_cursors",
    metadata,
    Column("journal_id", Text, primary_key=True),
    Column("seq", Big, nullable=False),
)

tracks = Table(
    "webhook_tracks",
    metadata,
    Column("node", Text, primary_key=True),
    Column("workspace", Text, primary_key=True),
    Column("track", Text, primary_key=True),
    Column("segment", Big, nullable=False),
    Column("active_at", Big, nullable=False),
    Column("pending", Boolean, nullable=False),
)
"""`segment`: number of the last one cut. `active_at` (µs): when something last came. `pending`: it has sums."""

_waits = tracks.c.pending.is_(True)
Index("webhook_tracks_idle", tracks.c.active_at, sqlite_where=_waits, postgresql_where=_waits)

sums = Table(
    "webhook_sums",
    metadata,
    *(Column(name, Text, primary_key=True) for name in ("node", "workspace", "track", "operation", "model")),
    *(Column(field, Big, nullable=False) for field in FIELDS),
)
"""What a track has used since its last segment."""

retaken = Table("webhook_retaken", metadata, Column("event_id", Text, primary_key=True))
"""Records taken after they had been set aside: none is taken twice."""

outbox = Table(
    "webhook_outbox",
    metadata,
    Column("key", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("workspace", Text, nullable=False),
    Column("track", Text),
    Column("body", Text, nullable=False),
    Column("created_at", Big, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Big, nullable=False),
    Column("dead", Boolean, nullable=False),
    Column("problem", Text, nullable=False),
)
"""Letters not yet accepted. `key`: the Idempotency-Key. `kind`: segment | event. Times in µs. `dead`: given up."""

Index("webhook_outbox_due", outbox.c.dead, outbox.c.next_at)
