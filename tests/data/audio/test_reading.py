"""Decoding, probing and streaming audio files."""

import io
import os
import pickle
import stat
import struct
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiollm.data.audio.integrity import examine
from audiollm.data.audio.opening import AudioError
from audiollm.data.audio.reading import load_audio, probe_audio, stream_audio
from audiollm.data.audio.waveforms import resample, waveform_from_array

from .recordings import RATE, encoded, noise, recording

LOSSLESS = [
    ("WAV", "PCM_16", 2**-15),
    ("WAV", "PCM_24", 2**-23),
    ("WAV", "PCM_32", 2**-23),
    ("WAV", "PCM_U8", 2**-7),
    ("WAV", "FLOAT", 0),
    ("WAV", "DOUBLE", 0),
    ("FLAC", "PCM_16", 2**-15),
    ("FLAC", "PCM_24", 2**-23),
    ("AIFF", "PCM_16", 2**-15),
    ("CAF", "ALAC_16", 2**-15),
    ("AU", "PCM_16", 2**-15),
    ("W64", "PCM_16", 2**-15),
    ("RF64", "PCM_16", 2**-15),
]
LOSSY = [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("WAV", "ULAW"), ("WAV", "IMA_ADPCM")]
# Formats whose header tells where the audio ends, so that no cut goes unnoticed.
SELF_DESCRIBING = ["WAV", "FLAC", "AIFF", "CAF", "AU", "W64", "RF64", "OGG"]


@pytest.mark.parametrize(("format", "subtype", "step"), LOSSLESS)
def test_lossless_encodings_are_scaled_to_the_unit_range(format, subtype, step):
    samples = noise(1000)[:, 0]
    waveform, sample_rate = load_audio(encoded(samples, format=format, subtype=subtype))
    assert sample_rate == RATE
    assert waveform.dtype == torch.float32
    np.testing.assert_allclose(waveform.numpy(), samples, rtol=0, atol=step)


@pytest.mark.parametrize(("format", "subtype"), LOSSY)
def test_lossy_encodings_keep_length_and_content(format, subtype):
    time = np.arange(RATE) / RATE
    samples = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    source = encoded(samples, format=format, subtype=subtype)
    waveform, _ = load_audio(source)
    info = probe_audio(source)
    assert len(waveform) == info.num_samples
    assert 0 <= len(waveform) - len(samples) < 1200  # IMA ADPCM fills its last block
    assert np.corrcoef(waveform[2000:14000], samples[2000:14000])[0, 1] > 0.97


def test_the_format_is_told_by_content_whatever_the_name(tmp_path):
    samples = noise(500)
    expected, _ = load_audio(encoded(samples, format="FLAC"))
    for name in ["speech.wav", "speech.mp3", "speech.raw", "speech.txt", "speech", "naïve file.RAW", "-v.au"]:
        path = tmp_path / name
        path.write_bytes(encoded(samples, format="FLAC"))
        for source in (path, str(path)):
            assert torch.equal(load_audio(source)[0], expected)
        with open(path, "rb") as file:
            assert torch.equal(load_audio(file)[0], expected)


def test_path_bytes_file_object_and_pipe_agree(tmp_path):
    path = tmp_path / "a.ogg"
    path.write_bytes(encoded(noise(5000, 2), format="OGG", subtype="VORBIS"))
    expected, _ = load_audio(path)
    assert torch.equal(load_audio(path.read_bytes())[0], expected)
    with open(path, "rb") as file:
        file.seek(77)  # a seekable file is read from its beginning
        assert torch.equal(load_audio(file)[0], expected)
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(path.read_bytes())  # small enough for the pipe's buffer
    with os.fdopen(reader, "rb") as pipe:
        assert torch.equal(load_audio(pipe)[0], expected)


