"""What is drawn of a recording is what the tokenizer hears of it."""

from __future__ import annotations

import pytest
import torch

from audiollm import AudioLLM
from audiollm.serving.sound.uploads import Recording
from audiollm.serving.web.inspector.hearing import (
    LONGEST_SECONDS,
    hear,
    mel_picture,
    nearest_codes,
    outline,
    training_counts,
)
from audiollm.serving.web.inspector.rebuilding import mel_distance, rebuild
from audiollm.tokenizer.configuration import UniAudioTokenizerConfig
from audiollm.tokenizer.modeling import UniAudioTokenizer


def tiny(**changes: object) -> UniAudioTokenizer:
    """An untrained tokenizer with an SAE whose gate differs from frame to frame."""
    torch.manual_seed(0)
    settings: dict[str, object] = {
        "num_mel_bins": 80, "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
        "quantize_position": 2, "quantize_vocab_size": 64, "quantize_encoder_only": True, "pooling_kernel_size": 2,
        "encoder_residual_source_position": 1, "encoder_residual_target_position": 2, "use_residual_gate": True,
    }  # fmt: skip
    tokenizer = UniAudioTokenizer(UniAudioTokenizerConfig(**{**settings, **changes})).eval()
    if tokenizer.sae is not None:
        for parameter in tokenizer.sae.gate.parameters():
            torch.nn.init.normal_(parameter)
    return tokenizer


def noise(seconds: float, rate: int = 16_000) -> Recording:
    return Recording(0.2 * torch.randn(int(seconds * rate), generator=torch.Generator().manual_seed(1)), rate)


@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_codes_are_those_of_the_tokenizer_and_lie_on_one_axis_with_the_gate(rate: int) -> None:
    tokenizer, recording = tiny(), noise(1.3, rate)
    heard = hear(tokenizer, recording)
    assert torch.equal(heard.codes, tokenizer.encode([recording.waveform], rate)[0][0])
    assert heard.gate is not None
    assert len(heard.gate) % len(heard.codes) == 0
    assert heard.gate.min() >= 0
    assert heard.gate.max() <= 1
    assert heard.gate.std() > 0
    assert heard.commonness.shape == heard.codes.shape
    assert 0 < heard.commonness.min() <= heard.commonness.max() == 1
    assert heard.seconds == heard.shown_seconds == pytest.approx(1.3)
    assert len(heard.codes) == pytest.approx(1.3 * heard.frame_rate, abs=1)


def test_listening_to_the_gate_leaves_the_tokenizer_as_it_was() -> None:
    tokenizer = tiny()
    sae = tokenizer.sae
    hear(tokenizer, noise(0.5))
    assert tokenizer.sae is sae


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"use_residual_gate": False}, "no gate"),
        ({"encoder_residual_source_position": None, "encoder_residual_target_position": None}, "no SAE"),
    ],
)
def test_a_tokenizer_without_a_gate_says_so(changes: dict[str, object], why: str) -> None:
    heard = hear(tiny(**changes), noise(0.5))
    assert heard.gate is None
    assert why in heard.no_gate


def test_the_beginning_of_a_long_recording_is_shown() -> None:
    tokenizer = tiny()
    heard = hear(tokenizer, noise(LONGEST_SECONDS + 2))
    assert heard.shown_seconds == LONGEST_SECONDS
    assert len(heard.codes) == LONGEST_SECONDS * heard.frame_rate
    assert heard.mel.shape == (80, 100 * LONGEST_SECONDS)


def test_counts_of_training_colour_the_codes_where_the_checkpoint_has_them() -> None:
    tokenizer = tiny(quantize_ema_decay=0.9)
    assert training_counts(tokenizer) is None  # every code as if seen once: nothing is known
    assert hear(tokenizer, noise(0.5)).commonness_of == "recording"
    tokenizer.codebook.ema_count.copy_(torch.arange(64.0))
    heard = hear(tokenizer, noise(0.5))
    assert heard.commonness_of == "checkpoint"
    order = heard.codes.argsort()
    assert (heard.commonness[order].diff() >= 0).all()


def test_neighbours_are_the_nearest_entries_without_the_code_itself() -> None:
    tokenizer = tiny()
    entries = tokenizer.codebook.points()
    found = nearest_codes(tokenizer, [3, 3, 10], count=4)
    assert set(found) == {3, 10}
    for code, neighbours in found.items():
        distances = (entries - entries[code]).norm(dim=1)
        wanted = [other for other in distances.argsort().tolist() if other != code][:4]
        assert [other for other, _ in neighbours] == wanted
        assert [distance for _, distance in neighbours] == pytest.approx(distances[wanted].tolist(), rel=1e-3)


@pytest.mark.parametrize("num_samples", [1, 7, 5000])
def test_an_outline_holds_every_sample(num_samples: int) -> None:
    waveform = torch.randn(num_samples)
    lowest, highest = outline(waveform)
    assert len(lowest) == len(highest) <= 1200
    assert (lowest <= highest).all()
    assert lowest.min() == waveform.min()
    assert highest.max() == waveform.max()


@pytest.mark.parametrize("num_samples", [1, 100, 16_001])
def test_a_mel_picture_lies_between_0_and_1(num_samples: int) -> None:
    mel = mel_picture(Recording(torch.randn(num_samples), 16_000))
    assert mel.shape == (80, max(2, -(-num_samples // 160)))
    assert mel.min() == 0
    assert mel.max() <= 1


def test_a_recording_without_a_code_is_refused() -> None:
    with pytest.raises(ValueError, match="too short to give a code"):
        hear(tiny(), Recording(torch.zeros(0), 16_000))


def test_a_mel_distance_is_0_for_the_same_and_grows_with_the_loudness() -> None:
    recording = noise(0.5)
    louder = Recording(2 * recording.waveform, recording.sample_rate)
    assert mel_distance(recording, recording) == 0
    assert mel_distance(recording, louder) == pytest.approx(0.693, abs=0.01)
    assert mel_distance(noise(0.01), noise(0.01)) is None


def test_what_is_rebuilt_is_the_sound_of_its_codes_and_no_longer(mini: AudioLLM) -> None:
    made = rebuild(mini.processor.audio_tokenizer, noise(0.7))
    assert made.num_codes == 18
    assert made.bits_per_second == 325
    assert made.rebuilt.duration_seconds <= made.original.duration_seconds + 1e-4
    assert made.mel_distance is not None
    assert made.mel_distance > 0
