"""MPEG audio (MP3) and AAC in ADTS: chains of frames, each of which says in its header where the next one begins.

There are no checksums, but the chain tells how many frames there are, whether it breaks, whether rate or channels
change on the way, and whether a second file begins. libsndfile stops where the length header of the first file says,
and takes an estimate where there is none: of a file that begins loudly it drops most without a word.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from .base import Extent, Part, read_at
from .tags import skip_tags

READ_BYTES = 1 << 20
FIRST_READ_BYTES = 1 << 12  # behind lost frames: the next ones often stand near by
# Stretches without frames that are gone over: more are not damage, but bytes made to keep a reader busy.
MAX_LOST_STRETCHES = 1 << 14
# By a tag libsndfile knows an MP3 at once; by its frames only after it has looked for a file "._" in the working
# folder, in which a Mac would keep what another format of sound is like.
EMPTY_TAG = b"ID3\4\0\0\0\0\1\0" + bytes(128)
MAX_HEADER_FRAME_BYTES = 512  # a length header has its fields, without the table for seeking, in front of this
# 72 * 8000 / 24000: the shortest frame that MPEG audio layer III knows, so a bound on how many a file can hold.
MIN_FRAME_BYTES = 24
MAX_REMNANT_BYTES = 1024  # behind the last frame: what programs leave there when they edit tags
MAX_DELAY = 4095  # samples that an encoder may put in front of the sound, and behind it
DECODER_DELAY = 529  # samples by which decoding lags behind; length headers count without it
SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
# kbit/s of (version is 1, layer); the index 0 is "free format", whose frames do not tell their size.
_V1_L1 = (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448)
_V1_L2 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_V1_L3 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_V2_L1 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
_V2_L23 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
BITRATES = {
    (True, 1): _V1_L1,
    (True, 2): _V1_L2,
    (True, 3): _V1_L3,
    (False, 1): _V2_L1,
    (False, 2): _V2_L23,
    (False, 3): _V2_L23,
}
ADTS_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)


class Frame(NamedTuple):
    """What a frame's header says."""

    num_bytes: int
    num_samples: int
    sample_rate: int  # Hz
    num_channels: int
    codec: str
    side_info_bytes: int = 0  # of layer III, between the header and the data


