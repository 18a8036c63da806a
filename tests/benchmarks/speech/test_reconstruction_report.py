"""The report on a reconstruction: files that are there, scores that are right, the original always beside."""

import json
import re
import sys

import pytest
import torch

from audiollm.benchmarks.speech import reconstruction_report
from audiollm.benchmarks.speech.reconstruction_report import report_reconstruction
from audiollm.data.audio.reading import load_audio
from audiollm.data.audio.waveforms import resample
from audiollm.data.audio.writing import save_audio
from audiollm.data.corpora.sample_corpus import load_sample_corpus
from audiollm.reconstruction import ReconstructionResult


@pytest.fixture(autouse=True)
def _modules_in_a_temporary_folder(tmp_path, monkeypatch):
    # evaluate copies the modules it loads into its cache.
    monkeypatch.setattr("evaluate.config.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", tmp_path / "metrics")


class Recognizer:
    """Hears the first recording right and the second one wrong."""

    source = "a recognizer"

    def __init__(self, *texts):
        self.texts = list(texts)

    def transcribe(self, waveforms, sample_rate):
        return [self.texts.pop(0) for _ in waveforms]


def reconstruction(tmp_path, original, made, rate=22050):
    """A result whose files hold ``original`` at 16 kHz and ``made`` at another rate."""
    save_audio(tmp_path / "in.wav", original, 16000)
    save_audio(tmp_path / "out.wav", made, rate)
    return ReconstructionResult(
        source=str(tmp_path / "in.wav"),
        output=tmp_path / "out.wav",
        mono="first",
        codes=torch.arange(50) % 7,
        source_sample_rate=16000,
        source_seconds=len(original) / 16000,
        sample_rate=rate,
        num_samples=len(made),
        first_sound_seconds=0.5,
        total_seconds=1.5,
        settings={"steps": 10, "seed": 42},
    )


@pytest.fixture(scope="module")
def speech():
    clip = next(clip for clip in load_sample_corpus() if clip.language == "en" and clip.duration_seconds > 2)
    return load_audio(clip.audio, 16000)[0]


@pytest.fixture
def noisy_result(tmp_path, speech):
    noise = 0.02 * torch.randn(len(speech), generator=torch.Generator().manual_seed(0))
    return reconstruction(tmp_path, speech, resample((speech + noise).clamp(-1, 1), 16000, 22050))


def test_the_folder_holds_both_sounds_a_picture_and_the_scores(tmp_path, noisy_result, speech):
    recognizer = Recognizer("The cat sat on the mat.", "the cat sat on a mat")
    text = "the cat sat on the mat"
    report = report_reconstruction(noisy_result, tmp_path / "new" / "report", text=text, asr=recognizer)
    names = ["comparison.png", "metrics.json", "original.wav", "reconstructed.wav", "report.html", "report.md"]
    assert sorted(path.name for path in report.folder.iterdir()) == names
    assert torch.equal(load_audio(report.folder / "original.wav")[0], load_audio(noisy_result.source)[0])
    assert torch.equal(load_audio(report.folder / "reconstructed.wav")[0], load_audio(noisy_result.output)[0])
    assert (report.folder / "comparison.png").read_bytes().startswith(b"\x89PNG")

    assert report.original["wer"] == 0
    assert report.reconstructed["wer"] == pytest.approx(1 / 6)
    assert report.original["stoi"] == pytest.approx(1, abs=1e-3)
    assert 0.5 < report.reconstructed["stoi"] < 0.99
    assert report.original["pesq"] == pytest.approx(4.64, abs=0.01)
    assert 1 <= report.reconstructed["pesq"] < 4
    assert report.original["mel_distance"] == report.original["mcd"] == 0
    assert min(report.reconstructed["mel_distance"], report.reconstructed["mcd"]) > 0.1

    saved = json.loads((report.folder / "metrics.json").read_text())
    assert saved["original"] == report.original
    assert saved["reconstructed"] == report.reconstructed
    assert saved["reference_text"] == text
    assert not saved["reference_is_transcript"]
    assert saved["transcripts"]["reconstructed"] == "the cat sat on a mat"
    for name in ("report.md", "report.html"):
        page = (report.folder / name).read_text()
        assert page.index("original") < page.index("reconstructed")
        for expected in ("16.7%", "4.644", "WER", "comparison.png", "original.wav", "a recognizer", "seed 42"):
            assert expected in page, (name, expected)
        assert "by definition" not in page


