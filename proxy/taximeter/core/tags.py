"""Who a call belongs to: workspace, track, document, task, end user; and which source wins.

Strongest first (DESIGN §2.1): the proxy key's workspace, headers, path, baggage and body (off by default),
the upstream's default, `default`. A bad tag in our own headers or path is an error the client sees;
one from baggage or body, where others may have written it, is ignored and noted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from taximeter.core.errors import BadTag, Forbidden
from taximeter.core.record import Open

DEFAULT_WORKSPACE = "default"

_is_tag = re.compile(rb"[A-Za-z0-9._:@-]{1,128}").fullmatch
_is_tag_str = re.compile(r"[A-Za-z0-9._:@-]{1,128}").fullmatch

FIELDS = ("workspace", "track", "document", "task", "end_user")

TAG_HEADERS: dict[bytes, str] = {
    b"x-workspace": "workspace",
    b"lightrag-workspace": "workspace",
    b"x-track-id": "track",
    b"x-document-id": "document",
    b"x-task": "task",
    b"x-end-user": "end_user",
}
"""Our own tag headers, lower case; config may add names. None of them ever reaches an upstream."""

PATH_MARKS: dict[bytes, str] = {b"w": "workspace", b"t": "track", b"d": "document", b"k": "task", b"u": "upstream"}
"""The path segment before a tag: /w/<workspace>/t/<track>/d/<document>/k/<task>/u/<upstream>/v1."""


class Tags(msgspec.Struct, frozen=True):
    """The resolved tags of one call; None where nobody said."""

    workspace: str
    track: str | None = None
    document: str | None = None
    task: str | None = None
    end_user: str | None = None
    notes: tuple[str, ...] = ()
    """Names of tags from baggage or body that were ignored because they were not valid."""

    def mark(self, opening: Open) -> None:
        """Write them into a call's `open` line."""
        opening.workspace, opening.track, opening.document = self.workspace, self.track, self.document
        opening.task, opening.end_user = self.task, self.end_user
        if self.notes:
            opening.tags = {"ignored": ",".join(self.notes)}


def parse(value: bytes, where: str) -> str:
    """A tag from one of our own headers or path segments.

    Raises BadTag, which names `where` (for example `header x-workspace`), when it is not 1-128 characters
    of `[A-Za-z0-9._:@-]`.
    """
    if _is_tag(value) is None:
        shown = value[:40].decode("latin-1")
        raise BadTag(
            f"Bad tag in {where}: {shown!r}. A tag is 1-128 characters of letters, digits and . _ : @ -.",
            param=where,
        )
    return value.decode("ascii")


def is_valid(value: object) -> bool:
    """Whether a value from baggage or body can be a tag."""
    return isinstance(value, str) and _is_tag_str(value) is not None


def from_headers(head: dict[bytes, bytes], names: dict[bytes, str]) -> dict[str, str]:
    """Tags from our own headers. `names` maps header names to tags, strongest first. Raises BadTag.

    An empty value says nothing: that is what a chat server's template (`{{CHAT_ID}}`) leaves where it has no value.
    """
    found: dict[str, str] = {}
    if names.keys().isdisjoint(head):
        return found
    for header, tag in names.items():
        value = head.get(header)
        if value and tag not in found:
            found[tag] = parse(value, f"header {header.decode()}")
    return found


def from_baggage(value: bytes) -> dict[str, object]:
    """`taximeter.<tag>` members of a W3C baggage header; anything else in it is none of our business."""
    found: dict[str, object] = {}
    for member in value.decode("latin-1").split(","):
        name, _, rest = member.strip().partition("=")
        if name.startswith("taximeter.") and name[10:] in FIELDS:
            found[name[10:]] = rest.partition(";")[0].strip()
    return found


def resolve(
    *,
    key_workspace: str | None,
    headers: Mapping[str, str],
    path: Mapping[str, str],
    weak: Mapping[str, object] | None = None,
    upstream_workspace: str = "",
) -> Tags:
    """Combine the sources, strongest first.

    `headers` and `path` hold values that `parse` let through; `weak` holds what baggage or body said, unchecked.
    Raises Forbidden when header or path names another workspace than the proxy key's own.
    """
    if key_workspace is not None:
        for source in (headers, path):
            named = source.get("workspace")
            if named is not None and named != key_workspace:
                raise Forbidden(f"This key belongs to another workspace than {named!r}.", param="workspace")
    notes: tuple[str, ...] = ()
    if weak:
        notes = tuple(name for name, value in weak.items() if not is_valid(value))

    def first(name: str) -> str | None:
        value = headers.get(name) or path.get(name)
        if value is None and weak:
            said = weak.get(name)
            if is_valid(said):
                return str(said)
        return value

    return Tags(
        workspace=key_workspace or first("workspace") or upstream_workspace or DEFAULT_WORKSPACE,
        track=first("track"),
        document=first("document"),
        task=first("task"),
        end_user=first("end_user"),
        notes=notes,
    )
