"""How long an audio file can be, from its first bytes: never shorter than a decoder finds it."""

from __future__ import annotations

import io
import struct
import wave

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.gateway.bounds.audio import MP3_BYTES_PER_S, bytes_per_s
from taximeter.gateway.bounds.rules import AUDIO_BYTES_PER_S

FRAME = b"\xff\xfb\x90\x64" + bytes(413)  # MPEG-1 layer III, 128 kbit/s, 44.1 kHz
LOW_FRAME = b"\xff\xf3\x14\xc4" + bytes(20)  # MPEG-2 layer III, 8 kbit/s, 24 kHz: 24 ms in 24 bytes
TAG = b"ID3\x04\x00\x00\x00\x00\x02\x01" + bytes(257)


def wav(channels: int, width: int, rate: int, frames: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(width)
        out.setframerate(rate)
        out.writeframes(bytes(channels * width * frames))
    return file.getvalue()


@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 200_000), st.integers(0, 500))
def test_a_wav_file_is_no_longer_than_its_samples(channels: int, width: int, rate: int, frames: int) -> None:
    file = wav(channels, width, rate, frames)
    assert bytes_per_s(file) == channels * width * rate
    assert len(file) / bytes_per_s(file) >= frames / rate


@pytest.mark.parametrize("start", [b"", TAG])
@pytest.mark.parametrize("frame", [FRAME, LOW_FRAME])
def test_an_mp3_file_has_at_least_8_kbit_a_second(start: bytes, frame: bytes) -> None:
    assert bytes_per_s(start + frame * 4) == MP3_BYTES_PER_S
    assert bytes_per_s(bytearray(start + frame * 3)) == AUDIO_BYTES_PER_S


def named(form: int, bits: int, before: bytes = b"") -> bytes:
    chunk = b"fmt " + struct.pack("<IHHIIHH", 16, form, 1, 8_000, 8_000, 1, bits)
    return b"RIFF\x00\x00\x00\x00WAVE" + before + chunk + b"data\x00\x00\x00\x00"


def test_the_first_format_of_a_wav_file_counts() -> None:
    assert bytes_per_s(named(1, 16, b"LIST\x03\x00\x00\x00abc\x00")) == 16_000
    assert bytes_per_s(named(1, 8, named(1, 32)[12:-8])) == 32_000
    assert bytes_per_s(named(7, 8)) == 8_000


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"fLaC" + bytes(100),
        TAG + b"fLaC" + bytes(100),
        b"OggS" + bytes(100),
        b"\xff\xfb\x90\x64ftypM4A " + FRAME * 5,
        b"\x00\x00\x00\x20ftypM4A " + FRAME * 5,
        named(1, 4),  # a sample is less than a byte
        named(0x11, 4),  # ADPCM
        named(0xFFFE, 16),  # says no format of its own
        named(1, 16, b"data\x00\x00\x00\x00"),
        named(1, 16)[:20],
        (b"\xff\xfb\x00\x64" + bytes(413)) * 5,  # of free bit rate
        b"\xff\xf1\x50\x80" * 50,  # AAC
    ],
)
def test_of_any_other_file_the_shortest_encoding_counts(file: bytes) -> None:
    assert bytes_per_s(file) == AUDIO_BYTES_PER_S


@given(
    st.binary(max_size=200), st.sampled_from([b"", TAG, b"RIFF\x00\x00\x00\x00WAVE", b"RIFF\x00\x00\x00\x00WAVEfmt "])
)
def test_whatever_the_bytes_there_is_a_bound(file: bytes, start: bytes) -> None:
    assert bytes_per_s(start + file) >= 1