def test_without_a_text_the_transcript_of_the_original_is_the_reference_and_the_page_says_so(tmp_path, noisy_result):
    recognizer = Recognizer("red green blue black", "red green blue")
    report = report_reconstruction(noisy_result, tmp_path / "report", asr=recognizer, metrics=("mcd",))
    assert (report.reference_text, report.reference_is_transcript) == ("red green blue black", True)
    assert (report.original["wer"], report.reconstructed["wer"]) == (0.0, 0.25)
    assert set(report.original) == {"wer", "mcd"}
    assert "zero by definition" in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.parametrize(
    ("language", "text", "heard", "expected"),
    [
        (None, "two colours", "2 colors", 0.0),  # English spellings and numbers are one
        ("fr", "deux couleurs", "Deux, couleur!", 0.5),
        ("zh", "今天很好", "今天好", 0.25),  # characters, for there are no spaces
    ],
)
def test_the_language_decides_how_texts_are_compared(tmp_path, noisy_result, language, text, heard, expected):
    recognizer = Recognizer(text, heard)
    report = report_reconstruction(
        noisy_result, tmp_path / "report", text=text, asr=recognizer, language=language, metrics=()
    )
    assert (report.original["wer"], report.reconstructed["wer"]) == (0.0, expected)


def test_without_a_recognizer_there_is_no_word_error_rate(tmp_path, noisy_result):
    report = report_reconstruction(noisy_result, tmp_path / "report", metrics=("mel_distance",))
    assert list(report.original) == ["mel_distance"]
    assert report.transcripts == {}
    assert "WER" not in (tmp_path / "report" / "report.html").read_text()


def test_long_recordings_are_scored_in_equal_pieces(tmp_path, monkeypatch, noisy_result):
    whole = report_reconstruction(noisy_result, tmp_path / "whole", metrics=("mel_distance",)).reconstructed
    monkeypatch.setattr(reconstruction_report, "PIECE_SECONDS", noisy_result.source_seconds / 1.5)
    in_pieces = report_reconstruction(noisy_result, tmp_path / "pieces", metrics=("mel_distance",)).reconstructed
    assert in_pieces["mel_distance"] == pytest.approx(whole["mel_distance"], rel=0.05)
    assert in_pieces != whole

    class Metric:
        def compute(self, predictions, references, prediction_sample_rate, reference_sample_rate):
            assert len(predictions) == len(references) == 2
            for pieces, rate in ((predictions, prediction_sample_rate), (references, reference_sample_rate)):
                assert [len(piece) / rate for piece in pieces] == pytest.approx(
                    [noisy_result.source_seconds / 2] * 2, abs=1e-3
                )
            return {"mel_distance": 1.5}

    monkeypatch.setattr(reconstruction_report, "load_metric", lambda name: Metric())
    report = report_reconstruction(noisy_result, tmp_path / "fake", metrics=("mel_distance",))
    assert report.original == report.reconstructed == {"mel_distance": 1.5}


def test_silence_has_scores_or_a_dash_but_no_crash(tmp_path):
    result = reconstruction(tmp_path, torch.zeros(160), torch.zeros(220))
    report = report_reconstruction(result, tmp_path / "report", asr=Recognizer("", ""))
    assert report.reconstructed == dict.fromkeys(("wer", "stoi", "pesq", "mel_distance", "mcd"))
    assert re.search(r"\| reconstructed \|( – \|){5}", (tmp_path / "report" / "report.md").read_text())
    assert "cannot be computed" in (tmp_path / "report" / "report.md").read_text()


def test_texts_and_names_cannot_break_the_pages(tmp_path, noisy_result):
    recognizer = Recognizer("<b>a|b", "<b>a|b")
    report_reconstruction(noisy_result, tmp_path / "report", asr=recognizer, metrics=())
    assert "<b>a" not in (tmp_path / "report" / "report.html").read_text()
    assert r"a\|b" in (tmp_path / "report" / "report.md").read_text()


def test_what_cannot_be_reported_is_refused_before_the_work(tmp_path, noisy_result, monkeypatch):
    with pytest.raises(ValueError, match=r"no metric 'mos' of reconstructions; there are stoi, pesq"):
        report_reconstruction(noisy_result, tmp_path / "report", metrics=("mos",))
    with pytest.raises(ValueError, match=r"pass asr, such as whisper-tiny\.en"):
        report_reconstruction(noisy_result, tmp_path / "report", text="hello")
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(ImportError, match=r"audiollm\[bench\]"):
        report_reconstruction(noisy_result, tmp_path / "report")
    assert not (tmp_path / "report").exists()
