"""What few calls use: of each kind what is known, by size where it has one."""

import msgspec

from taximeter.core.quantities import UNITS, quantities, uses_any
from taximeter.core.record import Outcome, Record

CALL = Record(
    request_id="r",
    started_at=0,
    ended_at=1,
    workspace="w",
    upstream="u",
    provider="p",
    api="images",
    outcome=Outcome.OK,
)


def of(**known) -> list[tuple[object, ...]]:
    return [tuple(each) for each in quantities(msgspec.structs.replace(CALL, **known))]


def test_each_kind_that_is_known_is_told_once():
    counts = {kind: number for number, kind in enumerate(UNITS, 1) if not kind.endswith("_ms")}
    found = of(**counts, seconds=1.5, video_seconds=0.25)
    assert found == [(kind, "", number) for kind, number in counts.items()] + [
        ("audio_ms", "", 1_500),
        ("video_ms", "", 250),
    ]
    assert of(images=0) == of() == []
    assert of(kind="correction", images=3) == of(kind="told", images=3) == []


def test_every_kind_is_looked_for():
    assert not uses_any(CALL)
    names = {"audio_ms": "seconds", "video_ms": "video_seconds"}
    for kind in UNITS:
        assert uses_any(msgspec.structs.replace(CALL, **{names.get(kind, kind): 1})), kind
        assert not uses_any(msgspec.structs.replace(CALL, **{names.get(kind, kind): 0})), kind


def test_images_and_video_are_told_by_size_and_quality():
    assert of(images=2, media_size="1024x1792", media_quality="hd") == [("images", "1024x1792 hd", 2)]
    assert of(video_seconds=4.0, media_size="1280x720") == [("video_ms", "1280x720", 4_000)]
    assert of(images=1, media_size="whatever\n a client says", pages=1) == [("images", "other", 1), ("pages", "", 1)]
