"""The arguments of `generate` become settings, checked before anything runs."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

from audiollm.generation.sampling import SamplingSettings
from audiollm.generation.settings import GenerationSettings
from audiollm.modeling import AudioLLM


def test_arguments_are_sorted_into_ours_and_those_of_transformers() -> None:
    settings = GenerationSettings.of({"modalities": "audio", "max_seconds": 2.0, "num_beams": 3, "seed": 1})
    assert settings.modalities == {"audio"}
    assert (settings.max_seconds, settings.seed) == (2.0, 1)
    assert settings.transformers == {"num_beams": 3}


def test_every_setting_can_be_given_to_generate_with_the_same_default() -> None:
    parameters = inspect.signature(AudioLLM.generate).parameters
    for one in fields(GenerationSettings):
        if one.init and one.name != "transformers":
            assert parameters[one.name].default == one.default, one.name


@pytest.mark.parametrize(
    ("arguments", "sampling"),
    [
        ({}, None),
        ({"do_sample": True}, SamplingSettings()),
        ({"temperature": 0.5}, SamplingSettings(temperature=0.5)),
        ({"modalities": {"text", "audio"}, "top_k": 3}, SamplingSettings(top_k=3)),
        ({"modalities": {"audio"}, "do_sample": False}, None),
    ],
)
def test_text_is_greedy_and_audio_is_drawn_unless_told_otherwise(
    arguments: dict[str, object], sampling: SamplingSettings | None
) -> None:
    assert GenerationSettings.of(arguments).sampling == sampling


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modalities": {"video"}}, "modalities="),
        ({"do_sample": False, "top_p": 0.9}, "do_sample=False.*leave out top_p"),
        ({"temperature": 0.0}, "temperature=0.0"),
    ],
)
def test_contradictions_are_refused_at_the_door(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GenerationSettings.of(arguments)
