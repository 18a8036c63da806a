"""Samples to the bytes of a response."""

from __future__ import annotations

import importlib
import io
import struct
import wave

import numpy as np
import pytest
import soundfile

from audiollm.data.audio import AudioError, load_audio
from audiollm.serving.sound import FORMATS, RESPONSE_RATE, PyAVMissingError, SoundEncoder, encode_whole, sound_format
from audiollm.serving.sound.formats import SoundFormat

NEED_PYAV = [name for name, found in FORMATS.items() if found.needs_pyav]
LOSSLESS = ("wav", "pcm", "flac")
# Samples that a codec puts in front of the sound, and fills its last frame with: none where the file tells of them.
MOST_ADDED = {"wav": 0, "pcm": 0, "flac": 0, "opus": 0, "mp3": 3 * 1152, "aac": 3 * 1024}


def available(name: str) -> str:
    if FORMATS[name].needs_pyav:
        pytest.importorskip("av")
    return name


@pytest.fixture(params=FORMATS)
def name(request: pytest.FixtureRequest) -> str:
    return available(request.param)


def tone(num_samples: int = RESPONSE_RATE, frequency_hz: float = 440.0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * frequency_hz * np.arange(num_samples) / RESPONSE_RATE)).astype(np.float32)


def noise(num_samples: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, num_samples).astype(np.float32)


def streamed(samples: np.ndarray, name: str, piece: int = 2400) -> bytes:
    with SoundEncoder(name) as encoder:
        pieces = [encoder.write(samples[start : start + piece]) for start in range(0, len(samples), piece)]
        return b"".join([*pieces, encoder.close()])


def decoded(data: bytes, name: str) -> np.ndarray:
    """What a client hears: samples at the response's rate."""
    if name == "pcm":
        return np.frombuffer(data, "<i2").astype(np.float32) / 32768
    waveform, sample_rate = load_audio(data)
    assert sample_rate == RESPONSE_RATE
    return waveform.numpy()


def dominant_hz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * RESPONSE_RATE / len(samples))


@pytest.mark.parametrize("way", [streamed, encode_whole])
def test_what_is_encoded_is_heard(name, way):
    samples = tone()
    heard = decoded(way(samples, name), name)
    assert 0 <= len(heard) - len(samples) <= MOST_ADDED[name]
    assert dominant_hz(heard) == pytest.approx(440, abs=1.5)
    assert np.sqrt(np.mean(heard**2)) == pytest.approx(np.sqrt(np.mean(samples**2)), rel=0.1)


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("way", [streamed, encode_whole])
def test_lossless_formats_keep_every_step_of_16_bits(name, way):
    samples = np.round(noise(5000) * 32768).astype(np.float32) / 32768
    np.testing.assert_array_equal(decoded(way(samples, name), name), samples)


def test_pieces_make_no_difference(name):
    samples = noise(7001)
    whole = decoded(streamed(samples, name, len(samples)), name)
    for piece in (1000, 333, 37):
        np.testing.assert_array_equal(decoded(streamed(samples, name, piece), name), whole)


def test_bytes_come_early(name):
    """After a fifth of a second there is more than a header, and every further fifth brings more."""
    samples = noise(RESPONSE_RATE)
    with SoundEncoder(name) as encoder:
        sizes = [len(encoder.write(piece)) for piece in np.split(samples, 5)]
    assert all(size > 500 for size in sizes)
    assert sum(sizes) > 0.7 * len(streamed(samples, name))


def test_bytes_that_went_out_are_not_written_again(name):
    """A stream is what its pieces are: its beginning stands once, and libsndfile's way back to it is closed."""
    data = streamed(noise(20_000), name)
    mark = {"wav": b"RIFF", "flac": b"fLaC", "opus": b"OpusHead", "mp3": b"Xing", "aac": b"Xing", "pcm": b"RIFF"}[name]
    assert data.count(mark) == (name in ("wav", "flac", "opus"))


def test_the_header_of_a_streamed_wav_says_that_its_length_is_unknown():
    data = streamed(tone(1000), "wav")
    assert data[:4] == b"RIFF"
    assert data[4:8] == data[40:44] == b"\xff\xff\xff\xff"
    assert len(data) == 44 + 2 * 1000
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RESPONSE_RATE, 1, 2)
        assert len(file.readframes(1 << 20)) == 2 * 1000


def test_a_whole_wav_has_its_true_sizes():
    data = encode_whole(tone(1000), "wav")
    assert struct.unpack("<I", data[4:8]) == (len(data) - 8,)
    assert struct.unpack("<I", data[40:44]) == (2 * 1000,)


@pytest.mark.parametrize("name", ["flac", "mp3"])
def test_whole_files_tell_their_length(name):
    assert soundfile.info(io.BytesIO(encode_whole(tone(10_000), name))).frames == 10_000


