"""The text of a stream, however it was cut and however long it is."""

from __future__ import annotations

import base64
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.flavors.text import transcript as transcript_module
from taximeter.flavors.text.transcript import FOLDED_BYTES, LINE_BYTES, RAW_BYTES, Transcript


def words(event):
    return [event.get("text", "")]


def events(texts, end="\n\n", mark="data: "):
    return "".join(f"{mark}{json.dumps({'text': text})}{end}" for text in texts).encode()


@given(
    texts=st.lists(st.text(max_size=20), min_size=1, max_size=60),
    cuts=st.lists(st.integers(1, 97), min_size=1, max_size=5),
    raw_bytes=st.sampled_from([1, 50, 500, RAW_BYTES]),
    end=st.sampled_from(["\n\n", "\n", "\r\n\r\n"]),
    mark=st.sampled_from(["data: ", "data:", ""]),
)
def test_the_same_text_in_any_pieces(texts, cuts, raw_bytes, end, mark):
    stream, at, number = events(texts, end, mark), 0, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transcript_module, "RAW_BYTES", raw_bytes)
        kept = Transcript(words)
        while at < len(stream):
            kept.keep(stream[at : at + cuts[number % len(cuts)]])
            at += cuts[number % len(cuts)]
            number += 1
        found = kept.countable()
        assert "".join(found.texts) == "".join(texts)
        assert found.truncated is not any(texts)
        assert kept.countable().texts == found.texts


def test_how_far_a_long_stream_has_come_is_known_while_it_goes_on():
    kept = Transcript(words)
    for number in range(2_000):
        kept.keep(events([f"word {number} "]))
        assert kept.progress() == number + 1
    assert kept._folded and kept.countable().texts == ["".join(f"word {number} " for number in range(2_000))]


def test_what_is_kept_of_a_stream_that_compresses_badly_is_bounded_and_said_to_be_a_part():
    noise = random.Random(1)
    kept = Transcript(words)
    for _ in range(200):
        kept.keep(events([noise.randbytes(20_000).hex()]))
    assert sum(map(len, kept._folded)) < FOLDED_BYTES + 2 * RAW_BYTES
    found = kept.countable()
    assert found.truncated and found.texts


def test_a_line_too_long_to_be_text_is_left_out_and_said_to_be_missing():
    kept = Transcript(words)
    for piece in (b'data: {"image":"', *[b"x" * 10_000] * (2 * LINE_BYTES // 10_000), b'"}\n\n', events(["after"])):
        kept.keep(piece)
    found = kept.countable()
    assert found.texts == ["after"] and found.truncated


@pytest.mark.parametrize("cut", [700, 4_001, 40_000])
@pytest.mark.parametrize("audio_bytes", [6_000, 90_000])
def test_text_behind_much_audio_is_all_there(cut, audio_bytes):
    noise, stream = random.Random(2), b""
    texts: list[str] = []
    while len(stream) < 2_600_000:
        texts.append(f"word {len(texts)} ")
        stream += b'data: {"audio":"%b"}\n\n' % base64.b64encode(noise.randbytes(audio_bytes)) + events(texts[-1:])
    kept = Transcript(words)
    for at in range(0, len(stream), cut):
        kept.keep(stream[at : at + cut])
    assert kept._folded_bytes < FOLDED_BYTES + LINE_BYTES
    assert kept.progress() >= len(texts) - 1
    found = kept.countable()
    assert (found.texts, found.truncated) == (["".join(texts)], False)


def test_text_on_both_sides_of_an_image_without_end_is_there():
    kept = Transcript(words)
    image = base64.b64encode(random.Random(3).randbytes(2_400_000))
    for piece in (events(["before "]), b'data: {"image":"', *map(bytes, zip(*[iter(image)] * 40_000, strict=False))):
        kept.keep(piece)
    assert kept._folded_bytes < FOLDED_BYTES + LINE_BYTES + 2 * RAW_BYTES
    for piece in (b'"}\n\n', events(["after"]), b"x" * RAW_BYTES + b"\n"):
        kept.keep(piece)
    found = kept.countable()
    assert found.texts == ["before after"] and found.truncated
