"""What is read from a request's head: tags in our own headers and in baggage."""

from __future__ import annotations

from taximeter.core import tags


def read_tags(head: dict[bytes, bytes], names: dict[bytes, str]) -> dict[str, str]:
    """Tags from our own headers. `names` maps header names to tags, strongest first. Raises BadTag.

    An empty value says nothing: that is what a chat server's template (`{{CHAT_ID}}`) leaves where it has no value.
    """
    found: dict[str, str] = {}
    if names.keys().isdisjoint(head):
        return found
    for header, tag in names.items():
        value = head.get(header)
        if value and tag not in found:
            found[tag] = tags.parse(value, f"header {header.decode()}")
    return found


def read_baggage(value: bytes) -> dict[str, object]:
    """`taximeter.<tag>` members of a W3C baggage header; anything else in it is none of our business."""
    found: dict[str, object] = {}
    for member in value.decode("latin-1").split(","):
        name, _, rest = member.strip().partition("=")
        if name.startswith("taximeter.") and name[10:] in tags.FIELDS:
            found[name[10:]] = rest.partition(";")[0].strip()
    return found
