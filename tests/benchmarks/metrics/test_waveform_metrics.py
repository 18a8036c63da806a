"""Metrics of sound: exact where theory gives the value, monotone where it does not, refused where it would mislead."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from audiollm.benchmarks.metrics import load_metric
from audiollm.data.audio.reading import load_audio
from audiollm.data.audio.waveforms import resample
from audiollm.data.corpora.sample_corpus import load_sample_corpus
from audiollm.tokenizer.signal.mel import MelConfig, MelSpectrogram

NAMES = ("mel_distance", "mcd", "stoi", "pesq")
BEST = {"mel_distance": 0.0, "mcd": 0.0, "stoi": 1.0, "pesq": 4.64}


@pytest.fixture(autouse=True)
def _modules_in_a_temporary_folder(tmp_path, monkeypatch):
    # evaluate copies the modules it loads into its cache.
    monkeypatch.setattr("evaluate.config.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", tmp_path / "metrics")


@pytest.fixture(scope="module")
def speech():
    """Real speech, 16 kHz, float32 [N]."""
    clip = next(clip for clip in load_sample_corpus() if clip.language == "en" and clip.duration_seconds > 2)
    return load_audio(clip.audio, 16000)[0]


def noisy(speech, amplitude):
    return speech + amplitude * torch.randn(len(speech), generator=torch.Generator().manual_seed(0))


def score(name, prediction, reference, rates=(16000, 16000), **settings):
    scores = load_metric(name).compute(
        predictions=[np.asarray(prediction)],
        references=[np.asarray(reference)],
        prediction_sample_rate=rates[0],
        reference_sample_rate=rates[1],
        **settings,
    )
    assert scores["scores"] == [scores[name]]
    return scores[name]


@pytest.mark.parametrize("name", NAMES)
def test_equal_speech_scores_best_and_more_noise_scores_worse(name, speech):
    scores = [score(name, noisy(speech, amplitude), speech) for amplitude in (0.0, 0.01, 0.1)]
    assert scores[0] == pytest.approx(BEST[name], abs=0.01)
    assert scores == sorted(scores, reverse=name in ("stoi", "pesq"))
    assert abs(scores[2] - scores[0]) > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_of_a_recording_does_not_matter(name, speech):
    other_rate = resample(noisy(speech, 0.01), 16000, 48000)
    same = score(name, noisy(speech, 0.01), speech)
    assert score(name, other_rate, speech, rates=(48000, 16000)) == pytest.approx(same, rel=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_the_longer_one_is_cut_and_more_than_a_little_is_refused(name, speech):
    prediction = noisy(speech, 0.01)
    longer = torch.cat([prediction, torch.ones(1600)])
    assert score(name, longer, speech) == score(name, prediction, speech)
    # Cut by the clock, not by the number of samples.
    with pytest.raises(ValueError, match=r"prediction 0 is .* s shorter than its reference; cut or pad"):
        score(name, prediction, speech, rates=(32000, 16000))
    too_long = torch.cat([prediction, torch.ones(4800)])
    with pytest.raises(ValueError, match=r"0\.300 s longer .*max_length_difference_seconds \(0\.25\)"):
        score(name, too_long, speech)
    assert score(name, too_long, speech, max_length_difference_seconds=0.31) == score(name, prediction, speech)


@pytest.mark.parametrize("name", NAMES)
def test_clips_without_a_score_are_counted_not_averaged(name, speech):
    scores = load_metric(name).compute(
        predictions=[speech.numpy(), np.zeros(200, dtype=np.float32)],
        references=[speech.numpy(), np.zeros(200, dtype=np.float32)],
        prediction_sample_rate=16000,
        reference_sample_rate=16000,
    )
    assert (scores["scores"][1], scores["num_unscored"]) == (None, 1)
    assert scores[name] == scores["scores"][0] == pytest.approx(BEST[name], abs=0.01)
    assert score(name, torch.zeros(200), torch.zeros(200)) is None


@pytest.mark.parametrize("name", ["stoi", "pesq"])
@pytest.mark.parametrize("num_samples", [1, 4000, 5000, 6400, 16000])
def test_silence_has_no_score(name, num_samples):
    assert score(name, torch.zeros(num_samples), torch.zeros(num_samples)) is None


@pytest.mark.parametrize(
    ("waveform", "message"),
    [(torch.zeros(0), "prediction 0 is empty"), (torch.full((9,), float("nan")), "prediction 0 holds NaN")],
)
def test_what_cannot_be_compared_is_named(waveform, message):
    with pytest.raises(ValueError, match=message):
        score("mcd", waveform, torch.zeros(9))


def test_twice_the_amplitude_is_a_mel_distance_of_log_two_and_no_cepstral_distortion():
    noise = 0.2 * torch.randn(22050, generator=torch.Generator().manual_seed(0))
    assert score("mel_distance", 2 * noise, noise, (22050, 22050)) == pytest.approx(math.log(2), abs=1e-4)
    assert score("mcd", 2 * noise, noise, (22050, 22050)) == pytest.approx(0, abs=1e-3)


def test_mcd_is_the_root_mean_square_difference_of_smooth_spectra_in_decibels(monkeypatch):
    # Spectra that differ by A cos(3·) + B cos(13·) differ by an rms of √((A² + B²) / 2); ln to dB is 20 / ln 10.
    angles = torch.pi * (torch.arange(80) + 0.5) / 80
    difference = 0.3 * (3 * angles).cos() + 0.4 * (13 * angles).cos() + 7.0 + 5.0 * (14 * angles).cos()
    spectra = iter([difference[:, None].expand(80, 6), torch.zeros(80, 6)])
    monkeypatch.setattr(MelSpectrogram, "forward", lambda self, waveform: next(spectra))
    distortion = score("mcd", torch.zeros(2048), torch.zeros(2048), (22050, 22050))
    assert distortion == pytest.approx(20 / math.log(10) * math.sqrt((0.3**2 + 0.4**2) / 2), rel=1e-5)


def test_mel_distance_is_the_mean_over_bands_and_frames(speech):
    mel = MelSpectrogram(MelConfig())
    prediction, reference = (resample(x, 16000, 22050) for x in (noisy(speech, 0.01), speech))
    expected = (mel(prediction) - mel(reference)).abs().mean()
    assert score("mel_distance", prediction, reference, (22050, 22050)) == pytest.approx(float(expected), rel=1e-6)


def test_long_speech_is_scored_in_equal_pieces_and_those_without_speech_are_left_out(monkeypatch):
    # In one piece, minutes of speech crash the library.
    class NoUtterancesError(Exception):
        pass

    lengths = []

    def quality(sample_rate, reference, prediction, mode):
        lengths.append(len(reference))
        assert (sample_rate, mode, len(prediction)) == (16000, "wb", len(reference))
        assert (reference[0], prediction[0]) == (0.5, 0.25)
        if len(lengths) == 2:
            raise NoUtterancesError
        return float(len(lengths))

    monkeypatch.setitem(sys.modules, "pesq", SimpleNamespace(pesq=quality, NoUtterancesError=NoUtterancesError))
    num_samples = 41 * 16000
    assert score("pesq", torch.full((num_samples,), 0.25), torch.full((num_samples,), 0.5)) == 2.0  # (1 + 3) / 2
    assert len(lengths) == 3
    assert sum(lengths) == num_samples
    assert max(lengths) - min(lengths) <= 1


def test_extended_intelligibility_is_another_measure(speech):
    assert score("stoi", noisy(speech, 0.03), speech, extended=True) < score("stoi", noisy(speech, 0.03), speech)


@pytest.mark.parametrize(("name", "library"), [("stoi", "pystoi"), ("pesq", "pesq")])
def test_a_missing_library_names_the_extra(monkeypatch, name, library, speech):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"needs {library}: run `pip install 'audiollm\[bench\]'`"):
        score(name, speech, speech)


def test_clips_of_different_lengths_make_one_batch_and_tensors_are_taken(speech):
    clips = [speech[:30000], speech[:20000]]
    scores = load_metric("stoi").compute(
        predictions=[noisy(clip, 0.01) for clip in clips],
        references=clips,
        prediction_sample_rate=16000,
        reference_sample_rate=16000,
    )
    assert scores["stoi"] == pytest.approx(sum(scores["scores"]) / 2)
    assert scores["scores"] == [score("stoi", noisy(clip, 0.01), clip) for clip in clips]
