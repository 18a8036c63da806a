from __future__ import annotations

import pytest

from audiollm.training.audio_tokenizer import memory as activation_memory
from audiollm.training.audio_tokenizer.memory import ModelSize, activation_bytes

TINY = ModelSize(d_model=32, heads=2, encoder_layers=5, decoder_layers=4, num_mel_bins=80)


def test_what_is_extrapolated_is_what_the_whole_model_keeps():
    model = activation_memory._random_model(TINY, 5, 4)
    one, two = (activation_memory._kept_bytes(model, clips, 3.0, 20, False) for clips in (1, 2))
    measured = two - one
    assert activation_bytes(TINY, seconds=3.0, tokens=20) == pytest.approx(measured, rel=0.01)


def test_memory_grows_with_the_clip_and_recomputing_saves_most_of_it():
    short, long = (activation_bytes(TINY, seconds=seconds, tokens=20) for seconds in (3.0, 6.0))
    assert 1.7 * short < long < 2.1 * short
    assert activation_bytes(TINY, seconds=6.0, tokens=20, gradient_checkpointing=True) < 0.6 * long
    assert activation_bytes(TINY, seconds=6.0, tokens=20, mixed_precision="bf16") < long


def test_sizes_that_make_no_model_are_refused():
    with pytest.raises(ValueError, match=r"d_model=10 is not a multiple of heads=4"):
        ModelSize(d_model=10, heads=4)
