"""Does audio lie behind what the decoder calls the end? All of it comes, or an error says what lies where."""

import io
import random
import struct

import numpy as np
import pytest
import soundfile
import torch

from audiollm.data.audio import AudioError, load_audio, probe_audio
from audiollm.data.audio.integrity.ogg import page_checksum

from .recordings import RATE, as_every_source, encoded, noise, recording

JOINABLE = [
    "WAV",
    "WAV float",
    "RF64",
    "W64",
    "AIFF",
    "CAF",
    "AU",
    "FLAC",
    "Vorbis",
    "Opus",
    "MP3",
    "SPHERE",
    "WAV IMA ADPCM",
]
ID3V2 = b"ID3\4\0\0\0\0\1\0" + bytes(range(128))
ID3V1 = b"TAG" + b"title".ljust(125)


def ape_tag() -> bytes:
    item = struct.pack("<II", 1, 0) + b"Artist\0x"
    footer = b"APETAGEX" + struct.pack("<4I", 2000, len(item) + 32, 1, 1 << 31) + bytes(8)
    header = b"APETAGEX" + struct.pack("<4I", 2000, len(item) + 32, 1, 1 << 31 | 1 << 29) + bytes(8)
    return header + item + footer


def ogg_pages(content: bytes) -> list[bytes]:
    pages = []
    while content:
        size = 27 + content[26] + sum(content[27 : 27 + content[26]])
        pages.append(content[:size])
        content = content[size:]
    return pages


def with_serial(content: bytes, serial: bytes) -> bytes:
    changed = []
    for page in ogg_pages(content):
        blank = page[:14] + serial + page[18:22] + bytes(4) + page[26:]
        changed.append(blank[:22] + page_checksum(blank).to_bytes(4, "little") + blank[26:])
    return b"".join(changed)


# --- files joined into one --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", JOINABLE)
@pytest.mark.parametrize(
    "between", [b"", ID3V2, ID3V1, ape_tag(), bytes(1000)], ids=["", "ID3v2", "ID3v1", "APE", "zeros"]
)
def test_joined_files_are_read_one_behind_the_other(tmp_path, kind, between):
    first, second = recording(kind, 9000, seed=0), recording(kind, 5000, seed=1)
    expected = torch.cat([load_audio(first)[0], load_audio(second)[0]])
    for source in as_every_source(first + between + second, tmp_path / "joined"):
        assert torch.equal(load_audio(source)[0], expected)
        assert probe_audio(source).num_samples == len(expected)


@pytest.mark.parametrize("kind", JOINABLE)
def test_a_file_of_another_format_behind_is_read_too_or_told_of(kind):
    first = recording(kind)
    sound = load_audio(first)[0]
    for other in [*JOINABLE, "VOC", "MAT5", "WVE"]:
        second = recording(other, 5000, seed=1)
        try:
            joined, _ = load_audio(first + second)
        except AudioError:
            continue
        assert torch.equal(joined, torch.cat([sound, load_audio(second)[0]])), other


@pytest.mark.parametrize("kind", ["FLAC", "Vorbis", "Opus", "AIFF", "AU", "CAF"])
def test_a_wav_file_of_equal_rate_behind_is_read_too(kind):
    first, second = recording(kind), recording("WAV", 200_000, seed=1)
    joined, _ = load_audio(first + second)
    assert torch.equal(joined, torch.cat([load_audio(first)[0], load_audio(second)[0]]))


@pytest.mark.parametrize("kind", ["IRCAM", "PVF", "PAF", "XI", "MAT4", "HTK"])
def test_a_file_behind_a_format_that_is_not_gone_over_is_told_of(kind):
    for other in ("WAV", "FLAC", "Vorbis", "AIFF", "CAF", "SPHERE", "VOC"):
        with pytest.raises(AudioError, match=r"another file at byte \d+"):
            load_audio(recording(kind) + recording(other))


@pytest.mark.parametrize("kind", ["FLAC", "Vorbis", "Opus"])
def test_junk_behind_compressed_sound_is_told_of(kind):
    content = recording(kind)
    with pytest.raises(AudioError, match=rf"2000 bytes behind.*from byte {len(content)} on"):
        load_audio(content + b"\x80" * 2000)


