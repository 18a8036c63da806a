"""Settings that do not fit together are refused with the key and the fix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audiollm.tokenizer import UniAudioTokenizerConfig


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"quantize_position": 5}, "quantize_position=5: the encoder has 4 layers"),
        ({"quantize_position": 0}, "quantize_position=0"),
        ({"pooling_position": 4}, "pooling_position=4 must lie between 0 and quantize_position=3"),
        ({"pooling_type": "mean"}, "pooling_type='mean': use 'max' or 'avg'"),
        ({"pooling_kernel_size": 0}, "pooling_kernel_size=0"),
        ({"quantize_vocab_size": 0}, "quantize_vocab_size=0"),
        ({"quantize_ema_decay": 1.5}, r"quantize_ema_decay=1\.5"),
        ({"quantize_restart_interval": 0}, "quantize_restart_interval=0"),
        ({"quantize_metric_size": 0}, "quantize_metric_size=0: use 1 to 16, or null"),
        ({"quantize_metric_size": 17}, "quantize_metric_size=17"),
        ({"quantize_causal_block_size": 1}, "quantize_causal_block_size=1 is smaller than pooling_kernel_size=2"),
        ({"encoder_residual_target_position": None}, "set both, or neither"),
        ({"encoder_residual_source_position": 4}, "encoder_residual_source_position=4 must be at least 1 and at most"),
        ({"encoder_attention_heads": 0}, "encoder_attention_heads=0: use at least 1"),
        ({"d_model": 0}, "d_model=0: use a positive number"),
        ({"encoder_ffn_dim": -1}, "encoder_ffn_dim=-1: use a positive number"),
        ({"num_mel_bins": 0}, "num_mel_bins=0: use a positive number"),
        ({"activation_function": "gleu"}, "activation_function='gleu': transformers has none"),
        ({"dropout": 1.5}, r"dropout=1\.5: use 0 to 1"),
        ({"activation_dropout": float("nan")}, "activation_dropout=nan: use 0 to 1"),
        ({"d_model": 15}, "d_model=15 is not a multiple of encoder_attention_heads=2"),
    ],
)
def test_refusals(tiny_config: Callable[..., UniAudioTokenizerConfig], overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_config(**overrides)


def test_save_and_load(tiny_config: Callable[..., UniAudioTokenizerConfig], tmp_path: Path) -> None:
    config = tiny_config(quantize_causal_block_size=50)
    config.save_pretrained(tmp_path)
    loaded = UniAudioTokenizerConfig.from_pretrained(tmp_path)
    assert loaded.quantize_causal_block_size == 50
    assert loaded.to_diff_dict() | {"transformers_version": ""} == config.to_diff_dict() | {"transformers_version": ""}


@pytest.mark.parametrize(
    ("positions", "kernel", "expected"),
    [
        (1500, 2, 480_000),
        (1500, 4, 480_000),
        (1500, 7, 479_360),
        (258, 4, 81_920),
        (1505, 7, 480_000),
        (100, None, 32_000),
    ],
)
def test_segments_fit_the_position_table(
    tiny_config: Callable[..., UniAudioTokenizerConfig], positions: int, kernel: int | None, expected: int
) -> None:
    config = tiny_config(max_source_positions=positions, pooling_kernel_size=kernel)
    assert config.segment_samples == expected
    assert -(-config.segment_samples // config.token_stride) * config.token_stride <= positions * 320
