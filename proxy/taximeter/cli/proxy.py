"""A running proxy, asked over HTTP at its control port; and finding the one that runs here."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from taximeter.core.errors import TaximeterError
from taximeter.node.audit import os_user

if TYPE_CHECKING:
    from httpx2 import Client, Response

    from taximeter.config import Settings

T = TypeVar("T")
Params = Mapping[str, Sequence[str]]
"""Query parameters of the control API by name."""

CONNECT_S = 2.0
ANSWER_S = 60.0
"""A query over all records of a large history takes seconds."""
TOKEN_ENV = "TAXIMETER_ADMIN_TOKEN"  # noqa: S105 - the name of a variable


class Unreachable(TaximeterError):
    """No proxy answers, and there is no history to read instead."""


class Refused(TaximeterError):
    """The control port answered with an error; `status` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Proxy:
    """A running proxy's control port."""

    def __init__(self, url: str, token: str) -> None:
        import httpx2

        self._errors = httpx2.HTTPError
        headers = {"authorization": f"Bearer {token}"} if token else {}
        headers["x-taximeter-user"] = os_user().encode("ascii", "replace").decode()  # for the audit log
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

    def audit(self, params: Params, limit: int) -> bytes:
        return self.request("GET", "/audit", params={**params, "limit": [str(limit)]}).content

    def request(
        self, method: str, path: str, *, params: Params | None = None, body: object = None, wait_s: float = 0.0
    ) -> Response:
        """A successful answer. Raises Refused or Unreachable."""
        with self._mapped():
            answer = self.client.request(method, path, params=_query(params), json=body, timeout=ANSWER_S + wait_s)
        _check(answer)
        return answer

    def send(self, kind: type[T], method: str, path: str, body: object = None) -> T:
        """What a successful answer holds. Raises Refused or Unreachable."""
        return msgspec.json.decode(self.request(method, path, body=body).content, type=kind)

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


@contextmanager
def acting(url: str | None, config_file: Path | None) -> Iterator[tuple[Settings, Proxy | None]]:
    """The settings, and the proxy named or running here; None: none runs, and what it would do is done on its data."""
    from taximeter.config import load

    settings = load(config_file)
    address = url or running_at(settings)
    if address is None:
        yield settings, None
        return
    with closing(Proxy(address, os.environ.get(TOKEN_ENV, ""))) as proxy:
        yield settings, proxy


def running_at(settings: Settings) -> str | None:
    """The control URL of the proxy running with these settings; None where nothing listens there."""
    from taximeter.node.datadir import read_runtime

    runtime = read_runtime(Path(settings.data_dir))
    address = _reachable(runtime.admin_listen if runtime is not None else settings.admin_listen)
    return f"http://{address}" if _listens(address) else None


def data_url(url: str | None, config_file: Path | None) -> str:
    """The data port named, or that of the proxy running with these settings, or where it would be."""
    if url is not None:
        return url
    from taximeter.config import load
    from taximeter.node.datadir import read_runtime

    settings = load(config_file)
    runtime = read_runtime(Path(settings.data_dir))
    return f"http://{_reachable(runtime.listen if runtime is not None else settings.listen)}"


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
