"""Batches of the tokenizer's training: neighbours and padding change nothing, and targets are shifted by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiollm.tokenizer import UniAudioTokenizer, UniAudioTokenizerConfig
from audiollm.tokenizer.signal.log_mel import LogMelFeatures
from audiollm.training.audio_tokenizer.batches import TokenizerBatch, collate_examples
from audiollm.training.audio_tokenizer.records import TokenizerExample

LENGTHS = [1, 640, 5000, 16_007, 32_000]


def make_examples(lengths: list[int]) -> list[TokenizerExample]:
    generator = torch.Generator().manual_seed(3)
    return [
        TokenizerExample(
            index=number,
            id=f"clip-{number}",
            where=f"train.jsonl:{number + 1}",
            waveform=torch.randn(length, generator=generator) * 0.1,
            task=("asr", "sap")[number % 2],
            token_ids=[90, *range(number), 91],
            sound_type="speech",
        )
        for number, length in enumerate(lengths)
    ]


def collate(examples: list[TokenizerExample], pad_to_seconds: float | None = None) -> TokenizerBatch:
    return collate_examples(examples, LogMelFeatures(80), token_stride=640, pad_id=7, pad_to_seconds=pad_to_seconds)


@pytest.fixture(scope="module", params=[0, 1])
def model(request: pytest.FixtureRequest) -> UniAudioTokenizer:
    config = UniAudioTokenizerConfig(
        num_mel_bins=80, d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32,
        max_source_positions=1500, pooling_kernel_size=2, pooling_position=request.param, quantize_position=2,
        quantize_vocab_size=16, init_std=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    return UniAudioTokenizer(config).eval()


def hidden_of(model: UniAudioTokenizer, batch: TokenizerBatch) -> list[Tensor]:
    with torch.no_grad():
        hidden_BTD = model.pre_quantizer_features(batch.input_features, batch.attention_mask)
    return [row[:length] for row, length in zip(hidden_BTD, batch.num_codes.tolist(), strict=True)]


def test_a_clip_is_heard_in_a_batch_as_alone_and_as_encode_hears_it(model: UniAudioTokenizer) -> None:
    examples = make_examples(LENGTHS)
    together = hidden_of(model, collate(examples))
    for example, rows in zip(examples, together, strict=True):
        (alone,) = hidden_of(model, collate([example]))
        torch.testing.assert_close(rows, alone, atol=1e-5, rtol=1e-4)
        encoded = model.encode([example.waveform], 16_000, return_features=True)
        assert encoded.features is not None
        torch.testing.assert_close(rows, encoded.features[0], atol=1e-5, rtol=1e-4)


def test_silence_behind_a_clip_is_heard_like_a_longer_recording_and_masked() -> None:
    examples = make_examples([5000, 16_007])
    batch = collate(examples, pad_to_seconds=2.0)
    assert batch.input_features.shape == (2, 80, 200)
    silence = torch.cat([examples[0].waveform, torch.zeros(32_000 - 5000)])
    torch.testing.assert_close(batch.input_features[0], LogMelFeatures(80)(silence[None])[0])
    assert batch.attention_mask.sum(dim=1).tolist() == [32, 101]  # mel frames that start inside the clip
    assert batch.num_codes.tolist() == [8, 26]
    with pytest.raises(ValueError, match=r"train\.jsonl:2: lasts 1\.00 s.*pad_to_seconds=0\.5"):
        collate(examples, pad_to_seconds=0.5)


def test_lengths_round_up_to_whole_codes_only() -> None:
    batch = collate(make_examples(LENGTHS))
    assert batch.num_codes.tolist() == [1, 1, 8, 26, 50]
    assert batch.num_frames == 86
    assert batch.input_features.shape == (5, 80, 200)
    assert batch.attention_mask.shape == (5, 200)
    # The first mel frame of every code is what pooled masks keep.
    assert batch.attention_mask[:, ::4].sum(dim=1).tolist() == batch.num_codes.tolist()
    assert bool((batch.input_features[2, :, 32:] == 0).all())
    assert batch.seconds == pytest.approx(sum(LENGTHS) / 16_000)


def test_inputs_and_labels_are_the_target_shifted_by_one() -> None:
    examples = make_examples([640, 640, 640, 640])
    batch = collate(examples)
    assert batch.decoder_input_ids.tolist()[1] == [90, 0, 7, 7]
    assert batch.labels.tolist()[1] == [0, 91, -100, -100]
    assert batch.decoder_input_ids.tolist()[3] == [90, 0, 1, 2]
    assert batch.labels.tolist()[3] == [0, 1, 2, 91]
    assert batch.num_targets == sum(len(example.token_ids) - 1 for example in examples)
    assert batch.tasks == ["asr", "sap", "asr", "sap"]
    assert batch.ids == [f"clip-{number}" for number in range(4)]
    assert len(batch) == 4


def test_places_are_those_of_the_update() -> None:
    examples = make_examples([640, 640])
    assert collate(examples).example_ids.tolist() == [0, 1]
    placed = collate_examples(examples, LogMelFeatures(80), token_stride=640, pad_id=7, positions=[5, 3])
    assert placed.example_ids.tolist() == [5, 3]
    moved = placed.to("meta")
    assert moved.input_features.device.type == moved.labels.device.type == "meta"
    assert moved.ids == placed.ids


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one clip"):
        collate([])
