"""What an answer's head says that is true of this hop only: where a redirect leads, what another Taximeter says of its
own call. Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from taximeter.core import routes
from taximeter.core.errors import BadRequest, BadTag

if TYPE_CHECKING:
    from taximeter.gateway.upstream.endpoint import Address
    from taximeter.gateway.upstream.targets import Base

Headers = list[tuple[bytes, bytes]]

OF_ONE_HOP = frozenset({b"location", b"x-taximeter-request-id", b"x-taximeter-error"})
"""An answer with none of these is passed on as it came."""

_parts = re.compile(
    rb"(?s)(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):)?(?://(?P<authority>[^/?#]*))?(?P<path>[^?#]*)(?P<rest>.*)"
).fullmatch
"""RFC 3986, appendix B."""
_authority = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[^:@\[\]]+)(?::([0-9]{0,5}))?").fullmatch
_PORTS = {"http": 80, "https": 443}


def passed_on(headers: Headers, base: Base, asked: bytes, name: str) -> tuple[Headers, bool]:
    """An answer's headers as our client may have them, and whether a redirect among them leads away from the upstream.

    `asked`: the path of the request, as it came. `name`: of the upstream, to be put into paths that name none; "":
    calls come to it without.
    """
    kept, away = [], False
    for field, value in headers:
        if field == b"location":
            value, elsewhere = _located(value, base, asked, name)  # noqa: PLW2901
            away = away or elsewhere
        elif field.startswith(b"x-taximeter-"):  # another one's, about its own call
            continue
        kept.append((field, value))
    return kept, away


def _located(location: bytes, base: Base, asked: bytes, name: str) -> tuple[bytes, bool]:
    """A Location that leads to the same upstream as a path of ours; any other one as it is, and True."""
    route = routes.resolve(asked)
    origin, sent = base.of(route.path)
    found = _parts(location)
    assert found  # noqa: S101  # it fits anything
    scheme, authority, path, rest = found["scheme"], found["authority"], found["path"], found["rest"]
    relative = scheme is None and authority is None
    if relative and not path:
        return location, False  # a query or a fragment of the very same URL
    if relative:
        path = urljoin(sent.decode("latin-1"), path.decode("latin-1")).encode("latin-1")
    else:
        named = _origin(scheme, authority, origin)
        if named is None:
            return location, True
        origin, path = named, path or b"/"
    before = asked[: len(asked) - len(route.path)]
    if name and route.upstream is None:
        before += b"/u/" + name.encode()
    ours = base.ours(origin, path)
    if ours is not None and _leads_to(before + ours, ours) and not _names_a_host(before + ours):
        return before + ours + rest, False
    elsewhere = _url(origin) + path
    return (elsewhere + rest if relative and not _names_a_host(elsewhere) else location), True


_names_a_host = re.compile(rb"[/\\]{2}").match
"""What begins so is no path to a client that follows it, but another host (RFC 3986 §4.2; a browser takes \\ for /)."""


def _leads_to(asked: bytes, path: bytes) -> bool:
    """Whether a path with tags is one of ours, and is taken apart as it was put together."""
    try:
        return routes.resolve(asked).path == path
    except (BadRequest, BadTag):
        return False


def _origin(scheme: bytes | None, authority: bytes | None, here: Address) -> Address | None:
    """The origin that a URL names; None where it is none of HTTP, or has a user in it."""
    spoken = here[0] if scheme is None else scheme.decode().lower()
    place = _authority(authority or b"")
    if spoken not in _PORTS or place is None:
        return None
    host = place[1].decode("latin-1").lower().strip("[]")
    return spoken, host, int(place[2]) if place[2] else _PORTS[spoken]


def _url(origin: Address) -> bytes:
    scheme, host, port = origin
    if scheme == "unix":
        return b""  # no URL leads there: a relative one stays what it is
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}{'' if port == _PORTS.get(scheme) else f':{port}'}".encode()