def test_a_streamed_mp3_has_the_length_that_its_first_frame_lets_a_player_expect():
    data = streamed(noise(3 * RESPONSE_RATE), "mp3")
    assert len(data) * 8 / 64_000 == pytest.approx(3, abs=0.2)
    assert any(data[4:40])  # no empty frame in front


@pytest.mark.parametrize("num_samples", [0, 1])
@pytest.mark.parametrize("way", [streamed, encode_whole])
def test_nothing_and_one_sample_are_responses_too(name, num_samples, way):
    data = way(tone(num_samples), name)
    if num_samples:
        assert len(decoded(data, name)) >= num_samples
    elif name == "wav":
        assert len(data) == 44
    elif name == "pcm":
        assert data == b""


def test_pieces_without_samples_are_taken(name):
    with SoundEncoder(name) as encoder:
        data = encoder.write(np.zeros(0, np.float32)) + encoder.write(tone(3000)) + encoder.write(tone(0))
        data += encoder.close()
        assert encoder.num_samples == 3000
    assert len(decoded(data, name)) >= 3000


def test_samples_beyond_full_scale_are_clipped_counted_and_told(name, caplog):
    samples = np.concatenate([tone(3000), np.full(5, 1.5, np.float32), np.full(2, -3.0, np.float32), tone(3000)])
    with SoundEncoder(name) as encoder:
        data = encoder.write(samples) + encoder.close()
        assert encoder.num_clipped == 7
    assert "clipped 7 of 6007" in caplog.text
    if name in LOSSLESS:
        assert decoded(data, name)[3000] == 32767 / 32768
        assert decoded(data, name)[3005] == -1


def test_undefined_samples_are_refused(name):
    with SoundEncoder(name) as encoder, pytest.raises(AudioError, match=r"sample 3 is nan"):
        encoder.write(np.array([0, 0, 0, np.nan], np.float32))


def test_integers_and_channels_are_refused(name):
    with SoundEncoder(name) as encoder:
        with pytest.raises(ValueError, match="int16"):
            encoder.write(np.zeros(4, np.int16))
        with pytest.raises(ValueError, match=r"\[2, 4\]"):
            encoder.write(np.zeros((2, 4), np.float32))


def test_a_closed_encoder_takes_nothing_more(name):
    encoder = SoundEncoder(name)
    encoder.write(tone(100))
    assert encoder.close() is not None
    assert encoder.close() == b""
    with pytest.raises(ValueError, match="closed"):
        encoder.write(tone(100))


def test_an_encoder_whose_reader_left_lets_go(name):
    with SoundEncoder(name) as encoder:
        encoder.write(tone(3000))
    with pytest.raises(ValueError, match="closed"):
        encoder.write(tone(100))


def test_responses_at_the_same_time_do_not_mix(name):
    low, high = tone(frequency_hz=300), tone(frequency_hz=2000)
    with SoundEncoder(name) as first, SoundEncoder(name) as second:
        pieces = [(first.write(a), second.write(b)) for a, b in zip(np.split(low, 10), np.split(high, 10), strict=True)]
        ends = first.close(), second.close()
    for index, frequency in enumerate((300, 2000)):
        data = b"".join([piece[index] for piece in pieces]) + ends[index]
        assert dominant_hz(decoded(data, name)) == pytest.approx(frequency, abs=1.5)


def test_media_types_and_headers():
    types = {name: found.media_type for name, found in FORMATS.items()}
    assert types == {
        "mp3": "audio/mpeg", "opus": "audio/ogg", "aac": "audio/aac",
        "flac": "audio/flac", "wav": "audio/wav", "pcm": "audio/pcm",
    }  # fmt: skip
    encoder = SoundEncoder("pcm16")
    assert encoder.format is FORMATS["pcm"]
    assert encoder.headers["X-Sample-Rate"] == "24000"
    assert not SoundEncoder("wav").headers


def test_an_unknown_format_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"'ogg' is unknown; choose among mp3, opus, aac, flac, wav, pcm"):
        SoundEncoder("ogg")


def test_without_pyav_its_formats_name_themselves_and_the_cure_and_the_others_work(monkeypatch):
    real = importlib.import_module

    def without_av(name: str, *arguments: object) -> object:
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'", name="av")
        return real(name, *arguments)

    monkeypatch.setattr(importlib, "import_module", without_av)
    for name in FORMATS:
        if name in NEED_PYAV:
            for use in (sound_format, SoundEncoder, lambda name: encode_whole(tone(10), name)):
                with pytest.raises(PyAVMissingError, match=rf"{name} needs PyAV.*pip install 'audiollm\[serve\]'"):
                    use(name)
        else:
            assert isinstance(sound_format(name), SoundFormat)
            assert streamed(tone(3000), name)
            assert encode_whole(tone(3000), name)