@functools.lru_cache(4096)
def parse_mpeg_frame(second: int, third: int, fourth: int) -> Frame | None:
    """Reads the bytes of a header behind the first one, 0xFF; ``None``: it is none."""
    if second & 0xE0 != 0xE0:
        return None
    version, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
    bitrate_index, rate_index, padding = third >> 4, third >> 2 & 3, third >> 1 & 1
    if version == 1 or layer == 4 or bitrate_index in (0, 15) or rate_index == 3:
        return None
    is_version_1, is_mono = version == 3, fourth >> 6 == 3
    sample_rate = SAMPLE_RATES[version][rate_index]
    bitrate_bps = 1000 * BITRATES[is_version_1, layer][bitrate_index]
    if layer == 1:
        num_bytes, num_samples = (12 * bitrate_bps // sample_rate + padding) * 4, 384
    else:
        num_samples = 576 if layer == 3 and not is_version_1 else 1152
        num_bytes = num_samples // 8 * bitrate_bps // sample_rate + padding
    side_info_bytes = (17 if is_mono else 32) if is_version_1 else (9 if is_mono else 17)
    return Frame(num_bytes, num_samples, sample_rate, 1 if is_mono else 2, f"MPEG layer {layer}", side_info_bytes)


def parse_adts_frame(header: bytes) -> Frame | None:
    """Reads the header of an AAC frame; ``None``: it is none."""
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return None
    rate_index, channels = header[2] >> 2 & 15, (header[2] & 1) << 2 | header[3] >> 6
    num_bytes = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    if rate_index >= len(ADTS_RATES) or num_bytes < 7:
        return None
    return Frame(num_bytes, 1024 * (1 + (header[6] & 3)), ADTS_RATES[rate_index], channels, "AAC")


def frame_at(header: bytes) -> Frame | None:
    """Reads the header that these bytes begin with, MPEG audio's or ADTS'; ``None``: there is none."""
    if len(header) < 4 or header[0] != 0xFF:
        return None
    return parse_mpeg_frame(header[1], header[2], header[3]) or parse_adts_frame(header)


@dataclass
class _Run:
    """Frames in a row that one decoder takes without a break."""

    start: int
    end: int
    first: Frame
    num_frames: int = 0


def measure_mpeg(file: BinaryIO, start: int, end: int) -> Extent:
    """Follows the frames.

    Args:
        file: seekable binary file; its position is changed.
        start: where the first frame begins.
        end: one past the last byte that may belong to them.
    """
    walk = _Walk(file, start, end)
    walk.run()
    parts, problems = [], []
    for run in walk.runs:
        part, problem = _part_of(file, run)
        parts.append(part)
        problems.append(problem)
    problem = next(filter(None, problems), walk.problem)
    # A frame or two among junk are there by chance; what they are the decoder says.
    is_remnant = end - walk.behind < MAX_REMNANT_BYTES or sum(run.num_frames for run in walk.runs) < 3
    return Extent(walk.behind, parts, problem, is_told_from_junk=is_remnant, ffmpeg_reads_all=True)


class _Walk:
    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self.runs: list[_Run] = []
        self.problem = ""
        self.behind = end  # where something else begins
        self._file, self._end, self._position = file, end, start
        self._buffer, self._buffer_start = b"", start

    def run(self) -> None:
        current: _Run | None = None
        seconds, num_lost = 0.0, 0
        while self._position < self._end:
            header = self._bytes(7)
            frame = frame_at(header)
            if frame is None:
                behind_tags = skip_tags(self._file, self._position, self._end)
                if behind_tags > self._position:
                    self._position, current = behind_tags, None  # another file begins
                    continue
                num_lost += 1
                behind_junk = self._resynchronized(seconds) if num_lost <= MAX_LOST_STRETCHES else None
                if behind_junk is None:
                    self.behind = self._position
                    break
                self._position = behind_junk
                continue
            if self._position + frame.num_bytes > self._end:
                self.problem = self.problem or f"is truncated: the frame at byte {self._position} is not whole"
                break
            if current is None or self._begins_anew(frame, current):
                current = _Run(self._position, self._position, frame)
                self.runs.append(current)
            current.num_frames += 1
            seconds += frame.num_samples / frame.sample_rate
            self._position += frame.num_bytes
            current.end = self._position

    def _bytes(self, num_bytes: int) -> bytes:
        at = self._position - self._buffer_start
        if not 0 <= at <= len(self._buffer) - num_bytes:
            self._buffer = read_at(self._file, self._position, min(READ_BYTES, self._end - self._position))
            self._buffer_start, at = self._position, 0
        return self._buffer[at : at + num_bytes]

    def _begins_anew(self, frame: Frame, current: _Run) -> bool:
        first = current.first
        if frame[2:5] != first[2:5]:  # rate, channels, codec
            return True
        mark = self._bytes(4 + frame.side_info_bytes + 4)[4 + frame.side_info_bytes :]
        return mark in (b"Xing", b"Info") or self._bytes(40)[36:] == b"VBRI"

    def _resynchronized(self, seconds: float) -> int | None:
        """Where the next two frames in a row begin behind bytes that are none; ``None``: nowhere."""
        lost_at = self._position
        rest, block_bytes = self._position + 1, FIRST_READ_BYTES
        while rest < self._end:
            block = read_at(self._file, rest, min(block_bytes, self._end - rest))
            block_bytes = min(2 * block_bytes, READ_BYTES)
            found = block.find(b"\xff")
            while found >= 0:
                if self._two_frames_begin(rest + found):
                    self.problem = self.problem or (
                        f"is damaged: {rest + found - lost_at} bytes at byte {lost_at} ({seconds:.3f} s) are no frames "
                        "of sound, and more of them follow"
                    )
                    return rest + found
                found = block.find(b"\xff", found + 1)
            rest += len(block)
            if not block:
                break
        return None

    def _two_frames_begin(self, position: int) -> bool:
        first = frame_at(read_at(self._file, position, 7))
        if first is None:
            return False
        behind = position + first.num_bytes
        second = frame_at(read_at(self._file, behind, 7))
        return behind == self._end or (second is not None and second[2:5] == first[2:5])


def _part_of(file: BinaryIO, run: _Run) -> tuple[Part, str]:
    """The range that a decoder gets, with a length header that is right; and what is wrong with the file's own."""
    first = run.first
    if first.codec != "MPEG layer 3":
        # Without a length header of its own, libsndfile estimates the length; at least this much must come.
        return Part(run.start, run.end, EMPTY_TAG, has_length=False, min_samples=_min_samples(run)), ""
    head = read_at(file, run.start, min(first.num_bytes, MAX_HEADER_FRAME_BYTES))
    announced = _announced(head, first)
    if announced is None:
        return _with_header_of_ours(file, run, run.start), ""
    num_frames = run.num_frames - 1
    counts_itself = announced.num_frames == num_frames + 1 and announced.num_bytes <= run.end - run.start
    if announced.num_frames > num_frames and not counts_itself:
        samples, there = announced.num_samples(first), announced.num_samples(first, num_frames)
        return Part(run.start, run.end, EMPTY_TAG, has_length=False), (
            f"is truncated: its header promises {samples} samples but they end after sample {there} "
            f"({there / first.sample_rate:.3f} s)"
        )
    if announced.num_frames == num_frames and announced.is_xing:
        samples = announced.num_samples(first) - 2 * first.num_samples  # decoders differ in what they leave out
        return Part(run.start, run.end, EMPTY_TAG, announced_samples=samples, min_samples=_min_samples(run)), ""
    if counts_itself and announced.is_xing:
        return Part(run.start, run.end, EMPTY_TAG, has_length=False, min_samples=_min_samples(run)), ""
    return _with_header_of_ours(file, run, run.start + first.num_bytes), ""


@dataclass
class _Announced:
    """What a length header says."""

    num_frames: int
    num_bytes: int  # of all frames, itself included; 0: it does not say
    is_xing: bool
    delay: int = 0  # samples that the encoder put in front
    padding: int = 0  # and behind

    def num_samples(self, frame: Frame, num_frames: int | None = None) -> int:
        """Those that are left of all its frames, or of the first few."""
        if num_frames is None:
            return self.num_frames * frame.num_samples - self.delay - self.padding
        return max(0, num_frames * frame.num_samples - self.delay - DECODER_DELAY)


def _announced(head: bytes, frame: Frame) -> _Announced | None:
    fields = head[4 + frame.side_info_bytes :]
    if fields.startswith((b"Xing", b"Info")):
        flags = int.from_bytes(fields[4:8], "big")
        num_frames = int.from_bytes(fields[8:12], "big") if flags & 1 else 0
        num_bytes = int.from_bytes(fields[12:16], "big") if flags & 3 == 3 else 0
        encoder = 8 + 4 * bool(flags & 1) + 4 * bool(flags & 2) + 100 * bool(flags & 4) + 4 * bool(flags & 8)
        delays = int.from_bytes(fields[encoder + 21 : encoder + 24], "big")
        return _Announced(num_frames, num_bytes, True, delays >> 12, delays & 0xFFF)
    if head[36:40] == b"VBRI":
        return _Announced(int.from_bytes(head[50:54], "big"), int.from_bytes(head[46:50], "big"), False)
    return None


def _with_header_of_ours(file: BinaryIO, run: _Run, start: int) -> Part:
    """A header that promises more frames than there can be makes libsndfile read to the real end."""
    second, third, fourth = read_at(file, run.start + 1, 3)
    is_version_1 = second >> 3 & 3 == 3
    # Any bit rate will do whose frame has room for the fields: 128 kbit/s (index 9) or 64 kbit/s (index 8).
    bitrate_index = 9 if is_version_1 else 8
    third = bitrate_index << 4 | third & 0x0C
    frame = parse_mpeg_frame(second | 1, third, fourth)
    assert frame is not None  # it is the run's first frame with another bit rate
    num_frames = min((run.end - start) // MIN_FRAME_BYTES + 1, 0xFFFFFFFF)
    fields = b"Xing" + struct.pack(">II", 1, num_frames)
    header = bytes([0xFF, second | 1, third, fourth]) + bytes(frame.side_info_bytes) + fields
    return Part(start, run.end, EMPTY_TAG + header.ljust(frame.num_bytes, b"\0"), False, min_samples=_min_samples(run))


def _min_samples(run: _Run) -> int:
    """All but the header frame, a first one that may lack what it builds on, and what encoders put around the sound."""
    return (run.num_frames - 2) * run.first.num_samples - 2 * MAX_DELAY
