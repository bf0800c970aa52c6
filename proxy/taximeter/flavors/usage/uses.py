"""What a response used its provider's tools for, which is billed by use (https://platform.openai.com/docs/pricing,
"Built-in tools"): searches, file searches, images, containers.

`tool_usage` says what is billed. Where it is missing the items of the output do: as the response lists them, as a
stream tells them one by one, or counted as they pass where an image makes an answer too long to be kept. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from taximeter.flavors.usage.counts import Fields, count, fields, text

_FIGURES = {
    # an item's type -> the figure it is counted as
    "web_search_call": "web_search_requests",
    "file_search_call": "file_search_requests",
    "image_generation_call": "image_generations",
}
_tool = re.compile(
    rb'"type"\s*:\s*"(?P<type>(?:web_search|file_search|image_generation)_call|open_page|find_in_page|find)"'
    rb'|"container_id"\s*:\s*"(?P<container>[^"]{1,128})"'
).finditer
"""In an answer that is not kept whole; a quote within a text is escaped, so none is found there."""
_CARRIED_BYTES = 256
"""More than one such member with its blanks: what a cut may have split is found with the next piece."""

Counts = dict[str, int]
"""By figure of a reading."""


class ToolUses:
    """Those of one response. Items may be told more than once, in a stream and in the list at its end, and either may
    miss some: of each figure the larger counts."""

    __slots__ = ("_billed", "_carried", "_containers", "_each", "_listed")

    def __init__(self) -> None:
        self._billed: Counts = {}
        self._listed: Counts = {}
        self._each: Counts = {}
        self._containers: set[str] = set()
        self._carried = b""

    def listed(self, output: Iterable[Fields]) -> None:
        """The response's own list of its items; a later one replaces it."""
        self._listed = {}
        for item in output:
            self._add(self._listed, item)

    def item(self, item: Fields) -> None:
        """One item that a stream says is done."""
        self._add(self._each, item)

    def billed(self, told: Fields) -> bool:
        """The response's `tool_usage`; False: nothing was used."""
        searches = count(fields(told.get("web_search")).get("num_requests"))
        if searches is not None:
            self._billed["web_search_requests"] = searches
        drawn = count(fields(told.get("image_gen")).get("total_tokens"))
        if drawn:  # its tokens are another model's, which is not told; where its items are not kept, it is one
            self._billed["image_generations"] = self._items().get("image_generations") or 1
        return bool(searches or drawn)

    def passing(self, piece: bytes) -> None:
        """The next piece of an answer that is not kept whole."""
        self._scan(self._each, piece)

    def in_part(self, pieces: Iterable[bytes], *, one: bool) -> None:
        """What was kept of an event that is too long; `one`: it tells of one item, else it repeats all of them."""
        found: Counts = self._each if one else {}
        for piece in pieces:
            self._carried = b""
            self._scan(found, piece)
        if not one:
            self._listed = _most(self._listed, found)

    def figures(self) -> Counts:
        """What was used at least once."""
        uses = {**self._items(), **self._billed, "code_interpreter_sessions": len(self._containers)}
        return {figure: times for figure, times in uses.items() if times > 0}

    def _items(self) -> Counts:
        return _most(self._listed, self._each)

    def _add(self, uses: Counts, item: Fields) -> None:
        kind = item.get("type")
        if kind == "code_interpreter_call":
            self._containers.add(str(item.get("container_id")))
        elif kind == "shell_call":  # none where it is the client's own shell
            container = text(fields(item.get("environment")).get("container_id"))
            self._containers.update((container,) if container else ())
        elif isinstance(kind, str) and kind in _FIGURES and _is_billed(kind, item):
            uses[_FIGURES[kind]] = uses.get(_FIGURES[kind], 0) + 1

    def _scan(self, uses: Counts, piece: bytes) -> None:
        seen = self._carried + piece
        end = 0
        for match in _tool(seen):
            end = match.end()
            kind, container = match.group("type", "container")
            if container is not None:
                self._containers.add(container.decode("utf-8", "replace"))
                continue
            figure = _FIGURES.get(kind.decode())
            # what is free was counted as a search by its item's type, and is taken off by its action's
            uses[figure or "web_search_requests"] = uses.get(figure or "web_search_requests", 0) + (1 if figure else -1)
        self._carried = seen[max(end, len(seen) - _CARRIED_BYTES) :]


def _is_billed(kind: str, item: Fields) -> bool:
    """Opening a page that was found is free, and an image that was not made."""
    if kind == "web_search_call":
        return fields(item.get("action")).get("type", "search") == "search"
    return kind != "image_generation_call" or item.get("status", "completed") == "completed"


def _most(one: Counts, other: Counts) -> Counts:
    return {figure: max(one.get(figure, 0), other.get(figure, 0)) for figure in {**one, **other}}
