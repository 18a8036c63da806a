"""A recording through its codes: the right codes are decoded in the right voice, into one whole file or none."""

import io
import os

import pytest
import torch

from audiollm.data.audio.opening import AudioError
from audiollm.data.audio.reading import load_audio, probe_audio
from audiollm.data.audio.writing import save_audio
from audiollm.reconstruction import reconstruct
from audiollm.tokenizer.base import AudioTokenizer, Codes
from audiollm.tokenizer.losatok.configuration import LoSATokConfig
from audiollm.tokenizer.losatok.model import LoSATok
from audiollm.tokenizer.losatok.semantic import SemanticEncoder
from audiollm.tokenizer.losatok.teacher.dasheng import DashengSizes, DashengTeacher

SAMPLES_PER_CODE = 100
LEVELS = 64


class LevelTokenizer(AudioTokenizer):
    """A codec simple enough to be right by hand: a code is the mean level of 1/10 s, decoded as that level."""

    sample_rate = 1000
    output_sample_rate = 2000
    frame_rate = 10.0
    num_codebooks = 1
    codebook_size = LEVELS
    max_segment_seconds = None
    can_decode = True
    licence_note = ""

    def __init__(self):
        self.calls = []

    def fingerprint(self):
        return "level"

    def encode(self, waveforms, sample_rate):
        assert sample_rate == 1000
        clips = []
        for waveform in waveforms:
            padded = torch.nn.functional.pad(waveform, (0, -len(waveform) % SAMPLES_PER_CODE))
            levels = padded.view(-1, SAMPLES_PER_CODE).mean(dim=1)
            clips.append((levels * LEVELS).long().clamp(0, LEVELS - 1)[None])
        return Codes.from_list(clips)

    def encode_stream(self, chunks, sample_rate):
        self.calls.append(("encode_stream", {}))
        waiting = torch.zeros(0)
        for chunk in chunks:
            waiting = torch.cat([waiting, chunk])
            whole = len(waiting) // SAMPLES_PER_CODE * SAMPLES_PER_CODE
            if whole:
                yield self.encode([waiting[:whole]], sample_rate)[0][0]
            waiting = waiting[whole:]
        if len(waiting):
            yield self.encode([waiting], sample_rate)[0][0]

    def decode(self, codes, speaker=None, prompt=None, **options):
        self.calls.append(("decode", {"speaker": speaker, "prompt": prompt, **options}))
        return [self.sound(codes[index][0]) for index in range(len(codes))]

    def decode_stream(self, codes, speaker=None, prompt=None, **options):
        self.calls.append(("decode_stream", {"speaker": speaker, "prompt": prompt, **options}))
        for piece in codes:
            yield self.sound(piece)

    def sound(self, codes):
        return ((codes + 0.5) / LEVELS).repeat_interleave(2 * SAMPLES_PER_CODE)


class FirstSecond:
    """A speaker encoder: what it was given."""

    embedding_size = 3

    def embed(self, waveform, sample_rate):
        return torch.tensor([float(waveform.mean()), len(waveform), sample_rate])


@pytest.fixture
def codec():
    return LevelTokenizer()


@pytest.fixture
def original(tmp_path):
    """2.55 s of steps: 25 codes and a half."""
    path = tmp_path / "original.wav"
    save_audio(path, torch.linspace(0, 0.9, 26).repeat_interleave(SAMPLES_PER_CODE)[:2550], 1000)
    return path


@pytest.mark.parametrize("stream", [False, True])
def test_the_sound_of_the_codes_is_written_and_cut_to_the_original(tmp_path, codec, original, stream):
    result = reconstruct(original, tmp_path / "out.wav", codec, stream=stream)
    expected = codec.encode([load_audio(original)[0]], 1000)[0][0]
    assert torch.equal(result.codes, expected)
    assert len(expected) == 26
    waveform, rate = load_audio(tmp_path / "out.wav")
    assert rate == result.sample_rate == 2000
    torch.testing.assert_close(waveform, codec.sound(expected)[:5100], atol=2**-15, rtol=0)
    assert result.num_samples == 5100
    assert result.output_seconds == result.source_seconds == 2.55
    assert 0 < result.first_sound_seconds <= result.total_seconds
    assert result.real_time_factor == result.total_seconds / 2.55
    assert {name for name, _ in codec.calls} == ({"encode_stream", "decode_stream"} if stream else {"decode"})


@pytest.mark.parametrize("stream", [False, True])
def test_voice_and_settings_reach_the_decoder(tmp_path, codec, original, stream):
    reconstruct(
        original, tmp_path / "out.wav", codec, speaker=[1.0, 2.0], prompt=("codes", "mel"), steps=4, seed=7,
        stream=stream, guidance=0.5,
    )  # fmt: skip
    settings = dict(codec.calls)["decode_stream" if stream else "decode"]
    assert settings["speaker"].flatten().tolist() == [1.0, 2.0]
    assert settings["prompt"] == ("codes", "mel")
    assert (settings["steps"], settings["seed"], settings["guidance"]) == (4, 7, 0.5)


def test_a_speaker_encoder_hears_the_first_minute_of_the_original(tmp_path, codec):
    path = tmp_path / "long.flac"
    save_audio(path, torch.cat([torch.full((60_000,), 0.25), torch.full((5_000,), 0.5)]), 1000)
    reconstruct(path, tmp_path / "out.wav", codec, speaker=FirstSecond())
    assert codec.calls[-1][1]["speaker"].flatten().tolist() == [0.25, 60_000, 1000]


