"""A setting has an effect or is refused: each of transformers' own, and each of the processor's."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
import torch
from transformers import CompileConfig, GenerationConfig, StoppingCriteria

from audiollm.generation.passed_on import PASSED_ON, REFUSED
from audiollm.generation.settings import GenerationSettings
from audiollm.mini import mini_folder
from audiollm.modeling import AudioLLM
from audiollm.speaking import speak

CHAT = [{"role": "user", "content": "The quick brown fox?"}]
FACTS = {"transformers_version", "_from_model_config"}
ALL_SETTINGS = sorted(vars(GenerationConfig()).keys() - FACTS)
OURS = {"max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p"}
OURS |= {"epsilon_cutoff", "eta_cutoff"}
VALUES: dict[str, Any] = {
    "num_beams": 2, "length_penalty": 0.5, "early_stopping": True, "num_return_sequences": 2, "min_length": 100,
    "min_new_tokens": 9, "max_time": 1e-9, "stop_strings": ["e"], "eos_token_id": [5], "pad_token_id": 7,
    "repetition_penalty": 1.7, "no_repeat_ngram_size": 1, "bad_words_ids": [[5]], "suppress_tokens": [5],
    "begin_suppress_tokens": [5], "sequence_bias": [[[5], 9.0]], "exponential_decay_length_penalty": (1, 1.5),
    "forced_eos_token_id": 5, "guidance_scale": 3.0, "remove_invalid_values": True, "prompt_lookup_num_tokens": 2,
    "max_matching_ngram_size": 2, "use_cache": False, "cache_implementation": "dynamic", "disable_compile": True,
    "prefill_chunk_size": 4, "compile_config": CompileConfig(),
}  # fmt: skip
TOGETHER = {
    "length_penalty": {"num_beams": 2},
    "early_stopping": {"num_beams": 2},
    "num_return_sequences": {"num_beams": 2, "do_sample": False},
    "max_matching_ngram_size": {"prompt_lookup_num_tokens": 2},
    "cache_config": {"cache_implementation": "static"},
}


class SeenError(Exception):
    """Raised in place of generating."""


def effective(llm, monkeypatch, **options) -> tuple[GenerationConfig, dict[str, Any]]:
    """What reaches transformers."""
    seen: list[dict[str, Any]] = []

    def generate(**arguments):
        seen.append(arguments)
        raise SeenError

    with monkeypatch.context() as patch:
        patch.setattr(llm.model, "generate", generate)
        with pytest.raises(SeenError):
            llm.chat(CHAT, **options)
    return seen[0].pop("generation_config"), seen[0]


@pytest.mark.parametrize("name", ALL_SETTINGS)
def test_each_setting_of_transformers_reaches_it_or_is_ours_or_is_refused_by_name(speaking_llm, monkeypatch, name):
    if name in OURS:
        assert name in GenerationSettings.__dataclass_fields__
    elif name in PASSED_ON:
        value = VALUES.get(name, {"some": "object"})  # of cache_config
        config, _ = effective(speaking_llm, monkeypatch, **{name: value}, **TOGETHER.get(name, {}))
        assert getattr(config, name) == value
    else:
        with pytest.raises(ValueError, match=name):
            speaking_llm.chat(CHAT, **{name: 3})


@pytest.mark.parametrize("name", ALL_SETTINGS)
def test_a_generation_config_counts_as_its_settings_do(speaking_llm, monkeypatch, name):
    config = GenerationConfig()
    value = VALUES.get(name, 3)
    for key, one in {name: value, **TOGETHER.get(name, {})}.items():
        setattr(config, key, one)
    try:
        expected, _ = effective(speaking_llm, monkeypatch, **{name: value}, **TOGETHER.get(name, {}))
    except ValueError:
        if name != "bos_token_id":  # a fact of the checkpoint where a config was copied from one
            with pytest.raises(ValueError, match=name):
                speaking_llm.chat(CHAT, generation_config=config)
        return
    found, _ = effective(speaking_llm, monkeypatch, generation_config=config)
    assert found.to_dict() == expected.to_dict()


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.7},
        {"no_repeat_ngram_size": 1},
        {"guidance_scale": 300.0},
        {"stop_strings": "AUTO"},
        {"eos_token_id": "AUTO"},
        {"suppress_tokens": "AUTO"},
        {"bad_words_ids": "AUTO"},
        {"begin_suppress_tokens": "AUTO"},
        {"sequence_bias": [[[5], 90.0]]},
        {"forced_eos_token_id": 5},
        {"max_time": 1e-9},
        {"num_beams": 4},
        {"num_beams": 4, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 2, "seed": 0},
        {"generation_config": GenerationConfig(max_new_tokens=2)},
        {"max_new_tokens": 3},
        {"do_sample": True, "seed": 3},
        {"temperature": 5.0, "seed": 3},
    ],
    ids=lambda options: "+".join(options),
)
def test_settings_that_are_passed_on_change_the_answer(speaking_llm, options):
    plain = speaking_llm.chat(CHAT, max_new_tokens=12)
    first = plain.token_ids[0][3].item()
    auto = {"stop_strings": plain.texts[0][:2], "eos_token_id": first, "suppress_tokens": [first]}
    auto |= {"bad_words_ids": [[first]], "begin_suppress_tokens": [plain.token_ids[0][0].item()]}
    options = {name: auto[name] if value == "AUTO" else value for name, value in options.items()}
    result = speaking_llm.chat(
        CHAT, **{"max_new_tokens": 12, **options} if "generation_config" not in options else options
    )
    assert [row.tolist() for row in result.token_ids] != [row.tolist() for row in plain.token_ids]


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        ({"min_p": 1.0}, {"min_p": 0.0}),
        ({"top_h": 1e-6}, {"top_h": 1.0}),
        ({"typical_p": 1e-6}, {"typical_p": 0.999}),
        ({"epsilon_cutoff": 0.9}, {"epsilon_cutoff": 1e-6}),
        ({"eta_cutoff": 0.9}, {"eta_cutoff": 1e-6}),
        ({"top_k": 1}, {"top_k": 0}),
        ({"top_p": 1e-6}, {"top_p": 1.0}),
        ({"temperature": 1e-4}, {"temperature": 3.0}),
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_narrows_the_draw_counts_for_text_and_for_speech(speaking_llm, narrow, wide):
    base = {"max_seconds": 0.6, "min_seconds": 0.6, "repetition_window": 0, "top_k": 0, "top_p": 1.0}
    narrow, wide = base | narrow, base | wide
    assert len({tuple(speak(speaking_llm, "Hi.", seed=seed, **wide).codes.tolist()) for seed in range(4)}) > 1
    drawn = {tuple(speak(speaking_llm, "Hi.", seed=seed, **narrow).codes.tolist()) for seed in range(4)}
    if "eta_cutoff" in narrow:  # cuts less where all is equally likely, as here
        seeds = [speak(speaking_llm, "Hi.", seed=seed, **wide).codes.tolist() for seed in range(4)]
        assert drawn != {tuple(codes) for codes in seeds}
        return
    if "typical_p" not in narrow:
        greedy = speak(speaking_llm, "Hi.", do_sample=False, max_seconds=0.6, min_seconds=0.6).codes.tolist()
        assert drawn == {tuple(greedy)}
    assert len(drawn) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_p": 2.0}, "min_p"),
        ({"min_p": 0.1, "do_sample": False}, "leave out min_p"),
        ({"length_penalty": 2.0}, "length_penalty.*num_beams"),
        ({"max_matching_ngram_size": 2}, "prompt_lookup_num_tokens"),
        ({"max_seconds": 2.0}, "max_seconds are of audio"),
        ({"modalities": {"audio"}, "min_new_tokens": 3}, "min_seconds"),
        ({"generation_config": {"max_new_tokens": 2}}, "GenerationConfig"),
        ({"custom_generate": "someone/script"}, "code from elsewhere"),
        ({"nonsense": 3}, "nonsense"),
        ({"suppress_tokens": list(range(400))}, "forbid every token"),
    ],
)
def test_what_can_have_no_effect_or_no_answer_is_refused(speaking_llm, options, message):
    with pytest.raises(ValueError, match=message):
        speaking_llm.chat(CHAT, **options)


def test_nothing_is_both_passed_on_and_refused():
    assert not PASSED_ON & REFUSED.keys()


# What ended an answer


class After(StoppingCriteria):
    def __init__(self, number):
        self.number, self.start = number, None

    def __call__(self, input_ids, scores, **options):
        self.start = input_ids.shape[1] if self.start is None else self.start
        done = input_ids.shape[1] - self.start + 1 >= self.number
        return torch.full((len(input_ids),), done)


def test_the_finish_reason_says_what_ended_each_answer(speaking_llm):
    plain = speaking_llm.chat(CHAT, max_new_tokens=12)
    assert plain.finish_reasons == ["length" if len(plain.token_ids[0]) == 12 else "stop"]
    spoken = plain.texts[0][:3]
    stopped = speaking_llm.chat([CHAT, CHAT], max_new_tokens=12, stop_strings=[spoken])
    assert stopped.finish_reasons == ["stop"] * 2
    assert all(len(ids) < 12 for ids in stopped.token_ids)
    ending = plain.token_ids[0][4].item()
    assert speaking_llm.chat(CHAT, max_new_tokens=12, eos_token_id=ending).finish_reasons == ["stop"]
    assert speaking_llm.chat(CHAT, max_new_tokens=12, max_time=1e-9).finish_reasons == ["length"]
    assert speaking_llm.chat(CHAT, max_new_tokens=12, stopping_criteria=[After(2)]).finish_reasons == ["stop"]
    audio = speaking_llm.chat(CHAT, modalities={"audio"}, max_seconds=0.2, seed=0)
    assert audio.finish_reasons == ["length" if len(audio.codes[0][0]) == 5 else "stop"]
    # Codes that the prompt has of the segment count: with three there, two more fill it up.
    vocabulary = speaking_llm.vocabulary
    opened = torch.tensor([[vocabulary.start_id, *vocabulary.codes_to_token_ids([1, 2, 3])]])
    limits = {"min_seconds": 0.2, "max_seconds": 0.2, "return_waveforms": False}
    assert speaking_llm.generate(input_ids=opened, modalities={"audio"}, **limits).finish_reasons == ["length"]
    with speaking_llm.stream_chat(CHAT, modalities={"audio"}, max_seconds=0.2, seed=0) as stream:
        list(stream)
    assert stream.result.finish_reasons == audio.finish_reasons


# The processor's own settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "max_length"}, "padding='max_length'"),
        ({"padding": 3}, "padding=3"),
        ({"padding_side": "middle"}, "padding_side='middle'"),
        ({"return_tensors": "np"}, "return_tensors='np'"),
        ({"max_length": 3}, "limit is 3"),
        ({"max_length": 0}, "max_length=0"),
    ],
)
def test_settings_of_the_processor_have_an_effect_or_are_refused(speaking_llm, options, message):
    for call in (
        lambda **more: speaking_llm.processor.apply_chat_template(CHAT, **more),
        lambda **more: speaking_llm.processor("a b c d e f", **more),
    ):
        with pytest.raises(ValueError, match=message):
            call(**options)


@pytest.mark.parametrize("name", ["truncation", "stride", "pad_to_multiple_of", "nonsense", "images"])
def test_settings_that_the_processor_does_not_know_are_refused_by_name(speaking_llm, name):
    with pytest.raises(TypeError, match=name):
        speaking_llm.processor.apply_chat_template(CHAT, **{name: 3})
    with pytest.raises(TypeError, match=name):
        speaking_llm.processor("a", **{name: 3})


def test_padding_by_the_names_of_transformers(speaking_llm):
    processor = speaking_llm.processor
    rows = ["a", "a b c"]
    assert processor(rows, padding="longest")["input_ids"].shape == processor(rows)["input_ids"].shape
    with pytest.raises(ValueError, match="padding=True"):
        processor(rows, padding="do_not_pad")
    masks = [processor(rows, padding_side=side)["attention_mask"][0].tolist() for side in ("left", "right")]
    assert masks[0] == masks[1][::-1] != masks[1]


# What the checkpoint says


def test_settings_of_the_checkpoint_that_answers_do_not_take_are_said(tmp_path, caplog):
    folder = tmp_path / "model"
    shutil.copytree(mini_folder(), folder)
    AudioLLM.from_pretrained(folder)
    assert "generation_config.json" not in caplog.text
    stored = json.loads((folder / "generation_config.json").read_text())
    stored |= {"temperature": 0.7, "do_sample": True, "repetition_penalty": 1.1, "num_beams": 2, "top_k": 50}
    (folder / "generation_config.json").write_text(json.dumps(stored))
    model = AudioLLM.from_pretrained(folder)
    assert "have them: do_sample=True, temperature=0.7, repetition_penalty=1.1, num_beams=2" in caplog.text
    answer = model.chat(CHAT, max_new_tokens=6).token_ids[0].tolist()
    assert answer == AudioLLM.from_pretrained().chat(CHAT, max_new_tokens=6).token_ids[0].tolist()
    assert speak(model, "Hi.", seed=0, max_seconds=0.2).codes.tolist()  # beams of the checkpoint forbid no drawing


def test_the_config_of_a_model_that_has_generated_can_be_given():
    model = AudioLLM.from_pretrained()
    before = model.chat(CHAT, max_new_tokens=4).token_ids[0]
    after = model.chat(CHAT, max_new_tokens=4, generation_config=model.model.generation_config).token_ids[0]
    assert torch.equal(before, after)


def test_what_the_checkpoint_forbids_is_obeyed_and_leaves_no_dead_end_unseen(speaking_llm, monkeypatch):
    monkeypatch.setattr(speaking_llm.model.generation_config, "suppress_tokens", list(range(400)), raising=False)
    with pytest.raises(ValueError, match="forbid every token"):
        speaking_llm.chat(CHAT)
