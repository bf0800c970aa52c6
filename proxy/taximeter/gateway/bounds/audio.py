"""How long an audio file of a form can be at most, from its first bytes: how many of its bytes a second takes. Pure.

Only what a decoder cannot read in another way is told: the sample format that a WAV file names is the one it is played
in, and no frame of an MP3 file has fewer than 8 kbit a second. Of any other file the shortest encoding there is counts.
"""

from __future__ import annotations

import struct

from taximeter.gateway.bounds.rules import AUDIO_BYTES_PER_S

MP3_BYTES_PER_S = 1_000
"""The lowest bit rate of MPEG-2 layer III, 8 kbit/s; MPEG-1 has 32 (ISO/IEC 13818-3, 11172-3)."""
_FRAMES = 4
"""As many in a row are no accident: what follows is MP3 to any decoder."""
_CHUNKS = 32
_KBITS = {
    1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLES_PER_S = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
"""By the two bits that name the version: MPEG-1, MPEG-2 and 2.5."""
_PCM, _FLOAT, _A_LAW, _MU_LAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE


def bytes_per_s(file: bytes | bytearray) -> int:
    """The fewest bytes that a second of this file takes, at least 1."""
    if file[:4] == b"RIFF" and file[8:12] == b"WAVE":
        return _wav(file)
    at = _behind_tag(file)
    if file[4:8].isalpha() and at == 0:  # the type of an MP4 file's first box
        return AUDIO_BYTES_PER_S
    for _ in range(_FRAMES):
        length = _mp3_frame_bytes(file[at : at + 4])
        if not length:
            return AUDIO_BYTES_PER_S
        at += length
    return MP3_BYTES_PER_S


def _wav(file: bytes | bytearray) -> int:
    """By the first `fmt ` chunk: decoders heed no other."""
    at = 12
    for _ in range(_CHUNKS):
        name, size = bytes(file[at : at + 4]), int.from_bytes(file[at + 4 : at + 8], "little")
        if name == b"fmt " and size >= 16 and len(file) >= at + 24:
            form, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", file, at + 8)
            if form == _EXTENSIBLE and size >= 40:
                form = int.from_bytes(file[at + 32 : at + 34], "little")
            if (form in (_PCM, _FLOAT) and bits >= 8) or (form in (_A_LAW, _MU_LAW) and bits == 8):
                least: int = channels * rate * (bits // 8)
                return max(1, least)
            break
        if name in (b"", b"data"):
            break
        at += 8 + size + size % 2
    return AUDIO_BYTES_PER_S


def _behind_tag(file: bytes | bytearray) -> int:
    """Where an ID3 tag at the beginning ends."""
    if file[:3] != b"ID3" or len(file) < 10:
        return 0
    size = file[6] << 21 | file[7] << 14 | file[8] << 7 | file[9]
    return size + (20 if file[5] & 0x10 else 10)


def _mp3_frame_bytes(head: bytes | bytearray) -> int:
    """The length of the layer III frame that begins so; 0: none does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return 0
    version, kbit, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or kbit in (0, 15) or rate == 3:
        return 0
    kbits = _KBITS[1 if version == 3 else 2][kbit - 1]
    return (144 if version == 3 else 72) * kbits * 1_000 // _SAMPLES_PER_S[version][rate] + (head[2] >> 1 & 1)