def test_streaming_starts_to_decode_before_the_recording_is_read(tmp_path, codec):
    path = tmp_path / "long.wav"
    save_audio(path, torch.full((200_000,), 0.5), 1000)
    consumed = []
    encode_stream, decode_stream = codec.encode_stream, codec.decode_stream

    def watched_encode(chunks, sample_rate):
        for codes in encode_stream(chunks, sample_rate):
            consumed.append("encoded")
            yield codes

    def watched_decode(codes, **options):
        for waveform in decode_stream(codes, **options):
            consumed.append("decoded")
            yield waveform

    codec.encode_stream, codec.decode_stream = watched_encode, watched_decode
    result = reconstruct(path, tmp_path / "out.wav", codec, stream=True)
    assert consumed[:4] == ["encoded", "decoded", "encoded", "decoded"]
    assert result.output_seconds == 200


def test_channels_and_sources_other_than_paths(tmp_path, codec):
    import soundfile

    path = tmp_path / "stereo.wav"
    soundfile.write(path, torch.tensor([[0.2, 0.6]]).repeat(1000, 1).numpy(), 1000)
    first = reconstruct(path, tmp_path / "first.wav", codec)
    mean = reconstruct(path, tmp_path / "mean.wav", codec, mono="mean")
    assert (first.codes.unique().tolist(), mean.codes.unique().tolist()) == ([12], [25])
    for source in (path.read_bytes(), io.BytesIO(path.read_bytes())):
        assert torch.equal(reconstruct(source, tmp_path / "other.ogg", codec).codes, first.codes)
    assert probe_audio(tmp_path / "other.ogg").format.startswith("OGG")


def test_what_cannot_work_is_refused_before_any_work_and_leaves_nothing(tmp_path, codec, original):
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(AudioError, match="is the original itself"):
        reconstruct(original, tmp_path / "." / "original.wav", codec)
    with pytest.raises(AudioError, match=r"'\.m4a'; name the file"):
        reconstruct(original, tmp_path / "out.m4a", codec)
    with pytest.raises(AudioError, match="no such file"):
        reconstruct(tmp_path / "none.wav", tmp_path / "out.wav", codec)
    with pytest.raises(ValueError, match="steps"):
        reconstruct(original, tmp_path / "out.wav", codec, steps=0)
    with pytest.raises(ValueError, match="NaN"):
        reconstruct(original, tmp_path / "out.wav", codec, speaker=torch.tensor([float("nan")]))
    assert codec.calls == []
    codec.can_decode = False
    with pytest.raises(ValueError, match="has no waveform decoder, so its codes cannot become sound"):
        reconstruct(original, tmp_path / "out.wav", codec)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("stream", [False, True])
def test_a_recording_without_codes_is_an_error(tmp_path, codec, original, stream):
    codec.encode = lambda waveforms, sample_rate: Codes.from_list([torch.zeros(1, 0, dtype=torch.int64)])
    codec.encode_stream = lambda chunks, sample_rate: iter(())
    with pytest.raises(AudioError, match=r"original\.wav: of 2\.550 s gives no codes"):
        reconstruct(original, tmp_path / "out.wav", codec, stream=stream)
    assert not (tmp_path / "out.wav").exists()


def test_a_failing_decoder_leaves_the_older_file(tmp_path, codec, original):
    reconstruct(original, tmp_path / "out.wav", codec)
    before = (tmp_path / "out.wav").read_bytes()

    def failing(codes, **options):
        yield torch.zeros(10)
        raise RuntimeError("out of memory")

    codec.decode_stream = failing
    with pytest.raises(RuntimeError, match="out of memory"):
        reconstruct(original, tmp_path / "out.wav", codec, stream=True)
    assert (tmp_path / "out.wav").read_bytes() == before


@pytest.mark.parametrize("stream", [False, True])
def test_latents_take_the_place_of_codes(tmp_path, stream):
    torch.manual_seed(0)
    original = tmp_path / "noise.wav"
    save_audio(original, torch.randn(20_000) / 10, 16000)
    config = LoSATokConfig(
        feature_size=8, bottleneck_size=8, latent_size=4, num_mels=8, decoder_size=8, decoder_intermediate_size=8,
        decoder_layers=1,
    )  # fmt: skip
    sizes = DashengSizes(size=8, num_layers=1, num_heads=2, mlp_size=8, num_mels=8, piece_tokens=10)
    tokenizer = LoSATok(config, SemanticEncoder(config.semantic, DashengTeacher(sizes))).eval()
    result = reconstruct(original, tmp_path / "out.wav", tokenizer, stream=stream)
    assert result.codes.shape == (result.num_codes, 4)
    assert result.unit == "latents"
    waveform, rate = load_audio(original, mono="first")
    expected = tokenizer.encode([waveform], rate)
    torch.testing.assert_close(result.codes, expected[0], rtol=1e-4, atol=1e-4)
    [sound] = tokenizer.decode(expected)
    made, made_rate = load_audio(result.output)
    assert (made_rate, len(made)) == (16000, result.num_samples)
    torch.testing.assert_close(made, sound[: len(made)].clamp(-1, 1), rtol=0, atol=1e-3)