def test_mono_is_the_mean_or_the_first_of_six_channels():
    samples = noise(400, 6)
    source = encoded(samples, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(source)[0], samples.mean(axis=1), atol=1e-7)
    assert np.array_equal(load_audio(source, mono="first")[0], samples[:, 0])
    assert probe_audio(source).num_channels == 6
    with pytest.raises(ValueError, match=r"mono='left'.*mean.*first"):
        load_audio(source, mono="left")


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 192_000])
@pytest.mark.parametrize("num_samples", [1, 2, 80, 12_345])
def test_resampling_gives_the_ceiling_of_the_length_and_what_soxr_gives(rate, num_samples):
    samples = noise(num_samples)[:, 0]
    waveform, sample_rate = load_audio(encoded(samples, rate, subtype="FLOAT"), sample_rate=RATE)
    assert sample_rate == RATE
    assert len(waveform) == -(-num_samples * RATE // rate)
    whole = soxr.resample(samples, rate, RATE)
    np.testing.assert_allclose(waveform[: len(whole)], whole[: len(waveform)], atol=1e-6)
    assert torch.equal(resample(torch.from_numpy(samples), rate, RATE), waveform)


def test_resampling_keeps_a_tone_and_its_level():
    time = np.arange(48_000) / 48_000
    tone = (0.5 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)
    waveform, _ = load_audio(encoded(tone, 48_000, subtype="FLOAT"), sample_rate=RATE)
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    np.testing.assert_allclose(waveform[200:-200], expected[200:-200], atol=1e-4)


@pytest.mark.parametrize("seconds", [1 / RATE, 0.01])
def test_the_shortest_recordings_load_probe_and_stream(seconds):
    source = encoded(noise(round(seconds * RATE)))
    waveform, _ = load_audio(source)
    assert len(waveform) == probe_audio(source).num_samples == round(seconds * RATE)
    assert probe_audio(source).duration_seconds == pytest.approx(seconds)
    assert torch.equal(torch.cat(list(stream_audio(source))), waveform)


@settings(max_examples=40, deadline=None)
@given(
    num_samples=st.integers(1, 20_000),
    rate=st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000, 192_000]),
    wanted=st.sampled_from([None, 8000, 16000, 22050, 24000]),
    num_channels=st.integers(1, 6),
    block_seconds=st.floats(1e-4, 2),
    kind=st.sampled_from([("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")]),
)
def test_the_blocks_of_a_stream_are_the_whole_recording(num_samples, rate, wanted, num_channels, block_seconds, kind):
    block_seconds = max(block_seconds, num_samples / rate / 200)
    source = encoded(noise(num_samples, num_channels), rate, *kind)
    blocks = list(stream_audio(source, wanted, "mean", block_seconds))
    whole, _ = load_audio(source, wanted)
    assert torch.equal(torch.cat(blocks), whole)
    assert all(len(block) for block in blocks)


def test_three_hours_stream_and_probe_in_flat_memory(tmp_path):
    path = tmp_path / "long.wav"
    num_samples, seconds = 3 * 3600 * RATE, 3 * 3600
    header = encoded(noise(1))[:44]
    with open(path, "wb") as file:  # three hours of silence: a sparse file behind a header
        file.write(header[:40] + struct.pack("<I", 2 * num_samples))
        file.truncate(44 + 2 * num_samples)
    tracemalloc.start()
    assert probe_audio(path).duration_seconds == seconds
    total = sum(len(block) for block in stream_audio(path, 8000, block_seconds=30))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == num_samples // 2
    assert peak < 20e6  # the whole would be 691 MB


def test_flac_of_unknown_length_is_read_to_its_end():
    samples = noise(30_000)
    source = bytearray(encoded(samples, format="FLAC"))
    source[8 + 13] &= 0xF0  # the 36 bits of the sample count: 0 stands for unknown
    source[8 + 14 : 8 + 18] = bytes(4)
    assert probe_audio(bytes(source)).num_samples == len(samples)
    assert torch.equal(load_audio(bytes(source))[0], load_audio(encoded(samples, format="FLAC"))[0])


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF800])
def test_wav_written_to_a_pipe_is_not_taken_for_truncated(size):
    source = bytearray(encoded(noise(1000)))
    source[4:8] = source[40:44] = struct.pack("<I", size)
    assert len(load_audio(bytes(source))[0]) == 1000


