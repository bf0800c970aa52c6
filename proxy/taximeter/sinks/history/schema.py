"""Tables, indexes and the `llm_usage` view: one definition for SQLite and PostgreSQL. No queries.

What is low in variety is stored once and referred to by number (`usage_series`, `usage_origins`), so a record's
row is small and a roll-up row is integers only. Single records go after `retention_days`; everything else stays.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Index,
    Integer,
    Label,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
)

from taximeter.core.latency import STEPS
from taximeter.sinks.cells import FIELDS
from taximeter.sinks.history.exact import exact_sum, wanted
from taximeter.sinks.query import SERIES, TAGS

VERSION = 5
"""Raised when an older Taximeter could no longer keep the tables. 2: roll-ups by tag. 3: charges. 4: refusals apart
from errors, and how long calls took. 5: what is billed later, roll-ups by tag in each series, evidence (a chain of
hashes for each journal), quantities."""

SEQ_BITS = 40
"""An event's id is `journal_no << 40 | seq`: 10^12 records a journal, 8 million journals, in 63 bits."""

US = 1_000_000
"""Moments are µs, roll-up starts are seconds."""

QUARTER_S, HOUR_S, DAY_S = 900, 3_600, 86_400

metadata = MetaData()

Big = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits everywhere; SQLite makes a key its row id only where the type is spelt INTEGER."""

meta = Table(
    "history_meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
"""`version`: of this schema. `id`: random, of this database. `events_since_us`: single records before this moment
have been deleted; `tags_since_us`: what is known of tags before this one; `apart_since_us`: refusals and latencies
before this one are not told. `unchained_journals`: up to this number, journals were known before there was evidence."""

journals = Table(
    "journals",
    metadata,
    Column("journal_no", Big, primary_key=True, autoincrement=True),
    Column("journal_id", Text, nullable=False, unique=True),
    Column("seq", Big, nullable=False),
    Column("digest", Text, nullable=False),
    Column("ended", Boolean, nullable=False),
    Column("chain", Text, nullable=False, server_default=""),
)
"""The cursor of each journal. Kept for ever: a file that comes back from a back-up is known. `chain`: the last link of
its chain (evidence.chain), hex; "" where none of it was delivered since there is evidence."""

ORIGIN = ("upstream", "api", "request_model", "response_model", "tokenizer", "price_ref")

series = Table(
    "usage_series",
    metadata,
    Column("series_no", Big, primary_key=True, autoincrement=True),
    *(Column(name, Text, nullable=False) for name in SERIES),
    UniqueConstraint(*SERIES),
)
"""Each combination of names that roll-ups are kept by; "" where a record carries none."""

origins = Table(
    "usage_origins",
    metadata,
    Column("origin_no", Big, primary_key=True, autoincrement=True),
    *(Column(name, Text, nullable=False) for name in ORIGIN),
    UniqueConstraint(*ORIGIN),
)
"""What else many records share word for word; "" for none."""

CLASS = ("kind", "outcome", "input_source", "output_source", "attempt", "known")

classes = Table(
    "usage_classes",
    metadata,
    Column("class_no", Big, primary_key=True, autoincrement=True),
    *(Column(name, Text, nullable=False) for name in CLASS),
    UniqueConstraint(*CLASS),
)
"""Everything about a record that decides how its figures count (core.totals), figures aside: records of one class and
series can be summed in SQL. `attempt`: first | later. `known`: which of rows.TELLING are not null, with commas."""

events = Table(
    "usage_events",
    metadata,
    Column("id", Big, autoincrement=False, nullable=False),
    Column("ended_at", Big, nullable=False),
    Column("started_at", Big, nullable=False),
    Column("series_no", Big, nullable=False),
    Column("origin_no", Big, nullable=False),
    Column("class_no", Big, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("attempt", SmallInteger, nullable=False),
    Column("track", Text),
    Column("document", Text),
    Column("end_user", Text),
    Column("duration_us", Big),
    Column("input_tokens", Big),
    Column("cached_input_tokens", Big),
    Column("cache_write_input_tokens", Big),
    Column("output_tokens", Big),
    Column("reasoning_output_tokens", Big),
    Column("total_tokens", Big),
    Column("audio_input_tokens", Big),
    Column("image_input_tokens", Big),
    Column("audio_output_tokens", Big),
    Column("accepted_prediction_tokens", Big),
    Column("rejected_prediction_tokens", Big),
    Column("search_units", Big),
    Column("embedding_inputs", Big),
    Column("rerank_documents", Big),
    Column("audio_ms", Big),
    Column("cost_nusd", Big),
    Column("detail", Text, nullable=False),
    PrimaryKeyConstraint("id").ddl_if(dialect="sqlite"),
    # A partitioned table's unique key must hold the partition key; the cursor keeps `id` unique by itself.
    UniqueConstraint("id", "ended_at").ddl_if(dialect="postgresql"),
    postgresql_partition_by="RANGE (ended_at)",
)
"""One row a record. `detail` is JSON: the rare fields and the provider's own usage object (rows.Detail)."""

