"""Where the query verbs get their answers: a running proxy over HTTP, or the history database itself.

Both answer in the control API's own JSON shapes, so a verb does not know which it asked.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

from taximeter.core.errors import TaximeterError

if TYPE_CHECKING:
    from httpx2 import Client, Response

    from taximeter.config import Settings
    from taximeter.core.record import Record
    from taximeter.sinks.history.read.reader import Reader
    from taximeter.sinks.query import Filters

Params = Mapping[str, Sequence[str]]
"""Query parameters of the control API by name."""

CONNECT_S = 2.0
ANSWER_S = 60.0
"""A question about all records of a large history takes seconds."""
TOKEN_ENV = "TAXIMETER_ADMIN_TOKEN"  # noqa: S105 - the name of a variable
URL_ENV = "TAXIMETER_URL"


class Unreachable(TaximeterError):
    """No proxy answers, and there is no history to read instead."""


class Refused(TaximeterError):
    """The control port answered with an error; `status` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Source(Protocol):
    """Answers usage questions in the control API's shapes (JSON bytes)."""

    def usage(self, params: Params) -> bytes: ...

    def track(self, name: str, params: Params) -> bytes: ...

    def insight(self, name: str, params: Params) -> bytes: ...

    def records(self, params: Params, limit: int) -> list[dict[str, Any]]: ...


class Proxy:
    """A running proxy's control port."""

    def __init__(self, url: str, token: str) -> None:
        import httpx2

        self._errors = httpx2.HTTPError
        headers = {"authorization": f"Bearer {token}"} if token else {}
        timeout = httpx2.Timeout(ANSWER_S, connect=CONNECT_S)
        self.url = url.rstrip("/")
        secure = self.url.startswith(
            "https:"
        )  # else no certificate is ever looked at, and authorities take 50 ms to load
        self.client: Client = httpx2.Client(
            base_url=self.url, headers=headers, timeout=timeout, trust_env=False, verify=secure
        )

    def close(self) -> None:
        self.client.close()

    def usage(self, params: Params) -> bytes:
        return self.request("GET", "/usage", params=params).content

    def track(self, name: str, params: Params) -> bytes:
        wait_s = float(params.get("wait", ["0"])[0])
        return self.request("GET", f"/usage/tracks/{quote(name, safe='')}", params=params, wait_s=wait_s).content

    def insight(self, name: str, params: Params) -> bytes:
        return self.request("GET", f"/usage/{name}", params=params).content

    def records(self, params: Params, limit: int) -> list[dict[str, Any]]:
        answer = self.request("GET", "/usage/events", params={**params, "limit": [str(limit)]})
        found: list[dict[str, Any]] = answer.json()["data"]
        return found

    def request(
        self, method: str, path: str, *, params: Params | None = None, body: object = None, wait_s: float = 0.0
    ) -> Response:
        """A successful answer. Raises Refused or Unreachable."""
        with self._mapped():
            answer = self.client.request(method, path, params=_query(params), json=body, timeout=ANSWER_S + wait_s)
        _check(answer)
        return answer

    @contextmanager
    def stream(self, path: str, params: Params, *, silence_s: float = ANSWER_S) -> Iterator[Response]:
        """An answer whose body is read as it comes. Raises Refused or Unreachable."""
        with self._mapped(), self.client.stream("GET", path, params=_query(params), timeout=silence_s) as answer:
            if answer.status_code >= 400:
                answer.read()
            _check(answer)
            yield answer

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise Unreachable(f"{self.url} does not answer: {error}") from error