def mp3_without_length_header(samples: np.ndarray, rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    source = file.getvalue()
    assert b"Xing" in source[:200] or b"Info" in source[:200]
    return source[source.index(source[:2], 4) :]


@pytest.mark.parametrize("rate", [44_100, 16_000])
@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize("tag", [b"", b"ID3\4\0\0\0\0\1\0" + bytes(128)])
def test_mp3_without_length_header_is_read_to_its_end(rate, num_channels, tag):
    samples = noise(4 * rate, num_channels)
    samples[rate:] *= 0.001  # a loud start: the first frame's bit rate misleads an estimate of the length
    source = tag + mp3_without_length_header(samples, rate)
    assert soundfile.info(io.BytesIO(source)).frames < 0.7 * len(samples)  # what libsndfile alone would read
    waveform, _ = load_audio(source)
    assert 0 <= len(waveform) - len(samples) < 3000  # the encoder's padding stays
    assert probe_audio(source).num_samples == len(waveform)


# --- bad files --------------------------------------------------------------------------------------------------------


def every_way_to_read(source):
    yield lambda: load_audio(source)
    yield lambda: load_audio(source, sample_rate=8000)
    yield lambda: list(stream_audio(source, block_seconds=0.1))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"<!DOCTYPE html><html></html>" * 50, "not audio.*DOCTYPE"),
        (np.random.default_rng(1).bytes(10_000), "not audio"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not audio.*PNG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"RIFF", "not audio|truncated"),
        (encoded(noise(0)), r"no samples \(0 s"),
        (encoded(noise(0), format="AIFF"), "no samples"),
        (encoded(noise(8000))[:-7000], "truncated"),
        (encoded(noise(8000), format="FLAC")[:-7000], "truncated"),
        (encoded(noise(60_000), format="MP3")[:-7000], "truncated"),
        (encoded(np.array([0.1, np.nan, 0.2]), subtype="FLOAT"), r"nan at sample 1 \(0\.000 s\)"),
        (encoded(np.array([0.1] * 9000 + [-np.inf]), subtype="DOUBLE"), r"-inf at sample 9000 \(0\.562 s\)"),
    ],
)
def test_a_bad_file_is_an_error_that_names_it_and_the_reason(tmp_path, monkeypatch, content, reason):
    monkeypatch.setenv("PATH", "")  # no ffmpeg
    path = tmp_path / "clip.wav"
    path.write_bytes(content)
    for read in every_way_to_read(path):
        with pytest.raises(AudioError, match=reason) as caught:
            read()
        assert str(caught.value).startswith(f"{path}: ")
        assert caught.value.source == str(path)
    for read in every_way_to_read(content):
        with pytest.raises(AudioError, match=f"{len(content)} bytes.*({reason})"):
            read()


def test_a_missing_file_a_folder_a_pipe_and_a_url_are_told_apart(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for source, reason in [
        (tmp_path / "none.wav", "no such file"),
        (tmp_path, "directory"),
        (tmp_path / "pipe", "not a regular file"),
        ("https://example.com/a.wav", "URL; download"),
        ("a\0b.wav", "not a valid path"),
        ("", "no such file"),
    ]:
        for read in (load_audio, probe_audio):
            with pytest.raises(AudioError, match=reason):
                read(source)
    with pytest.raises(TypeError, match="not ndarray"):
        load_audio(np.zeros(4))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path):
    path = tmp_path / "secret.wav"
    path.write_bytes(encoded(noise(10)))
    path.chmod(0)
    with pytest.raises(AudioError, match=r"secret\.wav: cannot be opened: Permission denied"):
        load_audio(path)


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(SELF_DESCRIBING), missing=st.floats(0, 0.999), num_samples=st.integers(3000, 9000))
def test_no_cut_of_a_file_that_tells_its_length_goes_unnoticed(kind, missing, num_samples):
    source = encoded(noise(num_samples), format=kind)
    # At least the last eighth of a second is gone; what trails the audio (padding, tags) may be.
    cut = source[: int((len(source) - 300) * (1 - missing))]
    with pytest.raises(AudioError):
        load_audio(cut)


@pytest.mark.parametrize("padding", [b"\0", b""])
def test_chunks_of_odd_size_in_front_of_the_audio_do_no_harm(padding):
    """The padding byte behind such a chunk is required, but some writers forget it."""
    source = encoded(noise(1000))
    chunk = b"note" + struct.pack("<I", 5) + b"hello" + padding
    source = source[:36] + chunk + source[36:]
    if padding:
        assert torch.equal(load_audio(source)[0], load_audio(encoded(noise(1000)))[0])
        with pytest.raises(AudioError, match=f"truncated: its header promises audio up to byte {len(source)}"):
            load_audio(source[:-1])
    else:
        assert not examine(io.BytesIO(source), len(source)).problem


@pytest.mark.parametrize("size_field", [b"\x40\x64", b"\x01\0\0\0\0\0\0\x64"])
def test_a_cut_matroska_file_is_noticed_and_a_live_one_accepted(size_field):
    header = b"\x1a\x45\xdf\xa3\x83abc\x18\x53\x80\x67"  # ends before the size of the segment, here 100 bytes
    whole = header + size_field + bytes(100)
    assert not examine(io.BytesIO(whole), len(whole)).problem
    with pytest.raises(AudioError, match=f"truncated: its header promises audio up to byte {len(whole)}"):
        load_audio(whole[:-1])
    live = header + b"\x01" + b"\xff" * 7 + bytes(10)
    assert not examine(io.BytesIO(live), len(live)).problem


