"""A history database, queried here: the same queries as the control port's, without the process that serves it.

Imports what it needs when it is needed: most verbs ask a running proxy.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from taximeter.cli.proxy import Params, Unreachable
from taximeter.core.times import range_us

if TYPE_CHECKING:
    from taximeter.billing.rule import Plan
    from taximeter.config import Settings
    from taximeter.sinks.history.read.reader import Reader
    from taximeter.sinks.query import Filters, Window


class Database:
    """A history database; calls still in the journal are not in it yet. Its methods are those of `Proxy`."""

    def __init__(self, url: str, settings: Settings | None = None) -> None:
        """`settings`: of the proxy whose history it is, where they are known: their plans say what is charged.

        Raises ConfigError when there is no history there.
        """
        from taximeter.sinks.history.read.reader import Reader

        self._settings = settings
        self.reader: Reader = Reader.open(url)

    def close(self) -> None:
        self.reader.close()

    def usage(self, params: Params) -> bytes:
        from taximeter.control.answers import queries, responses
        from taximeter.sinks.query import checked

        window: Window | None = params["window"][0] if "window" in params else None  # type: ignore[assignment]
        names = checked(params.get("group_by", ()))
        query = queries.usage(filters_of(params), names, window, _zone(params), self._plans())
        return responses.encode(queries.read(self.reader, query))

    def _plans(self) -> list[Plan]:
        from taximeter.config.plans import plans

        return [] if self._settings is None else plans(self._settings)

    def track(self, name: str, params: Params) -> bytes:
        from taximeter.control.answers import queries, responses

        asked = filters_of(params)
        workspace = params.get("workspace", [None])[0] or queries.read(self.reader, queries.owner(name))
        parts = self.reader.track(workspace, name, asked.from_us, asked.to_us) if workspace else []
        return responses.encode(responses.track(parts, name=name, workspace=workspace))

    def insight(self, name: str, params: Params) -> bytes:
        """`trends`, `peaks` or `forecast`; alternatives need the prices a running proxy holds."""
        from taximeter.control.answers import queries, responses
        from taximeter.sinks.query import checked

        filters, now_us, tz = filters_of(params), time.time_ns() // 1_000, _zone(params)
        match name:
            case "quantities":
                from taximeter.control.answers import quantities

                found = self.reader.quantities(filters, checked(params.get("group_by", ())))
                return responses.encode(quantities.response(filters, found))
            case "trends":
                names = checked(params.get("group_by", ()))
                return responses.encode(queries.read(self.reader, queries.trends(filters, names, now_us, tz)))
            case "peaks":
                return responses.encode(queries.read(self.reader, queries.peaks(filters, now_us, tz)))
            case "forecast":
                return responses.encode(queries.read(self.reader, queries.forecast(filters, now_us, tz)))
        raise Unreachable(f"`taximeter {name}` needs a running proxy: its prices.")

    def audit(self, params: Params, limit: int) -> bytes:
        """Entries of the history. What a node has written down and not brought there yet is not among them."""
        import msgspec

        from taximeter.control.answers.audit import AuditPage, info
        from taximeter.core.audit import AuditFilters
        from taximeter.sinks.history.audit import AuditTable

        range_ = filters_of({name: params[name] for name in ("from", "to", "tz") if name in params})
        named = {name: params[name] for name in ("action", "actor", "target", "outcome") if name in params}
        asked = AuditFilters(from_us=range_.from_us, to_us=range_.to_us, **named)
        found, more = AuditTable(self.reader.database).listing(asked, limit, None)
        return msgspec.json.encode(AuditPage([info(each) for each in found], more))

    def records(self, params: Params, limit: int) -> list[dict[str, Any]]:
        from taximeter.control.answers import responses

        return [responses.record(each) for each in self.reader.events(filters_of(params), limit)[0]]


def filters_of(params: Params) -> Filters:
    """Query parameters as history's filters. Raises BadRequest."""
    from taximeter.sinks.query import Filters

    first, last = (params[name][0] if name in params else None for name in ("from", "to"))
    from_us, to_us = range_us(first, last, _zone(params))
    named: dict[str, Any] = {name: list(values) for name, values in params.items() if name in Filters.__struct_fields__}
    return Filters(**named, from_us=from_us, to_us=to_us)


def _zone(params: Params) -> str:
    return params["tz"][0] if "tz" in params else "UTC"