def test_another_file_between_two_ogg_streams_is_told_of():
    first, second = recording("Vorbis"), recording("Vorbis", 5000, seed=1)
    with pytest.raises(AudioError, match=rf"bytes at byte {len(first)} are no pages"):
        load_audio(first + recording("WAV") + second)


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "FLAC", "Vorbis", "MP3"])
def test_what_goes_on_at_another_rate_is_refused_and_named(kind):
    first = recording(kind)
    second = encoded(noise(5000, 1 if kind == "MP3" else 2), 8000, *{"Vorbis": ("OGG", "VORBIS")}.get(kind, (kind,)))
    with pytest.raises(AudioError, match=rf"goes on at byte {len(first)} with 8000 Hz"):
        load_audio(first + second)
    with pytest.raises(AudioError, match=rf"goes on at byte {len(first)} with 8000 Hz"):
        probe_audio(first + second)


@pytest.mark.parametrize("kind", JOINABLE)
def test_a_tag_in_front_changes_nothing(tmp_path, kind):
    content = recording(kind)
    expected, _ = load_audio(content)
    for source in as_every_source(ID3V2 + content, tmp_path / "tagged"):
        assert torch.equal(load_audio(source)[0], expected)


@pytest.mark.parametrize("kind", JOINABLE)
def test_tags_and_padding_behind_change_nothing(kind):
    content = recording(kind)
    expected, _ = load_audio(content)
    lyrics = b"LYRICSBEGINthe wordsLYRICSEND"
    for behind in (ID3V1, ID3V2, ape_tag(), lyrics + ID3V1, bytes(5000), b"\r\n"):
        assert torch.equal(load_audio(content + behind)[0], expected), behind[:8]


# --- RIFF and its relatives -------------------------------------------------------------------------------------------


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
@pytest.mark.parametrize("kind", ["WAV", "WAV float", "WAVEX", "AU", "RF64"])
def test_sizes_that_were_never_written_do_not_hide_the_samples(tmp_path, kind, size):
    content = recording(kind)
    expected, _ = load_audio(content)
    unfinished = bytearray(content)
    place = 8 if kind == "AU" else content.index(b"data") + 4
    unfinished[place : place + 4] = struct.pack("<I", size)
    if kind != "AU":
        unfinished[4:8] = struct.pack("<I", size)
    if kind == "RF64":
        wide = content.index(b"ds64") + 8
        unfinished[wide : wide + 24] = bytes(24)
    for source in as_every_source(bytes(unfinished), tmp_path / "unfinished"):
        assert torch.equal(load_audio(source)[0], expected)
        assert probe_audio(source).num_samples == len(expected)


@pytest.mark.parametrize("kind", ["W64", "CAF"])
def test_sizes_of_files_that_were_written_to_a_pipe_are_unknown(tmp_path, kind):
    content = bytearray(recording(kind))
    expected, _ = load_audio(bytes(content))
    place = content.rindex(b"data") + (16 if kind == "W64" else 4)
    content[place : place + 8] = struct.pack("<q", (1 << 63) - 1) if kind == "W64" else b"\xff" * 8
    for source in as_every_source(bytes(content), tmp_path / "piped"):
        assert torch.equal(load_audio(source)[0], expected)


def test_mp3_in_a_wav_file_that_was_written_to_a_pipe_is_whole():
    mp3 = encoded(noise(40_000), format="MP3")
    description = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 8000, 1, 0, 12, 1, 2, 288, 1, 0)
    content = b"RIFF\xff\xff\xff\xffWAVE" + chunk(b"fmt ", description) + b"data\xff\xff\xff\xff" + mp3
    assert torch.equal(load_audio(content)[0], load_audio(mp3)[0])


@pytest.mark.parametrize(("subtype", "tag"), [("FLOAT", 3), ("ULAW", 7), ("ALAW", 6)])
def test_w64_with_the_longer_description_is_no_file_of_integers(subtype, tag):
    content = encoded(noise(9000, 2), format="W64", subtype=subtype)
    place = content.index(b"fmt ")
    size = int.from_bytes(content[place + 16 : place + 24], "little")
    plain = content[place + 24 : place + 40]
    long = struct.pack("<H", 0xFFFE) + plain[2:] + struct.pack("<HHIH", 22, 32, 3, tag)
    long += b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    header = content[place : place + 16] + struct.pack("<Q", 24 + len(long))
    changed = content[:place] + header + long + content[place + size :]
    assert torch.equal(load_audio(changed)[0], load_audio(content)[0])