def test_a_cut_mp3_is_noticed_when_more_than_a_frame_is_missing():
    source = encoded(noise(40_000), format="MP3")
    for share in (0.9, 0.5, 0.2):
        with pytest.raises(AudioError, match=r"truncated: its header promises 40000 samples but they end after sample"):
            load_audio(source[: int(len(source) * share)])


def test_what_trails_the_audio_does_no_harm():
    for kind in SELF_DESCRIBING:
        source = encoded(noise(4000), format=kind)
        expected = load_audio(source)[0]
        assert torch.equal(load_audio(source + b"TAG" + b" " * 125)[0][: len(expected)], expected), kind


def test_a_stream_gives_what_precedes_the_damage_and_names_the_place():
    samples = noise(RATE * 4)
    samples[RATE * 3 + 8] = np.nan
    blocks = stream_audio(encoded(samples, subtype="FLOAT"), block_seconds=1)
    received = [next(blocks) for _ in range(3)]
    assert sum(map(len, received)) == 3 * RATE
    with pytest.raises(AudioError, match=r"sample 48008 \(3\.001 s\)"):
        next(blocks)


def test_bad_arguments_are_named():
    source = encoded(noise(10))
    for rate in (0, -1, 16000.5):
        with pytest.raises(ValueError, match=f"sample_rate={rate}.*Hz"):
            load_audio(source, sample_rate=rate)
    for seconds in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="block_seconds="):
            stream_audio(source, block_seconds=seconds)
    with pytest.raises(ValueError, match=r"shape \[2, 3\]"):
        resample(torch.zeros(2, 3), 8000, 16000)


def test_an_audio_error_survives_the_way_out_of_a_worker_process():
    error = pickle.loads(pickle.dumps(AudioError("a.wav", "is empty (0 bytes)")))
    assert (str(error), error.source, error.reason) == ("a.wav: is empty (0 bytes)", "a.wav", "is empty (0 bytes)")


# --- samples in memory ------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1, max_size=50))
def test_integer_arrays_are_scaled_like_integer_files(values):
    samples = np.array(values, dtype=np.int16)
    expected, _ = load_audio(encoded(samples, subtype="PCM_16"))
    assert torch.equal(waveform_from_array(samples), expected)
    assert torch.equal(waveform_from_array(torch.from_numpy(samples)), expected)


def test_arrays_may_be_unsigned_of_several_channels_or_lists():
    assert waveform_from_array(np.array([0, 128, 255], np.uint8)).tolist() == [-1, 0, 127 / 128]
    two = np.array([[0.5, 0.25], [0.0, 0.75]], np.float64)
    assert waveform_from_array(two).tolist() == [0.25, 0.5]
    assert waveform_from_array(two, mono="first").tolist() == [0.5, 0.25]
    assert waveform_from_array([0.5, -0.5]).tolist() == [0.5, -0.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int16])
@pytest.mark.parametrize("mono", ["first", "mean"])
def test_channels_are_told_from_samples_either_way_round(dtype, mono):
    channels = torch.tensor([[0.5, -0.25] * 50, [0.125, 0.25] * 50])
    channels = (channels * 32768).to(dtype) if dtype == torch.int16 else channels.to(dtype)
    expected = waveform_from_array(channels, mono)
    assert torch.equal(expected, torch.tensor([0.5, -0.25] * 50 if mono == "first" else [0.3125, 0.0] * 50))
    assert torch.equal(waveform_from_array(channels.T, mono), expected)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 2, 2)), r"shape \[2, 2, 2\]"),
        (np.zeros((1000, 100)), r"shape \[1000, 100\].*\[C, N\] or \[N, C\]"),
        (np.zeros(0), "no samples"),
        ([1, 2, 3], "type int64"),
        (np.array(["a"]), "type <U1"),
        (np.array([0.0, np.inf]), "inf at sample 1"),
    ],
)
def test_bad_arrays_are_refused(array, reason):
    with pytest.raises(AudioError, match=reason):
        waveform_from_array(array)


# --- ffmpeg -----------------------------------------------------------------------------------------------------------

