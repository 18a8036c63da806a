"""Speaker encoders: found by name, taken from others, and ours tells real voices apart."""

import itertools
import math
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from audiollm.data import plugins
from audiollm.data.audio.reading import load_audio
from audiollm.data.audio.waveforms import resample
from audiollm.data.audio.writing import save_audio
from audiollm.data.corpora.sample_corpus import load_sample_corpus
from audiollm.data.packages import PackageError
from audiollm.data.voices import encoders as speakers
from audiollm.data.voices.encoders import (
    SpeakerEncoder,
    available_speaker_encoders,
    embed_recording,
    load_speaker_encoder,
    register_speaker_encoder,
)
from audiollm.data.voices.resemblyzer import ResemblyzerEncoder, raise_level, read_resemblyzer, shorten_pauses


class Loudness:
    """A tiny encoder of someone else's."""

    embedding_size = 2

    def __init__(self, device=None):
        self.device = device

    def embed(self, waveform, sample_rate):
        return F.normalize(torch.tensor([float(waveform.abs().mean()), 1.0]), dim=0)


@pytest.fixture(autouse=True)
def _registry_as_it_was(monkeypatch):
    monkeypatch.setattr(speakers._encoders, "_factories", dict(speakers._encoders._factories))


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return ResemblyzerEncoder().eval()


@pytest.fixture(scope="module")
def speech():
    clip = next(clip for clip in load_sample_corpus() if clip.language == "en" and clip.duration_seconds > 3)
    return load_audio(clip.audio, 16000)[0]


# --- the registry -----------------------------------------------------------------------------------------------------


def test_a_registered_encoder_is_loaded_by_name_with_the_device(tmp_path):
    register_speaker_encoder("loudness", Loudness)
    assert available_speaker_encoders() == ["loudness", "resemblyzer"]
    loaded = load_speaker_encoder("loudness", "meta")
    assert loaded.device == torch.device("meta")
    save_audio(tmp_path / "a.wav", torch.ones(100) / 2, 8000)
    torch.testing.assert_close(embed_recording(loaded, tmp_path / "a.wav"), torch.tensor([1.0, 2.0]) / math.sqrt(5))


def test_an_installed_package_adds_an_encoder(monkeypatch):
    entry = EntryPoint("theirs", f"{__name__}:Loudness", speakers.ENTRY_POINT_GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: Loudness)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry] if group == "audiollm.speaker_encoders" else [])
    assert available_speaker_encoders() == ["resemblyzer", "theirs"]
    assert isinstance(load_speaker_encoder("theirs"), Loudness)


def test_a_taken_name_is_refused_unless_replaced():
    with pytest.raises(ValueError, match="there is a speaker encoder 'resemblyzer' already"):
        register_speaker_encoder("resemblyzer", Loudness)
    register_speaker_encoder("resemblyzer", Loudness, replace=True)
    assert isinstance(load_speaker_encoder(), Loudness)


def test_unknown_names_and_things_that_are_no_encoder_are_refused():
    with pytest.raises(ValueError, match=r"no speaker encoder 'ecapa'; there are resemblyzer"):
        load_speaker_encoder("ecapa")
    register_speaker_encoder("wrong", lambda device: object())
    with pytest.raises(ValueError, match=r"'wrong' is a object without embedding_size and embed\(\)"):
        load_speaker_encoder("wrong")
    with pytest.raises(ValueError, match="needs a name"):
        register_speaker_encoder("", Loudness)


# --- the network, with random weights ---------------------------------------------------------------------------------


def test_ours_is_a_speaker_encoder_of_unit_vectors(encoder, speech):
    assert isinstance(encoder, SpeakerEncoder)
    vector = encoder.embed(speech, 16000)
    assert vector.shape == (encoder.embedding_size,) == (256,)
    assert vector.dtype == torch.float32
    assert float(vector.norm()) == pytest.approx(1, abs=1e-5)


@torch.no_grad()
def test_the_vector_is_the_mean_over_windows_of_the_plain_network(encoder):
    noise = torch.randn(480 * 200, generator=torch.Generator().manual_seed(0))  # loud, without pauses: taken as it is
    vectors = []
    for window in encoder._windows(noise):
        hidden, _ = encoder.lstm(window[None])
        vector = encoder.linear(hidden[0, -1]).clamp(min=0)
        vectors.append(vector / vector.norm())
    assert len(vectors) > 1
    mean = torch.stack(vectors).mean(dim=0)
    torch.testing.assert_close(encoder.embed(noise, 16000), mean / mean.norm())


@pytest.mark.parametrize("num_samples", [1, 25599, 25600, 25601, 37919, 37920, 57120, 57119, 200_000])
def test_windows_cover_the_recording_and_nearly_empty_ones_are_left_out(encoder, num_samples):
    windows = encoder._windows(torch.randn(num_samples))
    assert windows.shape[1:] == (160, 40)
    # Windows start every 0.77 s; one counts if at least three quarters of its 1.6 s are sound, and the first always.
    starts = [start for start in range(0, num_samples, 12320) if num_samples - start >= 0.75 * 25600]
    last_needed = next((n for n, start in enumerate(starts) if start + 25600 >= num_samples), len(starts) - 1)
    assert len(windows) == max(1, last_needed + 1)


