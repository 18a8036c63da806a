"""An Audio-LLM answers the same alone and in a batch, before and after saving, and says what a wrong folder lacks."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    LogitsProcessor,
    Qwen2ForCausalLM,
    StoppingCriteria,
    StoppingCriteriaList,
)

from audiollm.data.collation import collate
from audiollm.data.conversation.parsing import parse_conversation
from audiollm.generation.streaming import SegmentStreamer, StreamedCodes
from audiollm.modeling import AudioLLM
from audiollm.processing import AudioLLMProcessor


@pytest.fixture
def audio_llm(make_llm, text_tokenizer, audio_tokenizer):
    """An untrained Audio-LLM around the stand-in audio tokenizer."""
    return AudioLLM.create(make_llm(), text_tokenizer, audio_tokenizer)


@pytest.fixture
def saved(make_llm, text_tokenizer, codec, tmp_path):
    """A saved Audio-LLM with a real audio tokenizer: (the model in memory, its folder)."""
    audio_llm = AudioLLM.create(make_llm(), text_tokenizer, codec)
    audio_llm.save_pretrained(tmp_path / "model")
    return audio_llm, tmp_path / "model"


@pytest.fixture
def clip(tmp_path):
    """A 1.2 s recording at 22.05 kHz."""
    path = tmp_path / "clip.wav"
    time = np.arange(int(1.2 * 22050)) / 22050
    soundfile.write(path, 0.4 * np.sin(2 * np.pi * 440 * time * (1 + time)), 22050)
    return path


def ask(*content):
    return [{"role": "user", "content": [{"type": "text", "text": c} if isinstance(c, str) else c for c in content]}]


def codes(*values):
    return {"type": "audio", "codes": list(values)}


CHATS = [
    ask(codes(1, 2, 3, 4, 5), "What is this?"),
    ask("Hi"),
    ask("Compare", codes(*range(40)), "with", codes(63), "and say which one is louder."),
]


class Script(LogitsProcessor):
    """Makes every row say the same ids."""

    def __init__(self, token_ids: Sequence[int], prompt_length: int) -> None:
        self.token_ids, self.prompt_length = token_ids, prompt_length

    def __call__(self, input_ids, scores):
        place = input_ids.shape[1] - self.prompt_length
        scores = scores.clone()
        scores[:, self.token_ids[place]] += 1000
        return scores


def say(audio_llm, token_ids, chats=CHATS[:1], **options):
    inputs = audio_llm.processor.apply_chat_template(chats, add_generation_prompt=True)
    script = Script(token_ids, inputs["input_ids"].shape[1])
    return audio_llm.generate(**inputs, logits_processor=[script], do_sample=False, **options)


# Generation


@pytest.mark.parametrize("modalities", [{"text"}, {"audio"}, {"text", "audio"}])
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_a_batch_answers_what_each_prompt_gets_alone(make_llm, text_tokenizer, audio_tokenizer, family, modalities):
    audio_llm = AudioLLM.create(make_llm(family=family), text_tokenizer, audio_tokenizer)
    options = {"modalities": modalities, "max_new_tokens": 12, "do_sample": False}
    together = audio_llm.chat(CHATS, **options)
    for index, chat in enumerate(CHATS):
        alone = audio_llm.chat(chat, **options)
        assert together.token_ids[index].tolist() == alone.token_ids[0].tolist()
        assert together.texts[index] == alone.texts[0]
        assert together.finish_reasons[index] == alone.finish_reasons[0]


def test_text_answers_hold_no_audio_and_audio_answers_keep_their_length(audio_llm):
    vocabulary = audio_llm.vocabulary
    for seed in range(5):
        text = audio_llm.chat(CHATS, do_sample=True, seed=seed, max_new_tokens=10)
        assert not any(vocabulary.is_audio(ids).any() for ids in text.token_ids)
        assert text.codes == [[], [], []]
        audio = audio_llm.chat(CHATS, modalities={"audio"}, min_seconds=0.2, max_seconds=0.4, seed=seed)
        for row in audio.codes:
            assert len(row) == 1
            assert 5 <= len(row[0]) <= 10
        assert audio.finish_reasons == ["length" if len(row[0]) == 10 else "stop" for row in audio.codes]
        assert audio.texts == [""] * 3


def test_the_seed_decides_the_answer_and_the_global_state_is_left_alone(audio_llm):
    state = torch.get_rng_state()
    options = {"modalities": {"audio"}, "max_new_tokens": 30}
    first, again, other = (audio_llm.chat(CHATS[0], seed=seed, **options).token_ids[0].tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert torch.equal(torch.get_rng_state(), state)


def test_an_answer_is_taken_apart_into_text_and_codes(audio_llm):
    tokenizer, vocabulary = audio_llm.processor.tokenizer, audio_llm.vocabulary
    answer = [*tokenizer("Hear: ")["input_ids"], *vocabulary.wrap([7, 8, 9]), *tokenizer("done")["input_ids"]]
    ended = [*answer, tokenizer.eos_token_id]
    result = say(audio_llm, [*ended, *[tokenizer.pad_token_id] * 50], modalities={"text", "audio"}, max_new_tokens=50)
    assert result.token_ids[0].tolist() == ended
    assert result.texts == ["Hear: done"]
    assert [clip.tolist() for clip in result.codes[0]] == [[7, 8, 9]]
    assert [type(segment).__name__ for segment in result.segments[0]] == ["TextSegment", "AudioSegment", "TextSegment"]
    assert result.finish_reasons == ["stop"]
    cut = say(audio_llm, ended, modalities={"text", "audio"}, max_new_tokens=len(answer) - 5)
    assert cut.finish_reasons == ["length"]
    assert cut.segments[0][-1].problems == ("unclosed",)


def test_a_stopping_rule_is_no_cut(audio_llm):
    class AfterThree(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return torch.full((input_ids.shape[0],), self.length + 3 == input_ids.shape[1])

    inputs = audio_llm.processor.apply_chat_template(CHATS[0], add_generation_prompt=True)
    AfterThree.length = inputs["input_ids"].shape[1]
    result = audio_llm.generate(**inputs, stopping_criteria=StoppingCriteriaList([AfterThree()]))
    assert len(result.token_ids[0]) == 3
    assert result.finish_reasons == ["stop"]


def test_beams_and_several_answers_per_prompt(audio_llm):
    beams = audio_llm.chat(CHATS, num_beams=3, max_new_tokens=5)
    assert len(beams.texts) == 3
    several = audio_llm.chat(CHATS[:2], num_return_sequences=2, do_sample=True, seed=0, max_new_tokens=5)
    assert len(several.texts) == 4
    with pytest.raises(ValueError, match="beam search"):
        audio_llm.chat(CHATS, num_beams=3, do_sample=True)


def test_an_open_segment_in_the_prompt_is_continued(audio_llm):
    ids = torch.tensor([[5, audio_llm.vocabulary.start_id, audio_llm.vocabulary.first_code_id]])
    result = audio_llm.generate(input_ids=ids, modalities={"audio"}, max_seconds=0.2, seed=0)
    assert len(result.codes[0][0]) <= 4  # five in all, one of them in the prompt
    assert result.segments[0][0].well_formed
    with pytest.raises(ValueError, match="ends inside an audio segment"):
        audio_llm.generate(input_ids=ids)


def test_a_stream_tells_the_same_as_the_result(audio_llm):
    streamer = SegmentStreamer(audio_llm.processor, chunk_codes=4, timeout_seconds=5)
    inputs = audio_llm.processor.apply_chat_template(CHATS[0], add_generation_prompt=True)
    result = audio_llm.generate(**inputs, modalities={"audio"}, max_seconds=0.4, seed=3, streamer=streamer)
    chunks = [event.codes for event in streamer if isinstance(event, StreamedCodes)]
    assert torch.equal(torch.cat(chunks), result.codes[0][0])


def test_the_checkpoints_own_sampling_settings_do_not_leak_in(audio_llm, recwarn):
    plain = audio_llm.chat(CHATS[0], max_new_tokens=8)
    config = audio_llm.model.generation_config
    config.do_sample, config.temperature, config.top_k, config.repetition_penalty = True, 0.1, 3, 3.0
    again = audio_llm.chat(CHATS[0], max_new_tokens=8)
    assert again.token_ids[0].tolist() == plain.token_ids[0].tolist()


def test_waveforms_need_a_decoder_and_come_for_every_segment(audio_llm, audio_tokenizer):
    with pytest.raises(ValueError, match="no waveform decoder"):
        audio_llm.chat(CHATS, modalities={"audio"}, return_waveforms=True)
    audio_tokenizer.can_decode = True
    audio_tokenizer.decode = lambda codes: [torch.full((882 * int(n),), 0.1) for n in codes.lengths]
    result = audio_llm.chat(CHATS, modalities={"audio"}, max_seconds=0.4, seed=0, return_waveforms=True)
    assert [[len(w) for w in row] for row in result.waveforms] == [[882 * len(c) for c in row] for row in result.codes]
    assert result.sample_rate == 22050
    assert audio_llm.chat(CHATS, max_new_tokens=3, return_waveforms=True).waveforms == [[], [], []]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": {"smell"}}, "smell"),
        ({"do_sample": False, "temperature": 0.5}, "leave out temperature"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"modalities": {"audio"}, "min_seconds": 2, "max_seconds": 1}, "min_seconds"),
        ({"max_new_tokens": 1024}, r"max_new_tokens=1024.*context holds 1024"),
    ],
)
def test_contradictions_are_refused(audio_llm, options, message):
    with pytest.raises(ValueError, match=message):
        audio_llm.chat(CHATS[0], **options)


def test_what_is_trained_on_is_what_is_asked(make_llm, text_tokenizer, codec, clip, tmp_path):
    """Two recordings are learnt by heart; asked in a batch, from files, the answers come back and end by themselves."""
    other = tmp_path / "other.flac"
    noise = np.random.default_rng(0).normal(size=16000).clip(-3, 3) / 4
    soundfile.write(other, noise, 16000)
    audio_llm = AudioLLM.create(make_llm(), text_tokenizer, codec, init="codebook")
    answers = {str(clip): "A rising tone.", str(other): "Noise"}
    questions = {path: ask({"type": "audio", "path": path}, "What is this?") for path in answers}
    records = [
        parse_conversation({"messages": [*questions[path], {"role": "assistant", "content": answer}]})
        for path, answer in answers.items()
    ]
    encoded = audio_llm.processor.encode_conversations(records)
    examples = [{"input_ids": one.token_ids, "labels": one.labels} for one in encoded]
    batch = collate(examples, pad_token_id=audio_llm.processor.pad_token_id)
    optimizer = torch.optim.AdamW(audio_llm.model.parameters(), lr=1e-2)
    for _ in range(60):
        audio_llm.model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    result = audio_llm.chat(list(questions.values()), max_new_tokens=30)
    assert result.texts == list(answers.values())
    assert result.finish_reasons == ["stop", "stop"]


# Creation, saving, loading


def test_a_saved_folder_is_a_plain_qwen2_checkpoint(saved):
    audio_llm, folder = saved
    names = {entry.name for entry in folder.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "processor_config.json",
        "chat_template.jinja",
        "audio_tokenizer",
    } <= names
    assert not [name for name in names if name.startswith(".") or name.endswith(".py")]
    config = json.loads((folder / "config.json").read_text())
    assert (config["architectures"], config["model_type"]) == (["Qwen2ForCausalLM"], "qwen2")
    assert "auto_map" not in config
    weights = load_file(folder / "model.safetensors")
    assert weights["model.embed_tokens.weight"].shape[0] == config["vocab_size"] >= len(audio_llm.processor.tokenizer)
    assert config["vocab_size"] % 128 == 0
    assert set(weights) <= set(audio_llm.model.state_dict())


def test_saving_and_loading_changes_no_answer_also_after_a_move(saved, clip, tmp_path):
    audio_llm, folder = saved
    before = audio_llm.ask(clip, "What is this?", max_new_tokens=8)
    shutil.move(folder, tmp_path / "elsewhere")
    loaded = AudioLLM.from_pretrained(tmp_path / "elsewhere", dtype=torch.float32)
    assert isinstance(loaded.model, Qwen2ForCausalLM)
    assert loaded.ask(str(clip), "What is this?", max_new_tokens=8) == before
    assert loaded.ask([clip.read_bytes()], "What is this?", max_new_tokens=8) == before
    for name, tensor in audio_llm.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor)
    again = tmp_path / "again"
    loaded.save_pretrained(again)
    assert AudioLLM.from_pretrained(again).ask(clip, "What is this?", max_new_tokens=8) == before


def test_plain_transformers_loads_and_generates_from_the_folder(saved, clip):
    audio_llm, folder = saved
    model, processor = AutoModelForCausalLM.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert type(model) is Qwen2ForCausalLM
    inputs = processor.apply_chat_template(ask({"type": "audio", "path": str(clip)}), add_generation_prompt=True)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, audio_llm.model(**inputs).logits)
    output = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    assert output.shape[1] <= inputs["input_ids"].shape[1] + 5
    turn_end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert turn_end in model.generation_config.eos_token_id
    # Without our code: the text tokenizer's own template takes codes.
    alone = AutoTokenizer.from_pretrained(folder)
    ids = alone.apply_chat_template(CHATS[0], add_generation_prompt=True, return_dict=True)["input_ids"]
    assert ids == processor.apply_chat_template(CHATS[0], add_generation_prompt=True)["input_ids"][0].tolist()


def test_dtype_and_attention_are_passed_on(saved):
    loaded = AudioLLM.from_pretrained(saved[1], dtype=torch.bfloat16, attn_implementation="eager")
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.model.config._attn_implementation == "eager"
    assert not loaded.model.training


def test_given_weights_are_written_in_place_of_the_models(saved, tmp_path):
    audio_llm, _ = saved
    weights = {name: torch.zeros_like(tensor) for name, tensor in audio_llm.model.state_dict().items()}
    audio_llm.save_pretrained(tmp_path / "zeros", state_dict=weights)
    assert not any(tensor.any() for tensor in load_file(tmp_path / "zeros" / "model.safetensors").values())


def test_a_failed_save_leaves_the_old_folder_whole(saved, monkeypatch):
    audio_llm, folder = saved
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with torch.no_grad():
        audio_llm.model.get_input_embeddings().weight.add_(1)

    def fail(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(audio_llm.processor, "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        audio_llm.save_pretrained(folder)
    after = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before
    assert [entry.name for entry in folder.parent.iterdir() if entry.name.startswith(".")] == []


def test_saving_over_a_sharded_model_leaves_no_old_weights(saved):
    audio_llm, folder = saved
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"old")
    (folder / "model.safetensors.index.json").write_text("{}")
    audio_llm.save_pretrained(folder)
    assert [path.name for path in folder.glob("model*")] == ["model.safetensors"]


def test_creation_from_folders_equals_creation_from_objects(make_llm, text_tokenizer, codec, tmp_path):
    make_llm().save_pretrained(tmp_path / "llm")
    text_tokenizer.save_pretrained(tmp_path / "llm")
    codec.save_pretrained(tmp_path / "codec")
    created = AudioLLM.create(tmp_path / "llm", audio_tokenizer=tmp_path / "codec", init="codebook", seed=4)
    given = AudioLLM.create(make_llm(), text_tokenizer, codec, init="codebook", seed=4)
    for name, tensor in given.model.state_dict().items():
        assert torch.equal(created.model.state_dict()[name], tensor)
    assert created.vocabulary == given.vocabulary


def test_what_creation_lacks_is_named(make_llm, text_tokenizer, audio_tokenizer):
    with pytest.raises(ValueError, match="give its text_tokenizer"):
        AudioLLM.create(make_llm(), audio_tokenizer=audio_tokenizer)
    with pytest.raises(ValueError, match="give audio_tokenizer"):
        AudioLLM.create(make_llm(), text_tokenizer)
    with pytest.raises(ValueError, match="shows no codebook"):
        AudioLLM.create(make_llm(), text_tokenizer, audio_tokenizer, init="codebook")


def test_weights_and_text_tokenizer_must_belong_together(audio_llm, make_llm):
    with pytest.raises(ValueError, match="do not belong together"):
        AudioLLM(make_llm(), audio_llm.processor)


@pytest.mark.parametrize(
    ("removed", "hint"),
    [
        (["audio_tokenizer"], "no audio_tokenizer/"),
        (["model.safetensors"], r"no model\.safetensors"),
        (["processor_config.json", "audio_tokenizer"], r"no processor_config\.json: .*audiollm extend"),
        (["processor_config.json", "tokenizer.json"], r"no tokenizer\.json, processor_config\.json: is it an audio"),
    ],
)
def test_a_wrong_folder_says_what_it_lacks(saved, removed, hint):
    _, folder = saved
    for name in removed:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    with pytest.raises(ValueError, match=hint):
        AudioLLM.from_pretrained(folder)


def test_other_places_are_refused_too(tmp_path, codec):
    with pytest.raises(ValueError, match="no folder"):
        AudioLLM.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no folder"):
        AudioLLM.from_pretrained("./nowhere")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="LoRA adapter"):
        AudioLLM.from_pretrained(tmp_path)
    codec.save_pretrained(tmp_path / "codec")
    with pytest.raises(ValueError, match="is it an audio tokenizer"):
        AudioLLM.from_pretrained(tmp_path / "codec")


def test_an_audio_tokenizer_given_later_is_the_one_that_is_saved(saved, codec, tmp_path):
    _, folder = saved
    other = copy.deepcopy(codec)
    with torch.no_grad():
        other.codebook.weight.add_(1.0)
    processor = AudioLLM.from_pretrained(folder).processor
    assert processor.audio_tokenizer.fingerprint() == codec.fingerprint()
    processor.audio_tokenizer = other
    processor.save_pretrained(tmp_path / "changed")
    reloaded = AudioLLMProcessor.from_pretrained(tmp_path / "changed")
    assert reloaded.audio_tokenizer.fingerprint() == other.fingerprint() != codec.fingerprint()