def test_headers_of_blocks_are_not_heard_as_sound(monkeypatch):
    """libsndfile reads on over them: a VOC of several blocks is for ffmpeg or PyAV, and here is neither."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("audiollm.data.audio.decoders.choosing.importlib.util.find_spec", lambda name: None)
    samples = recording("VOC")[42:-1]
    head = recording("VOC")[:42]
    content = head[:27] + struct.pack("<I", 12 + 8000)[:3] + head[30:] + samples[:8000]
    content += b"\2" + struct.pack("<I", 8000)[:3] + samples[8000:16_000] + b"\0"
    with pytest.raises(AudioError, match="several blocks of sound"):
        load_audio(content)


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
def test_the_last_block_of_sds_may_be_filled_up(subtype):
    for num_samples in (100, 119, 120, 121, 2000):
        content = encoded(noise(num_samples), format="SDS", subtype=subtype)
        assert len(load_audio(content)[0]) == num_samples
        with pytest.raises(AudioError):
            load_audio(content[:-127])


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "SPHERE", "CAF", "W64"])
def test_samples_behind_a_size_that_is_too_small_are_told_of(kind):
    content = recording(kind)
    with pytest.raises(AudioError, match=rf"bytes behind.*from byte {len(content)} on"):
        load_audio(content + np.random.default_rng(0).bytes(2000))


def test_other_chunks_behind_the_samples_are_no_audio():
    content = encoded(noise(1001), subtype="PCM_U8")
    expected, _ = load_audio(content)
    behind = (
        chunk(b"LIST", b"INFOIART" + bytes(6))
        + chunk(b"bext", bytes(602))
        + chunk(b"id3 ", ID3V2)
        + chunk(b"odd!", b"123")
    )
    assert torch.equal(load_audio(content + behind)[0], expected)
    assert torch.equal(load_audio(content + behind + ID3V1)[0], expected)


def test_the_byte_that_fills_up_an_odd_chunk_may_be_any():
    samples = np.zeros(1001, dtype=np.uint8)
    file = io.BytesIO()
    soundfile.write(file, samples.astype(np.float32), RATE, format="WAV", subtype="PCM_U8")
    content = file.getvalue()
    assert (len(content), content[-1]) == (44 + 1001 + 1, 0)
    for padding in (b"\0", b"\xff", b"R"):
        waveform, _ = load_audio(content[:-1] + padding)
        assert len(waveform) == 1001
    with pytest.raises(AudioError, match="holds 2 bytes behind the end of its audio"):
        load_audio(content[:-1] + b"\xff\xff")


def test_a_second_chunk_of_samples_is_told_of():
    content = encoded(noise(1000))
    with pytest.raises(AudioError, match=f"second chunk of samples at byte {len(content) + 8} \\(400 bytes\\)"):
        load_audio(content + chunk(b"data", bytes(400)))


def test_an_empty_wav_with_other_chunks_holds_no_samples():
    with pytest.raises(AudioError, match="no samples"):
        load_audio(encoded(noise(0)) + chunk(b"LIST", b"INFO"))


@pytest.mark.parametrize(
    ("kind", "mark", "place"), [("W64", b"data\xf3\xac", 16), ("CAF", b"data", 4), ("RF64", b"ds64", 16)]
)
def test_immense_sizes_are_those_of_a_truncated_file(kind, mark, place):
    content = bytearray(recording(kind))
    place += content.rindex(mark)
    content[place : place + 8] = b"\x7f" + b"\xff" * 6 + b"\x7f"
    if kind == "RF64":
        small = content.rindex(b"data") + 4
        content[small : small + 4] = b"\xff" * 4
    with pytest.raises(AudioError, match="truncated"):
        load_audio(bytes(content))


@pytest.mark.parametrize("num_channels", [1, 2])
def test_mp3_in_a_wav_file_is_whole(num_channels):
    samples = noise(30_000, num_channels)
    mp3 = encoded(samples, 44_100, "MP3")
    frames = mp3[mp3.index(mp3[:2], 4) :]  # without the length header, as recorders write it
    extension = struct.pack("<HIHHH", 1, 2, 417, 1, 1393)
    layout = (
        struct.pack("<HHIIHH", 0x55, num_channels, 44_100, 8000, 1, 0) + struct.pack("<H", len(extension)) + extension
    )
    body = b"WAVE" + chunk(b"fmt ", layout) + chunk(b"fact", struct.pack("<I", len(samples))) + chunk(b"data", frames)
    content = b"RIFF" + struct.pack("<I", len(body)) + body
    waveform, rate = load_audio(content)
    assert rate == 44_100
    assert 0 <= len(waveform) - len(samples) < 3700
    assert probe_audio(content).num_samples == len(waveform)
    with pytest.raises(AudioError, match="truncated"):
        load_audio(content[:-3000])


@pytest.mark.parametrize("kind", ["WAV", "WAV float", "WAV mu-law", "WAVEX", "W64", "AIFF", "CAF ALAC"])
def test_headers_that_contradict_themselves_are_refused(kind):
    content = bytearray(recording(kind))
    if kind == "AIFF":
        content[content.index(b"COMM") + 9] = 6  # channels
    elif kind == "CAF ALAC":
        place = content.index(b"pakt") + 12 + 8 + 6  # samples in all: 16 bits more of them
        content[place : place + 2] = b"\x7f\xff"
    else:
        content[content.index(b"fmt ") + (26 if kind == "W64" else 10)] = 6
    for read in (load_audio, probe_audio):
        with pytest.raises(AudioError, match="is damaged: its header"):
            read(bytes(content))


# --- MP3 --------------------------------------------------------------------------------------------------------------


def test_a_length_header_that_says_too_little_loses_nothing():
    content = bytearray(encoded(noise(40_000), format="MP3"))
    mark = next(content.index(name) for name in (b"Xing", b"Info") if name in content)
    content[mark + 8 : mark + 12] = struct.pack(">I", 20)
    assert 0 <= len(load_audio(bytes(content))[0]) - 40_000 < 3000
    content[mark : mark + 4] = b"VBRI"  # at another place than such a header has: no header at all
    assert 0 <= len(load_audio(bytes(content))[0]) - 40_000 < 3600


def test_a_length_header_that_the_decoder_takes_for_sound_is_told_of():
    content = bytearray(encoded(noise(9000), format="MP3"))
    content[9] = 0x80  # in front of its mark only zeros may stand
    with pytest.raises(AudioError, match=r"its header announces \d+ samples or more, of which libsndfile finds \d+"):
        load_audio(bytes(content))


def test_bytes_between_frames_that_are_none_are_told_of():
    content = encoded(noise(40_000), format="MP3")
    half = len(content) // 2
    with pytest.raises(AudioError, match=r"bytes at byte \d+ \(\d\.\d+ s\) are no frames"):
        load_audio(content[:half] + bytes([1]) * 700 + content[half:])
    assert len(load_audio(content + b"junk" * 50)[0]) == 40_000


def test_a_file_in_the_working_folder_describes_no_other(tmp_path, monkeypatch):
    content = encoded(noise(40_000), format="MP3")
    expected, _ = load_audio(content)
    soundfile.write(str(tmp_path / "x.sd2"), noise(100), RATE, format="SD2", subtype="PCM_16")
    description = next(path for path in tmp_path.iterdir() if path.name.startswith("._"))
    description.rename(tmp_path / "._")
    monkeypatch.chdir(tmp_path)
    assert torch.equal(load_audio(content)[0], expected)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(AudioError, match="not audio"):
        load_audio(bytes(range(1, 255)) * 8)


# --- FLAC -------------------------------------------------------------------------------------------------------------


def test_flac_frames_behind_the_announced_end_are_told_of():
    content = bytearray(encoded(noise(30_000), format="FLAC"))
    content[8 + 14 : 8 + 18] = struct.pack(">I", 20_000)
    with pytest.raises(AudioError, match="announces 20000 samples, but its frames go on to sample 30000"):
        load_audio(bytes(content))


def test_flac_of_unknown_length_may_have_a_tag_behind_it():
    content = bytearray(encoded(noise(30_000), format="FLAC"))
    content[8 + 13] &= 0xF0
    content[8 + 14 : 8 + 18] = bytes(4)
    assert len(load_audio(bytes(content) + ID3V1)[0]) == 30_000


# --- Ogg --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_every_page_of_an_ogg_file_is_missed(subtype):
    pages = ogg_pages(encoded(noise(80_000), format="OGG", subtype=subtype))
    assert len(pages) > 4
    for gone in range(len(pages)):
        with pytest.raises(AudioError, match=r"truncated|damaged|not audio"):
            load_audio(b"".join(pages[:gone] + pages[gone + 1 :]))
    swapped = [*pages[:3], pages[4], pages[3], *pages[5:]]
    with pytest.raises(AudioError, match="page 3 of a stream is missing; page 4 follows"):
        load_audio(b"".join(swapped))


def test_an_ogg_recorder_that_was_stopped_is_told_of_and_can_be_taken():
    pages = ogg_pages(encoded(noise(80_000), format="OGG", subtype="OPUS"))
    with pytest.raises(AudioError, match=r"the stream ends is missing.*on_damaged=\"take\""):
        load_audio(b"".join(pages[:-1]))
    heard = []
    waveform, _ = load_audio(b"".join(pages[:-1]), on_damaged=heard.append)
    assert 0 < len(waveform) < 80_000
    assert heard[0].seconds_read == len(waveform) / RATE


@pytest.mark.parametrize("serial", [b"\1\2\3\4", None])
def test_ogg_streams_in_a_row_are_read_whole_whatever_their_serial_numbers(serial):
    first, second = (encoded(noise(8000, seed=seed), format="OGG") for seed in (0, 1))
    expected = torch.cat([load_audio(first)[0], load_audio(second)[0]])
    second = with_serial(second, serial or first[14:18])
    assert torch.equal(load_audio(first + second)[0], expected)


def test_a_picture_beside_the_sound_of_an_ogg_file_is_left_alone():
    """A stream of another kind, begun and ended between the pages of the sound."""
    pages = ogg_pages(encoded(noise(8000), format="OGG"))
    blank = b"OggS\0\6" + bytes(8) + b"pict" + bytes(4) + bytes(4) + b"\1\4cafe"
    picture = blank[:22] + page_checksum(blank).to_bytes(4, "little") + blank[26:]
    content = pages[0] + picture + b"".join(pages[1:])
    assert torch.equal(load_audio(content)[0], load_audio(b"".join(pages))[0])


def test_the_checksum_of_pages_is_that_of_the_standard():
    """RFC 3533, bit by bit, against the fast way; and against what libogg wrote."""
    page = ogg_pages(encoded(noise(2000), format="OGG"))[0]
    blank = page[:22] + bytes(4) + page[26:]
    remainder = 0
    for byte in blank:
        remainder ^= byte << 24
        for _ in range(8):
            remainder = (remainder << 1 ^ 0x04C11DB7 if remainder >> 31 else remainder << 1) & 0xFFFFFFFF
    assert page_checksum(blank) == remainder == int.from_bytes(page[22:26], "little")


# --- boxes and other headers ------------------------------------------------------------------------------------------


def test_boxes_of_mp4_are_counted(monkeypatch):
    monkeypatch.setenv("PATH", "")
    boxes = struct.pack(">I4s8s", 16, b"ftyp", b"M4A \0\0\0\0") + struct.pack(">I4s", 108, b"mdat") + bytes(100)
    with pytest.raises(AudioError, match=f"truncated: its header promises audio up to byte {len(boxes)}"):
        load_audio(boxes[:-1])
    with pytest.raises(AudioError, match="joins 2 files"):
        load_audio(boxes + boxes)


def test_adts_frames_are_counted():
    frame = bytes([0xFF, 0xF1, 0x60, 0x40, 0x04, 0x1F, 0xFC]) + bytes(25)
    with pytest.raises(AudioError, match="the frame at byte 64 is not whole"):
        load_audio((frame * 3)[:-1])


def test_random_places_of_a_second_file_are_found():
    choices = random.Random(0)
    for kind in ("FLAC", "MP3", "Vorbis"):
        first, second = recording(kind), recording(kind, 3000, seed=3)
        junk = bytes(choices.randrange(1, 256) for _ in range(37))
        try:
            samples = len(load_audio(io.BytesIO(first + junk + second))[0])
        except AudioError:
            continue
        assert samples == len(load_audio(first)[0]) + len(load_audio(second)[0])