def test_loudness_rate_and_pauses_hardly_matter(encoder, speech):
    vector = encoder.embed(speech, 16000)
    quiet, very_quiet = encoder.embed(speech * 0.01, 16000), encoder.embed(speech * 0.001, 16000)
    torch.testing.assert_close(quiet, very_quiet)
    assert float(vector @ encoder.embed(resample(speech, 16000, 44100), 44100)) > 0.999
    pause = torch.zeros(5 * 16000)
    assert float(vector @ encoder.embed(torch.cat([pause, speech, pause]), 16000)) > 0.99


def test_quiet_recordings_are_raised_and_loud_ones_stay():
    tone = torch.ones(100)
    torch.testing.assert_close(raise_level(tone * 0.001), tone * 10**-1.5)
    assert torch.equal(raise_level(tone * 0.1), tone * 0.1)


def test_long_pauses_become_short_and_the_voice_stays():
    frame = torch.ones(480)
    voice, pause = frame.repeat(10), torch.zeros(480 * 50)
    shortened = shorten_pauses(torch.cat([voice, pause, voice]))
    assert len(shortened) == 480 * (10 + 3 + 3 + 10)
    assert shortened.sum() == 20 * 480
    assert torch.equal(
        shorten_pauses(torch.cat([voice, pause[: 480 * 6], voice])), torch.cat([voice, pause[:2880], voice])
    )
    assert len(shorten_pauses(torch.ones(479))) == 479


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (torch.zeros(0), "no voice in 0 samples"),
        (torch.zeros(16000), "no voice in 16000 samples of silence"),
        (torch.full((9,), float("nan")), "NaN"),
        (torch.zeros(2, 9), r"\[2, 9\]"),
        (torch.zeros(9, dtype=torch.int16), "int16"),
    ],
)
def test_what_holds_no_voice_is_refused(encoder, waveform, message):
    with pytest.raises(ValueError, match=message):
        encoder.embed(waveform, 16000)


def test_a_sound_only_in_the_last_milliseconds_still_gives_a_vector(encoder):
    assert bool(encoder.embed(torch.cat([torch.zeros(960), torch.ones(100)]), 16000).isfinite().all())


# --- weights ----------------------------------------------------------------------------------------------------------


def test_weights_are_read_strictly_and_without_running_code(tmp_path, encoder):
    weights = dict(encoder.state_dict()) | {"similarity_weight": torch.ones(1), "similarity_bias": torch.ones(1)}
    torch.save({"model_state": weights, "step": 1}, tmp_path / "good.pt")
    loaded = read_resemblyzer(tmp_path / "good.pt")
    assert not loaded.training
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("linear.bias"), r"missing: linear\.bias"),
        (lambda w: w.update(other=torch.zeros(1)), "unknown: other"),
        (lambda w: w.update({"linear.bias": torch.zeros(3)}), r"linear\.bias \[3\] instead of \[256\]"),
        (lambda w: w.update({"linear.bias": torch.full((256,), torch.nan)}), r"NaN or infinity in linear\.bias"),
        (lambda w: w.update({"linear.bias": torch.zeros(1).expand(256)}), r"linear\.bias.*announces|announces more"),
        (lambda w: w.update({"linear.bias": [0.0]}), "holds no tensors by name"),
        (lambda w: w.update({"linear.bias": Path("code")}), "is refused: it holds code"),
    ],
)
def test_weights_that_are_not_its_own_are_named_and_no_code_runs(tmp_path, encoder, change, message):
    weights = dict(encoder.state_dict())
    change(weights)
    torch.save({"model_state": weights}, tmp_path / "other.pt")
    with pytest.raises(PackageError, match=rf"other\.pt does not hold .*({message})"):
        read_resemblyzer(tmp_path / "other.pt")


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_files_that_are_none_are_named(tmp_path, encoder, content):
    path = tmp_path / "none.pt"
    torch.save({"model_state": dict(encoder.state_dict())}, path)
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    with pytest.raises(PackageError, match=r"none\.pt does not hold"):
        read_resemblyzer(path)
    torch.save([1], path)
    with pytest.raises(PackageError, match="no tensors by name under model_state"):
        read_resemblyzer(path)


@pytest.mark.slow
def test_the_real_encoder_tells_real_voices_apart():
    try:
        real = load_speaker_encoder()
    except PackageError as error:
        pytest.skip(f"the package registry cannot be used here: {error}")
    voices: dict[str, list[torch.Tensor]] = {}
    for clip in load_sample_corpus():
        if clip.speaker and clip.duration_seconds > 2.5 and len(voices.setdefault(clip.speaker, [])) < 6:
            voices[clip.speaker].append(real.embed(*load_audio(clip.audio)))
    assert len(voices) == 5
    for vectors in voices.values():
        assert 0.82 < similarity(vectors, vectors) < 0.89
    for one, other in itertools.combinations(voices.values(), 2):
        assert 0.5 < similarity(one, other) < 0.76  # the highest is one woman who speaks two languages


def similarity(one, other) -> float:
    """Mean cosine over pairs of different recordings."""
    cosines = [float(a @ b) for a in one for b in other if a is not b]
    return sum(cosines) / len(cosines)