Index("usage_events_ended_at", events.c.ended_at, events.c.series_no)
Index("usage_events_request_id", events.c.request_id)
for _tag in TAGS:
    # By series too: another workspace may use the same name, and its records are not worth a look.
    _key, _present = (events.c[_tag], events.c.series_no, events.c.ended_at), events.c[_tag].is_not(None)
    Index(f"usage_events_{_tag}", *_key, sqlite_where=_present, postgresql_where=_present)

charges = Table(
    "usage_charges",
    metadata,
    Column("id", Big, primary_key=True, autoincrement=False),
    Column("ended_at", Big, nullable=False),
    Column("workspace", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("attempt", SmallInteger, nullable=False),
    Column("charged_tokens", Big, nullable=False),
    Column("charged_cost_nusd", Big, nullable=False),
)
"""What budgets are charged for calls of which it is not known what they used, and what was corrected of that: a row for
each of these few records, kept as long as sums are."""

Index("usage_charges_workspace", charges.c.workspace, charges.c.ended_at)

owed = Table(
    "usage_owed",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("object", Text, primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("since", Big, nullable=False),
    Column("state", Text, nullable=False),
    Column("seen_at", Big),
    Column("asked", Text, nullable=False),
)
"""Objects by which calls are billed later. `state`: outstanding | ended (it and all files of its lines were told) |
expired (written off). `asked`: the record of the call, as JSON."""

Index("usage_owed_state", owed.c.state, owed.c.since)

owed_files = Table(
    "usage_owed_files",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("file", Text, primary_key=True),
    Column("object", Text, nullable=False),
    Column("at", Big, nullable=False),
)
"""Which object's lines a file holds."""

Index("usage_owed_files_object", owed_files.c.workspace, owed_files.c.provider, owed_files.c.object)

owed_lines = Table(
    "usage_owed_lines",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("object", Text, primary_key=True),
    Column("line", Text, primary_key=True),
    Column("node", Text, nullable=False),
    Column("at", Big, nullable=False),
    Column("settled", Boolean, nullable=False),
    Column("told", Text, nullable=False),
)
"""What was told of an object, each line once: whichever node delivers it first claims it, and settles it. `object` may
be a file (core.deferred.FILE) as long as nobody knows whose; `line` "": the object itself, of a file that it was read
whole. `told`: the record, as JSON; "" once it is settled."""

Index("usage_owed_lines_node", owed_lines.c.node, owed_lines.c.settled)
Index("usage_owed_lines_at", owed_lines.c.at)

leases = Table(
    "usage_leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("node", Text, nullable=False),
    Column("until", Big, nullable=False),
)
"""What one node at a time does, until when, in µs since epoch."""

SUMMARIES: tuple[tuple[str, ...], ...] = (("task",), ("provider", "model", "operation"), ("workspace", "key_id"))
"""Names a coarser roll-up is kept by, beside the one by all of SERIES: the commonest queries, with few rows each.
Fewest rows first; a query goes to the first that knows all its names."""

summaries = Table(
    "usage_summaries",
    metadata,
    Column("series_no", Big, primary_key=True, autoincrement=True),
    Column("kept", Text, nullable=False),
    *(Column(name, Text, nullable=False) for name in SERIES),
    UniqueConstraint("kept", *SERIES),
)
"""What `usage_series` is for roll-ups, for summaries. `kept`: the names it is by, with commas; the others are ""."""


def total(column: ColumnElement[int]) -> Label[int]:
    """The column's sum under its own name, as an integer: PostgreSQL returns a sum of integers as a decimal.

    Statements that are kept must be kept by `exact.wanted()` too.
    """
    if wanted():
        return exact_sum(column)
    return func.sum(column).cast(Big).label(column.key)


def _level(name: str, *key: Column[Any]) -> Table:
    """Sums of FIELDS by a key, which has `start_s`, in seconds since epoch."""
    return Table(
        name,
        metadata,
        *key,
        *(Column(field, Big, nullable=False) for field in FIELDS),
        sqlite_with_rowid=False,  # clustered by its key
        postgresql_with={"fillfactor": 70},  # room for a row's next version on the same page
    )


def _number(name: str) -> Column[int]:
    return Column(name, Big, primary_key=True, autoincrement=False)


def _levels(name: str) -> tuple[Table, Table, Table, Table]:
    """15 minutes, hours, days, calendar months (UTC). Each holds every record once."""
    return (
        # By time: a batch touches few pages of these, the larger ones.
        _level(name, _number("start_s"), _number("series_no")),
        _level(f"{name}_hour", _number("start_s"), _number("series_no")),
        # By series: long ranges are summed in the order in which they lie.
        _level(f"{name}_day", _number("series_no"), _number("start_s")),
        _level(f"{name}_month", _number("series_no"), _number("start_s")),
    )


LEVELS = _levels("usage_rollup")
"""The roll-ups by all names of a series, finest first."""

SUMMARY_LEVELS = _levels("usage_summary")
"""Those of all SUMMARIES; the same records once more for each of them."""

QUARTER, HOUR, DAY, MONTH = LEVELS
SUMMARY_MONTH = SUMMARY_LEVELS[-1]

TAG_LEVELS = tuple(
    _level(
        f"usage_tags_{level}",
        Column("tag", Text, primary_key=True),
        _number("start_s"),
        Column("value", Text, primary_key=True),
        _number("series_no"),
    )
    for level in ("hour", "day", "month")
)
"""Roll-ups by what a tag says, in each series: the records that carry a track, once more those with a document, with an
end user. They are filled behind delivery (tag_rollups), which need not wait for them, and go by whole months with the
records."""

MEASURES = ("duration", "ttft")
"""What is kept of how long calls took that ended well; stored by their place here."""
STEP_COLUMNS = tuple(f"step_{number:02}" for number in range(STEPS))

LATENCY_HOUR, LATENCY_DAY = (
    Table(
        f"usage_latency_{level}",
        metadata,
        _number("start_s"),
        _number("series_no"),
        Column("measure", SmallInteger, primary_key=True, autoincrement=False),
        *(Column(name, Big, nullable=False) for name in STEP_COLUMNS),
        sqlite_with_rowid=False,
        postgresql_with={"fillfactor": 70},
    )
    for level in ("hour", "day")
)
"""Histograms by core.latency's steps. Zeros take no room in SQLite but a byte each; a cell is a row, not one a step, so
that a batch changes few."""

quantities = Table(
    "usage_quantities",
    metadata,
    _number("start_s"),
    _number("series_no"),
    Column("kind", Text, primary_key=True),
    Column("variant", Text, primary_key=True),
    Column("amount", Big, nullable=False),
    sqlite_with_rowid=False,
)
"""What few calls use, by hour: `kind` and `variant` as core.quantities has them."""

tags_done = Table(
    "usage_tags_done",
    metadata,
    Column("journal_no", Big, primary_key=True, autoincrement=False),
    Column("seq", Big, nullable=False),
)
"""The last record of each journal that is in the roll-ups by tag; none where it is not begun."""

evidence_pieces = Table(
    "evidence_pieces",
    metadata,
    Column("piece_no", Big, primary_key=True, autoincrement=True),
    Column("journal_no", Big, nullable=False),
    Column("after", Big, nullable=False),
    Column("upto", Big, nullable=False),
    Column("late", Boolean, nullable=False),
    Column("ended", Boolean, nullable=False),
    Column("previous", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("entries", LargeBinary, nullable=False),
)
"""The chain's entries of each batch delivered, as evidence.chain packs them, until they are gathered into a segment."""

Index("evidence_pieces_journal", evidence_pieces.c.journal_no, evidence_pieces.c.piece_no)

evidence_segments = Table(
    "evidence_segments",
    metadata,
    Column("journal_no", Big, primary_key=True, autoincrement=False),
    Column("number", Big, primary_key=True, autoincrement=False),
    Column("root_no", Big),
    Column("after", Big, nullable=False),
    Column("upto", Big, nullable=False),
    Column("last_us", Big),
    Column("statement", Text, nullable=False),
    Column("entries", LargeBinary),
)
"""Many consecutive entries of a journal, and what is said of them (evidence.statements.Segment, the exact text). The
entries go when the last of their records is deleted; the statement stays, so that roots can be computed for ever.
`root_no`: null until there is one over it."""

Index("evidence_segments_root", evidence_segments.c.root_no)

evidence_roots = Table(
    "evidence_roots",
    metadata,
    Column("root_no", Big, primary_key=True, autoincrement=False),
    Column("statement", Text, nullable=False),
    Column("signatures", Text, nullable=False),
)
"""evidence.statements.SignedRoot; `signatures` is JSON."""

evidence_keys = Table(
    "evidence_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("public_key", Text, nullable=False),
)
"""Every public key that has signed a root, in hex."""

_TIME = {
    "sqlite": "datetime(e.ended_at / 1000000, 'unixepoch')",
    "postgresql": "to_timestamp(e.ended_at / 1000000.0)",
}


_CORRECTED = """(SELECT SUM(c.cost_nusd) FROM usage_events c
                WHERE c.request_id = e.request_id AND c.attempt = e.attempt
                AND c.class_no IN (SELECT class_no FROM usage_classes WHERE kind = 'correction'))"""


def llm_usage_view(dialect: str) -> str:
    """The statement that makes `llm_usage`: one row a call, its corrections in its cost."""
    return f"""
        CREATE VIEW llm_usage AS
        SELECT e.id AS id, {_TIME[dialect]} AS timestamp, s.provider AS provider, s.model AS model,
            NULLIF(s.task, '') AS task_type, e.input_tokens AS input_tokens, e.output_tokens AS output_tokens,
            e.total_tokens AS total_tokens,
            COALESCE(e.cost_nusd + {_CORRECTED}, e.cost_nusd, {_CORRECTED}) / 1000000000.0 AS cost_usd,
            (e.duration_us + 500) / 1000 AS response_time_ms, {_TIME[dialect]} AS created_at
        FROM usage_events e JOIN usage_series s ON s.series_no = e.series_no
        WHERE e.class_no IN (SELECT class_no FROM usage_classes WHERE kind = 'usage')"""  # noqa: S608  (constants only)