class Database:
    """A history database, read directly; calls still in the journal are not in it yet."""

    def __init__(self, url: str) -> None:
        """Raises ConfigError when there is no history there."""
        from taximeter.sinks.history.read.reader import Reader

        self.reader: Reader = Reader.open(url)

    def close(self) -> None:
        self.reader.close()

    def usage(self, params: Params) -> bytes:
        from taximeter.control.answers import responses as shapes
        from taximeter.sinks.query import Window, checked

        filters = filters_of(params)
        names = checked(params.get("group_by", ()))
        window: Window | None = params["window"][0] if "window" in params else None  # type: ignore[assignment]
        groups = self.reader.usage(filters, names, window, _zone(params))
        return shapes.encode(shapes.aggregate(groups, filters, names, windowed=window is not None))

    def track(self, name: str, params: Params) -> bytes:
        from taximeter.control.answers import responses as shapes
        from taximeter.core.errors import BadRequest
        from taximeter.sinks.query import Filters

        workspace = params.get("workspace", [None])[0]
        if workspace is None:
            found = [group.key["workspace"] for group in self.reader.usage(Filters(track=name), ("workspace",))]
            if len(found) > 1:
                raise BadRequest(f"Several workspaces have this track ({', '.join(map(str, found))}): say --workspace.")
            workspace = found[0] if found else None
        asked = filters_of(params)
        parts = self.reader.track(workspace, name, asked.from_us, asked.to_us) if workspace else []
        return shapes.encode(shapes.track(parts, name=name, workspace=workspace))

    def insight(self, name: str, params: Params) -> bytes:
        """`trends`, `peaks` or `forecast`; alternatives need the prices a running proxy holds."""
        import time

        from taximeter.control.answers import insights
        from taximeter.control.answers import responses as shapes
        from taximeter.core.times import zone
        from taximeter.sinks.query import checked

        now_us, tz = time.time_ns() // 1_000, _zone(params)
        place, asked, names = zone(tz), filters_of(params), checked(params.get("group_by", ()))
        usage = self.reader.usage
        if name == "trends":
            filters = insights.ranged(asked, now_us, place, insights.TREND_DAYS)
            before = usage(insights.before(filters), names)
            return shapes.encode(insights.trends(filters, usage(filters, names), before))
        if name == "peaks":
            filters = insights.ranged(asked, now_us, place, insights.PEAK_DAYS)
            return shapes.encode(insights.peaks(filters, usage(filters, (), "hour", tz), tz))
        if name == "forecast":
            daily = usage(insights.forecast_filters(asked, now_us, place), (), "day", tz)
            return shapes.encode(insights.forecast(daily, now_us, tz))
        raise Unreachable(f"`taximeter {name}` needs a running proxy: its prices.")

    def records(self, params: Params, limit: int) -> list[dict[str, Any]]:
        from taximeter.control.answers import responses as shapes

        found: list[Record] = self.reader.events(filters_of(params), limit)[0]
        return [shapes.record(each) for each in found]


def filters_of(params: Params) -> Filters:
    """Query parameters as history's filters. Raises BadRequest."""
    from taximeter.core.times import moment_us, zone
    from taximeter.sinks.query import Filters

    place = zone(_zone(params))
    asked: dict[str, Any] = {name: list(values) for name, values in params.items() if name in Filters.__struct_fields__}
    for name in ("from", "to"):
        if name in params:
            asked[f"{name}_us"] = moment_us(params[name][0], place, name)
    return Filters(**asked)


def find(url: str | None, history: str | None, config_file: Path | None) -> tuple[Proxy | Database, str]:
    """The source to ask, and what to tell the user about the choice ("" mostly).

    In order: `history` (a database URL), `url` (a control port), the proxy running here, its history when it is not
    running. Raises Unreachable, or ConfigError on settings that cannot be read.
    """
    if history is not None:
        return Database(history), ""
    token = os.environ.get(TOKEN_ENV, "")
    if url is not None:
        return Proxy(url, token), ""
    from taximeter.config import load

    settings = load(config_file)
    running = running_at(settings)
    if running is not None:
        return Proxy(running, token), ""
    data_dir = Path(settings.data_dir)
    database = settings.history.url
    if not database and (data_dir / "history.db").is_file():
        database = f"sqlite:///{data_dir / 'history.db'}"
    if database:
        return Database(database), "No proxy runs here: read from its history; calls still in the journal are missing."
    raise Unreachable(
        f"No proxy answers on {settings.admin_listen}, and there is no history in {data_dir.absolute()}. "
        f"Start one (taximeter serve), or name one with --url or --history."
    )


@contextmanager
def acting(url: str | None, settings: Settings) -> Iterator[Proxy | None]:
    """The proxy named, or the one running here; None: none runs, and what it would do is done on its data."""
    address = url or running_at(settings)
    if address is None:
        yield None
        return
    with closing(Proxy(address, os.environ.get(TOKEN_ENV, ""))) as proxy:
        yield proxy


def running_at(settings: Settings) -> str | None:
    """The control URL of the proxy running with these settings; None where nothing listens there."""
    from taximeter.node.datadir import read_runtime

    runtime = read_runtime(Path(settings.data_dir))
    address = _reachable(runtime.admin_listen if runtime is not None else settings.admin_listen)
    return f"http://{address}" if _listens(address) else None


def _check(answer: Response) -> None:
    if answer.status_code < 400:
        return
    try:
        message = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"{answer.request.url} answered {answer.status_code}."
    if answer.status_code == 401:
        message += f" Set {TOKEN_ENV}."
    raise Refused(message, answer.status_code)


def _query(params: Params | None) -> str:
    return urlencode(params or {}, doseq=True)


def _zone(params: Params) -> str:
    return params["tz"][0] if "tz" in params else "UTC"


def _reachable(address: str) -> str:
    """The address to connect to for one that is listened on."""
    from taximeter.config.addresses import join, split

    host, port = split(address)
    return join({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)  # noqa: S104 - never bound here


def _listens(address: str) -> bool:
    where = urlsplit(f"//{address}")
    try:
        with socket.create_connection((where.hostname or "", where.port or 0), timeout=CONNECT_S):
            return True
    except OSError:
        return False
