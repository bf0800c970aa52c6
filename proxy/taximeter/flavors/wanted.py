"""What a request says of the images, speech or documents that are to be made, in any provider's words. Pure."""

from __future__ import annotations

import msgspec

from taximeter.flavors.asked import Asked
from taximeter.flavors.usage.counts import count, decode, fields, short_text
from taximeter.flavors.usage.usual import NAME_CHARS, UNREADABLE

_NULL = msgspec.Raw(b"null")


class _Members(msgspec.Struct):
    """What requests say of what is to be made; the rest, images among it, is passed over."""

    n: msgspec.Raw = _NULL
    parameters: msgspec.Raw = _NULL
    size: msgspec.Raw = _NULL
    quality: msgspec.Raw = _NULL
    width: msgspec.Raw = _NULL
    height: msgspec.Raw = _NULL
    imageGenerationConfig: msgspec.Raw = _NULL  # noqa: N815
    input: msgspec.Raw = _NULL
    text: msgspec.Raw = _NULL
    model_id: msgspec.Raw = _NULL
    bbox_annotation_format: msgspec.Raw = _NULL
    document_annotation_format: msgspec.Raw = _NULL


_members = msgspec.json.Decoder(_Members)


def asked(body: bytes) -> Asked:
    """What a request asks for; nothing where it cannot be read."""
    try:
        found = _members.decode(body)
    except UNREADABLE:
        return Asked()
    parameters = fields(decode(found.parameters))  # Imagen: sampleCount, sampleImageSize
    config = fields(decode(found.imageGenerationConfig))  # Nova Canvas, Titan
    spoken = decode(found.input)
    spoken = spoken if isinstance(spoken, str) else decode(found.text)
    return Asked(
        images=_number(decode(found.n)) or count(parameters.get("sampleCount")) or count(config.get("numberOfImages")),
        size=short_text(found.size)
        or _name(parameters.get("sampleImageSize"))
        or _size(decode(found.width), decode(found.height))
        or _size(config.get("width"), config.get("height")),
        quality=short_text(found.quality) or _name(config.get("quality")),
        characters=len(spoken) if isinstance(spoken, str) else None,
        annotated=any(decode(raw) for raw in (found.bbox_annotation_format, found.document_annotation_format)),
        model=short_text(found.model_id),
    )


def _number(value: object) -> int | None:
    """A count from 1 on, also as the text of a form's field."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 4:
        value = int(value)
    return count(value) or None


def _size(width: object, height: object) -> str | None:
    """As others write it in one; None: not told (Together, Bedrock)."""
    wide, high = count(width), count(height)
    return f"{wide}x{high}" if wide and high else None


def _name(value: object) -> str | None:
    return value[:NAME_CHARS] if isinstance(value, str) and value else None
