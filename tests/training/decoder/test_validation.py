"""What is measured of a decoder's sound, and that it is measured on the right sounds."""

from __future__ import annotations

import json

import pytest
import soundfile
import torch

from audiollm.tokenizer.decoder.vocoder.model import HiFTVocoder
from audiollm.training.decoder import validation as decoder_validation
from audiollm.training.decoder.validation import (
    QUICK_METRICS,
    ValidationClip,
    measure,
    write_clips,
)

HEARD = {4000: "cat dog bird", 4100: "cat dog house", 4200: ""}  # by the number of samples


class Listener:
    """Hears what a waveform's length says; used as the recognizer."""

    source = "listener"

    def __init__(self, *arguments, **options) -> None:
        pass

    def transcribe(self, waveforms, sample_rate):
        return [HEARD.get(len(waveform), "red") for waveform in waveforms]


def noise(num_samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(num_samples, generator=torch.Generator().manual_seed(seed))


def clips() -> list[ValidationClip]:
    original = noise(4000)
    worse = torch.cat([original + noise(4000, seed=1), torch.zeros(100)])
    return [
        ValidationClip("a/1", "Cat, dog, bird.", {"original": original, "decoded": worse}),
        ValidationClip("a 1", "Cat, dog, bird.", {"original": original, "decoded": torch.cat([worse, noise(100)])}),
        ValidationClip("silent", None, {"original": original, "decoded": original}),
    ]


def test_systems_are_measured_against_the_originals_and_the_texts():
    result = measure(clips(), 22050, metrics=QUICK_METRICS, transcriber=Listener())
    assert result["num_clips"] == 3
    assert result["seconds"] == pytest.approx(3 * 4000 / 22050)
    original, decoded = result["systems"]["original"], result["systems"]["decoded"]
    assert original == {"wer": 0.0, "num_words": 6}
    assert decoded["wer"] == pytest.approx(4 / 6)  # one word wrong, three not heard; without a text no words
    rows = result["clips"]
    assert [row["systems"]["decoded"].get("wer") for row in rows] == [pytest.approx(1 / 3), 1.0, None]
    assert rows[0]["systems"]["decoded"]["transcript"] == "cat dog house"
    for metric in QUICK_METRICS:
        scores = [row["systems"]["decoded"][metric] for row in rows]
        assert scores[2] == 0 < scores[0]
        assert decoded[metric] == pytest.approx(sum(scores) / 3)
    json.dumps(result, allow_nan=False)


def test_without_texts_there_is_no_word_error_rate():
    result = measure(clips()[2:], 22050, metrics=(), transcriber=Listener())
    assert result["systems"]["decoded"] == {"wer": None, "num_words": 0}
    with pytest.raises(ValueError, match="no clips"):
        measure([], 22050)


def test_names_of_files_are_safe_and_differ_where_ids_look_alike(decoder_parts, tmp_path):
    write_clips(clips()[:2], decoder_parts.tiny_decoder().mel, tmp_path / "clips")
    assert sorted(path.name for path in (tmp_path / "clips").iterdir()) == [
        "000_a_1.decoded.wav", "000_a_1.original.wav", "000_a_1.png",
        "001_a_1.decoded.wav", "001_a_1.original.wav", "001_a_1.png",
    ]  # fmt: skip
    waveform, sample_rate = soundfile.read(tmp_path / "clips" / "000_a_1.original.wav", dtype="float32")
    assert sample_rate == 22050
    assert torch.allclose(torch.from_numpy(waveform), clips()[0].waveforms["original"], atol=1e-4)


def test_copy_synthesis_is_the_vocoder_on_the_true_mel(decoder_parts):
    torch.manual_seed(0)
    sizes = decoder_parts.tiny_decoder()
    vocoder = HiFTVocoder(sizes.vocoder)
    mels = [torch.randn(20, 12), torch.randn(20, 9)]

    class Clips:
        def mel(self, clip):
            return mels[clip]

    synthesize = decoder_validation.copy_synthesis(vocoder, seed=3)
    first = synthesize(Clips(), 0)
    assert first.shape == (12 * 256,)
    assert not first.requires_grad
    assert torch.equal(first, synthesize(Clips(), 0))
    assert not torch.equal(first, decoder_validation.copy_synthesis(vocoder, seed=4)(Clips(), 0))