FAKE_FFMPEG = """#!{python}
import struct, sys
path = sys.argv[sys.argv.index("-i") + 1].removeprefix("file:")
content = open(path, "rb").read()
if b"wvpk" not in content:
    sys.exit("file:" + path + ": Invalid data found when processing input\\nError opening input files")
samples = content[content.index(b"wvpk") + 4 : -1]
sys.stdout.buffer.write(b".snd" + struct.pack(">5I", 28, 0xFFFFFFFF, 6, 8000, 2) + bytes(4))
for sample in samples:
    sys.stdout.buffer.write(struct.pack(">2f", sample / 256, 0))
sys.stdout.buffer.flush()
if content.endswith(b"!"):
    sys.exit("partial file")
"""


@pytest.fixture
def fake_ffmpeg(tmp_path, monkeypatch):
    """A program that turns b"wvpk" + samples + b"." into two-channel AU, and fails after b"!".

    As ffmpeg does, it skips what is in front.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ffmpeg"
    program.write_text(FAKE_FFMPEG.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.usefixtures("fake_ffmpeg")
def test_ffmpeg_reads_what_libsndfile_cannot(tmp_path):
    path = tmp_path / "clip.m4a"
    path.write_bytes(b"wvpk" + bytes(range(200)) + b".")
    expected = torch.arange(200) / 256
    for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
        waveform, sample_rate = load_audio(source, mono="first")
        assert sample_rate == 8000
        assert torch.equal(waveform, expected)
    assert torch.equal(load_audio(path)[0], expected / 2)
    assert torch.equal(torch.cat(list(stream_audio(path, mono="first", block_seconds=0.001))), expected)
    info = probe_audio(path)
    assert (info.num_samples, info.num_channels, info.sample_rate, info.format) == (200, 2, 8000, "ffmpeg")


@pytest.mark.usefixtures("fake_ffmpeg")
def test_an_error_of_ffmpeg_is_passed_on():
    with pytest.raises(AudioError, match=r"ffmpeg says: Invalid data found"):
        load_audio(b"GIF89a" + bytes(100))
    with pytest.raises(AudioError, match="damaged or truncated; ffmpeg says: partial file"):
        load_audio(b"wvpk" + bytes(100) + b"!")


@pytest.mark.usefixtures("fake_ffmpeg")
@pytest.mark.parametrize("front", [b"a cut frame", b"\1" * 3000, recording("HTK")], ids=["frame", "junk", "recording"])
def test_what_ffmpeg_skips_at_the_front_is_not_left_out_without_a_word(front):
    content = front + b"wvpk" + bytes(100) + b"."
    with pytest.raises(AudioError, match="cut at its front, or holds something else there: it begins with b'"):
        load_audio(content)
    damages = []
    waveform, _ = load_audio(content, on_damaged=damages.append)
    assert len(waveform) == 100
    assert "cut at its front" in damages[0].reason


@pytest.mark.usefixtures("fake_ffmpeg")
def test_a_stream_that_is_left_early_leaves_no_ffmpeg_behind(tmp_path):
    path = tmp_path / "clip.m4a"
    path.write_bytes(b"wvpk" + bytes(1_000_000) + b".")
    blocks = stream_audio(path, block_seconds=0.01)
    next(blocks)
    del blocks  # closes the pipe and ends the process; a hang here is the failure


def _saved(save, *values):
    file = io.BytesIO()
    save(file, *values)
    return file.getvalue()


FOREIGN = {
    "c.npy": (_saved(np.save, np.arange(50)), "NumPy array.*WAV.*codes"),
    "c.npz": (_saved(np.savez, np.arange(50)), "zip archive.*codes"),
    "c.pt": (_saved(lambda file, value: torch.save(value, file), torch.arange(5)), "zip archive.*codes"),
    "c.json": (b"[1, 2, 3]", "JSON.*codes"),
    "d.json": (b' {\n"codes": [1, 2]}', "JSON.*audiollm tokenize"),
    "e.jsonl": (b'{"audio": "a.wav"}\n', "JSON.*audiollm tokenize"),
    "t.parquet": (b"PAR1" + bytes(40) + b"PAR1", "table.*audiollm tokenize"),
    "page.mp3": (b"<!DOCTYPE html><html>404</html>", "web page.*again"),
    "s.wav": (b"%PDF-1.4", "PDF"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_recording_is_said_with_what_to_do(name, tmp_path):
    content, message = FOREIGN[name]
    (tmp_path / name).write_bytes(content)
    for source in (tmp_path / name, content, io.BytesIO(content)):
        for reader in (load_audio, probe_audio):
            with pytest.raises(AudioError, match=message) as error:
                reader(source)
            assert "\n" not in str(error.value)
