"""What few calls use is summed by hour and series in the transaction of the records: once, whatever comes again."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import msgspec
import pytest

from ledger import T0, US, batch, call
from taximeter.core.errors import BadRequest
from taximeter.core.record import Record
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.read.reader import Reader
from taximeter.sinks.history.write.writer import Writer
from taximeter.sinks.query import Filters

HOUR_US = 3_600 * US
START_US = T0 // HOUR_US * HOUR_US


def drawn(number: int, hour: int, **used: Any) -> Record:
    return msgspec.structs.replace(call(), request_id=f"r{number}", ended_at=START_US + hour * HOUR_US + 1, **used)


def test_quantities_are_summed_once_by_hour_and_series(new_url):
    records = [
        drawn(1, 0, workspace="a", images=2, media_size="1x1"),
        drawn(2, 0, workspace="a", images=3, media_size="1x1", web_search_requests=1),
        drawn(3, 1, workspace="b", images=5, media_size="2x2", seconds=1.5),
        drawn(4, 1, workspace="b"),
    ]
    database = Database(new_url())
    writer = Writer(database)
    for _ in range(2):  # the second time the cursor has passed them
        writer.apply([batch(records[:3])])
        writer.apply([batch(records[3:], after=3)])
    with closing(Reader(database)) as reader:

        def told(filters=Filters(), *by):  # noqa: B008  a frozen value
            return [
                (*each.key.values(), each.kind, each.variant, each.amount) for each in reader.quantities(filters, by)
            ]

        assert told() == [
            ("web_search_requests", None, 1), ("images", "1x1", 5), ("images", "2x2", 5), ("audio_ms", None, 1_500),
        ]  # fmt: skip
        assert told(Filters(workspace="b"), "workspace") == [("b", "images", "2x2", 5), ("b", "audio_ms", None, 1_500)]
        first = Filters(from_us=START_US, to_us=START_US + HOUR_US)
        assert told(first) == [("web_search_requests", None, 1), ("images", "1x1", 5)]
        assert told(Filters(from_us=START_US + 1)) == [("images", "2x2", 5), ("audio_ms", None, 1_500)]
        for odd, by in ((Filters(track="t"), ()), (Filters(), ("track",))):
            with pytest.raises(BadRequest, match="kept by workspace"):
                reader.quantities(odd, by)
