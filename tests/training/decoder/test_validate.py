"""A decoder is measured whole and in parts."""

from __future__ import annotations

import json

import pytest
import soundfile
import torch

from audiollm.tokenizer.decoder.model import WaveformDecoder
from audiollm.training.decoder.parts import save_part
from audiollm.training.decoder.validate import ValidationConfig, validate
from audiollm.training.decoder.validation import QUICK_METRICS


class Listener:
    """Hears the same word everywhere; used as the recognizer."""

    def __init__(self, *arguments, **options) -> None:
        pass

    def transcribe(self, waveforms, sample_rate):
        return ["red" for _ in waveforms]


@pytest.fixture
def decoder(decoder_parts) -> WaveformDecoder:
    torch.manual_seed(0)
    return WaveformDecoder(decoder_parts.tiny_decoder()).eval()


def test_a_decoder_is_validated_whole_and_in_parts(decoder, decoder_corpus, tmp_path, monkeypatch):
    decoder.save_pretrained(tmp_path / "decoder")
    monkeypatch.setattr("audiollm.training.decoder.validate.Transcriber", Listener)
    settings = {
        "data": str(decoder_corpus.dev), "metrics": QUICK_METRICS, "max_clips": 2, "write_clips": 1,
        "cache_dir": str(tmp_path / "cache"),
    }  # fmt: skip
    whole = validate(
        ValidationConfig(
            decoder=str(tmp_path / "decoder"), output_dir=str(tmp_path / "a"), asr="listener", stream=True, **settings
        )
    )
    lengths = {len(soundfile.read(path)[0]) for path in (tmp_path / "a" / "clips").glob("*.wav")}
    assert len(lengths) == 1  # a stream is as long as the clip decoded at once
    assert whole["systems"]["streamed"]["mel_distance"] != whole["systems"]["decoded"]["mel_distance"]
    assert whole["num_clips"] == 2
    assert {*whole["systems"]["decoded"]} == {"mel_distance", "mcd", "wer", "num_words"}
    assert whole["systems"]["decoded"]["mel_distance"] > 0
    assert json.loads((tmp_path / "a" / "metrics.json").read_text()) == whole
    assert len(list((tmp_path / "a" / "clips").iterdir())) == 5

    save_part(tmp_path / "vocoder", "vocoder", decoder.config, decoder.vocoder.state_dict())
    alone = validate(ValidationConfig(vocoder=str(tmp_path / "vocoder"), output_dir=str(tmp_path / "b"), **settings))
    assert {*alone["systems"]} == {"original", "copy_synthesis"}
    for metric in QUICK_METRICS:
        score = whole["systems"]["copy_synthesis"][metric]
        assert alone["systems"]["copy_synthesis"][metric] == pytest.approx(score, rel=1e-3)


def test_settings_that_cannot_work_are_refused():
    for wrong, message in (
        ({}, "either decoder or vocoder"),
        ({"decoder": "a", "vocoder": "b"}, "either decoder or vocoder"),
        ({"decoder": "a", "max_clips": 0}, "max_clips=0"),
        ({"vocoder": "a", "stream": True}, "no codes to stream"),
        ({"decoder": "a", "steps": 0}, "steps=0"),
    ):
        with pytest.raises(ValueError, match=message):
            ValidationConfig(data="x", output_dir="y", **wrong)
