"""What users of transformers write, right or wrong: it works, or one line says what to write instead."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from datasets import Dataset

from audiollm import AudioLLM, AudioLLMProcessor
from audiollm.generation.result import GenerationResult

MESSAGES = [{"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": "What?"}]}]
SOUND = np.sin(np.arange(8000) / 10).astype(np.float32)


@pytest.fixture(scope="module")
def model(make_llm, make_text_tokenizer, codec) -> AudioLLM:
    return AudioLLM.create(make_llm(), make_text_tokenizer(), codec)


@pytest.fixture(scope="module")
def processor(model: AudioLLM) -> AudioLLMProcessor:
    return model.processor


@pytest.fixture(scope="module")
def prompt(processor: AudioLLMProcessor) -> str:
    return processor.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)


def test_options_in_groups_are_the_same_as_outside(processor, prompt) -> None:
    plain = processor(text=prompt, audio=SOUND, sampling_rate=16000, padding=True).input_ids
    grouped = processor(
        text=prompt,
        audio=SOUND,
        text_kwargs={"padding": True, "truncation": False},
        audio_kwargs={"sampling_rate": 16000},
        common_kwargs={"return_tensors": "pt"},
        return_attention_mask=True,
    )
    assert torch.equal(plain, grouped.input_ids)
    assert processor(text=prompt, audio=SOUND, sampling_rate=16000, common_kwargs={"return_tensors": None})[
        "input_ids"
    ] == [plain[0].tolist()]


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ({}, "text is missing: write the prompt with apply_chat_template"),
        ({"audio": SOUND}, "text is missing"),
        ({"text": SOUND}, "text is of type ndarray: give prompts as text=, and recordings as audio="),
        ({"text": 3}, "text is of type int"),
        ({"text": []}, "text is empty"),
        ({"text": [["x"]]}, r"text\[0\] is of type list: give one prompt, or a flat list"),
        ({"text": MESSAGES}, r"text\[0\] is a message: give messages to apply_chat_template"),
        ({"text": "x", "truncation": True}, "truncation has no effect here, nothing is ever cut"),
        ({"text": "x", "images": [1]}, "images have no effect here, an Audio-LLM sees nothing"),
        ({"text": "x", "text_kwargs": {"max_lenght": 3}}, "text_kwargs: max_lenght has no effect here"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(processor, arguments, cure) -> None:
    with pytest.raises((ValueError, TypeError), match=cure) as error:
        processor(**arguments)
    assert "\n" not in str(error.value)
    if "text_kwargs" in arguments:
        with pytest.raises(ValueError, match=cure):
            processor.apply_chat_template("x", processor_kwargs={"text_kwargs": {"max_lenght": 3}})


def test_an_argument_that_templates_take_elsewhere_is_refused(processor) -> None:
    chat = [{"role": "user", "content": "x"}]
    with pytest.raises(TypeError, match="enable_thinking has no effect here"):
        processor.apply_chat_template(chat, enable_thinking=True)


@pytest.mark.parametrize("stacked", [np.stack([SOUND] * 2), torch.tensor(np.stack([SOUND] * 2))])
def test_stacked_recordings_are_told_from_channels(processor, prompt, stacked) -> None:
    assert processor(text=prompt, audio=stacked, sampling_rate=16000).input_ids.shape[0] == 1  # two channels
    with pytest.raises(ValueError, match=r"\[2, 8000\] is one recording with channels.*give a list of recordings"):
        processor(text=[prompt, prompt], audio=stacked, sampling_rate=16000)


def test_a_rate_that_contradicts_the_recordings_own_is_refused(processor, prompt) -> None:
    sample = {"array": SOUND, "sampling_rate": 16000}
    assert processor(text=prompt, audio=sample, sampling_rate=16000).input_ids.shape[0] == 1
    for audio in (sample, (SOUND, 16000)):
        with pytest.raises(ValueError, match="comes with a rate of 16000 Hz, but 8000 Hz is said too"):
            processor(text=prompt, audio=audio, sampling_rate=8000)


def test_columns_of_a_data_set_are_lists(processor, prompt) -> None:
    rows = Dataset.from_dict({"prompt": [prompt] * 2, "codes": [[1, 2], [3]]})
    encoded = processor(text=rows["prompt"], audio=rows["codes"])
    assert torch.equal(encoded.input_ids, processor(text=[prompt] * 2, audio=[[1, 2], [3]]).input_ids)


def test_answers_go_where_other_models_give_ids(model, processor, prompt) -> None:
    inputs = processor(text=prompt, audio=[[1, 2]])
    answer = model.generate(inputs.input_ids, attention_mask=inputs.attention_mask, max_new_tokens=3)
    assert processor.batch_decode(answer) == answer.texts
    with pytest.raises(TypeError, match="holds answers without their prompts: take its texts"):
        answer[:, 3:]
    spoken = processor.vocabulary.wrap([1, 2, 3])
    with pytest.raises(ValueError, match="are one row: use decode_audio"):
        processor.batch_decode_audio(torch.tensor(spoken))
    with pytest.raises(ValueError, match="are several rows: use batch_decode_audio"):
        processor.decode_audio(torch.tensor([spoken]))
    with pytest.raises(ValueError, match="ids below 0 are no tokens"):
        processor.batch_decode(torch.tensor([[-100, 3]]))


def test_an_audio_llm_is_called_as_its_llm(model, processor, prompt) -> None:
    inputs = processor(text=prompt, audio=[[1, 2]])
    assert model(**inputs, labels=inputs.input_ids).loss.requires_grad
    with pytest.raises(ValueError, match=r"give what the processor returns, generate\(\*\*inputs\)"):
        model.generate(inputs)
    for settings in ({"return_audio": True}, {"speaker": "x"}, {"chunk_length_s": 30}, {"return_full_text": True}):
        with pytest.raises(ValueError, match=f"^{next(iter(settings))} (is of|has no effect)"):
            model.generate(**inputs, **settings)
    assert isinstance(model.generate(**inputs, return_timestamps=False, max_new_tokens=1), GenerationResult)


def test_names_of_the_llm_are_pointed_at_and_copies_work(model) -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'config': use \.model\.config"):
        _ = model.config
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'$"):
        _ = model.nothing
    for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert repr(same) == repr(model)


def test_parts_of_another_kind_are_refused(model, processor) -> None:
    for arguments in ((model.model,), (model.model, processor.tokenizer), ("folder", processor)):
        with pytest.raises(ValueError, match=r"AudioLLM\.from_pretrained\(folder\) loads both"):
            AudioLLM(*arguments)
    with pytest.raises(ValueError, match=r"load a folder with AudioLLMProcessor\.from_pretrained"):
        AudioLLMProcessor("folder")
