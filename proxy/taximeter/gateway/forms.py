"""The text fields of a `multipart/form-data` body, read while it streams through. Its files are passed over."""

from __future__ import annotations

import logging

import msgspec

from taximeter.gateway.bounds.readable import boundary_of

log = logging.getLogger("taximeter.gateway")

FIELD_BYTES = 64 * 1024
"""Longest text of a field that is kept; prompts of image edits are at most 32,000 characters."""
FIELDS = 64
"""Most fields kept."""


class Form:
    """Fed with the body's pieces. Never raises: what it cannot read it does not read on."""

    __slots__ = ("_fields", "_name", "_parser", "_text")

    def __init__(self, content_type: bytes) -> None:
        from multipart import PushMultipartParser  # type: ignore[import-untyped]  # few calls are forms

        boundary = boundary_of(content_type)
        self._parser = None if boundary is None else PushMultipartParser(boundary)
        self._fields: dict[str, str] = {}
        self._name: str | None = None
        """Of the text field that is being read."""
        self._text = bytearray()

    @property
    def reads(self) -> bool:
        """It can still be read."""
        return self._parser is not None

    @property
    def model(self) -> str | None:
        """None: not told, or not yet."""
        return self._fields.get("model") or None

    def feed(self, piece: bytes) -> None:
        """The next piece of the body."""
        if self._parser is None:
            return
        from multipart import MultipartError, MultipartSegment

        try:
            for event in self._parser.parse(piece):
                if isinstance(event, MultipartSegment):
                    is_text = event.filename is None and len(self._fields) < FIELDS
                    self._name, self._text = (event.name if is_text else None), bytearray()
                elif event is None:
                    self._keep()
                elif self._name is not None:
                    self._text += event
                    if len(self._text) > FIELD_BYTES:
                        self._name = None
        except (MultipartError, ValueError) as error:
            log.debug("a form cannot be read: %s", error)
            self._parser = None

    def as_json(self) -> bytes:
        """The fields so far as a JSON object; `stream` as JSON has it."""
        fields: dict[str, object] = dict(self._fields)
        streams = {"true": True, "false": False}.get(str(fields.get("stream")).lower())
        if streams is not None:
            fields["stream"] = streams
        return msgspec.json.encode(fields)

    def _keep(self) -> None:
        if self._name is not None:
            self._fields.setdefault(self._name, self._text.decode("utf-8", "replace"))
        self._name = None
