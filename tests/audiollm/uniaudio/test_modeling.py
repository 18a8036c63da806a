"""The multi-stream LM says of text what its text LLM says, hears only the past, and is saved and loaded whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from audiollm.uniaudio import SpecialIds, UniAudioLM, UniAudioLMConfig, lay_out, pad_batch
from audiollm.uniaudio.released import to_released
from audiollm.uniaudio.stacks import FAMILIES

MakeLM = Callable[..., UniAudioLM]
TIED = [(family, {"tie_word_embeddings": tied}) for family in FAMILIES for tied in (False, True)]


def text_rows(token_ids: Tensor, num_streams: int = 3) -> tuple[Tensor, Tensor]:
    """Rows of text alone for ids ``[B, S]``."""
    ids = torch.nn.functional.pad(token_ids[..., None], (num_streams, 0))
    mask = torch.zeros_like(ids, dtype=torch.bool)
    mask[..., -1] = True
    return ids, mask


def mixed_rows(model: UniAudioLM, seed: int = 0, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Text, frames of both kinds, text."""
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    rows = []
    for _ in range(batch):
        parts = {
            part: torch.randint(0, config.size_of(part) - 3, (config.num_audio_streams, 4), generator=generator)
            for part in ("reasoning", "reconstruction")
        }
        words = torch.randint(3, 30, (2, 3), generator=generator)
        rows.append(lay_out("ASR", {**parts, "transcription": words[0]}, config, prompt=words[1]))
    layout = pad_batch(rows, config)
    return layout.input_ids, layout.stream_mask


@pytest.mark.parametrize(("family", "sizes"), TIED, ids=lambda value: str(value))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_before_training_text_logits_are_those_of_the_text_llm_bit_for_bit(
    make_lm: MakeLM,
    make_text_llm: Callable[..., PreTrainedModel],
    family: str,
    sizes: dict[str, Any],
    dtype: torch.dtype,
) -> None:
    text_llm = make_text_llm(family, **sizes).to(dtype)
    before = {name: tensor.clone() for name, tensor in text_llm.state_dict().items()}
    token_ids = torch.randint(0, 40, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = text_llm(token_ids).logits
        model = UniAudioLM.from_text_llm(text_llm, num_audio_streams=3, local_decoder={"hidden_size": 12})
        found = model(*text_rows(token_ids)).text_logits
    assert torch.equal(found, expected)
    assert model.text_llm is text_llm
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert all(torch.equal(tensor, before[name]) for name, tensor in text_llm.state_dict().items())


def test_text_is_the_same_whatever_the_experts_are(make_lm: MakeLM) -> None:
    model = make_lm()
    ids, mask = text_rows(torch.arange(8)[None])
    with torch.no_grad():
        expected = model(ids, mask).text_logits
        for part in (model.understanding_expert, model.generation_expert):
            for parameter in part.parameters():
                parameter.fill_(torch.nan)
        assert torch.equal(model(ids, mask).text_logits, expected)


def test_no_step_sees_a_later_one(make_lm: MakeLM) -> None:
    model = make_lm()
    ids, mask = mixed_rows(model)
    with torch.no_grad():
        whole = model(ids, mask)
        for length in (2, 6, 11):
            start = model(ids[:, :length], mask[:, :length])
            torch.testing.assert_close(start.text_logits, whole.text_logits[:, :length])


def test_no_code_of_a_frame_is_told_itself_or_a_later_one(make_lm: MakeLM) -> None:
    model = make_lm()
    hidden, codes = torch.randn(1, 16), torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        expected = model.frame_logits(hidden, codes)
        for stream in range(3):
            other = codes.clone()
            other[0, stream] = 4
            found = model.frame_logits(hidden, other)
            assert torch.equal(found[:, : stream + 1], expected[:, : stream + 1])
            assert stream == 2 or not torch.equal(found[:, stream + 1 :], expected[:, stream + 1 :])


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_through_caches_are_those_of_one_pass(make_lm: MakeLM, family: str) -> None:
    model = make_lm(family)
    ids, mask = mixed_rows(model)
    with torch.no_grad():
        whole = model(ids, mask).text_logits
        caches, found = None, []
        for start, end in ((0, 5), (5, 6), (6, 7), (7, 12), (12, ids.shape[1])):
            output = model(ids[:, start:end], mask[:, start:end], past_key_values=caches, use_cache=True)
            caches = output.past_key_values
            found.append(output.text_logits)
    torch.testing.assert_close(torch.cat(found, 1), whole)


def test_padding_on_the_left_changes_nothing_where_it_is_masked(make_lm: MakeLM) -> None:
    model = make_lm()
    ids, mask = mixed_rows(model, batch=1)
    padded_ids = torch.nn.functional.pad(ids, (0, 0, 3, 0), value=1)
    padded_mask = torch.nn.functional.pad(mask, (0, 0, 3, 0))
    with torch.no_grad():
        expected = model(ids, mask).text_logits
        found = model(padded_ids, padded_mask, attention_mask=padded_mask.any(-1).long()).text_logits
    torch.testing.assert_close(found[:, 3:], expected)


def test_every_weight_learns_also_from_text_alone(make_lm: MakeLM) -> None:
    """Distributed training waits for the gradient of each."""
    model = make_lm().train()
    ids, mask = text_rows(torch.arange(8)[None])
    output = model(ids, mask, mask)
    output.loss.backward()
    assert float(output.audio_loss.detach()) == 0
    assert [name for name, one in model.named_parameters() if one.grad is None] == []


def test_frames_are_learned_where_the_mask_says(make_lm: MakeLM) -> None:
    model = make_lm()
    ids, mask = mixed_rows(model)
    audio, text = mask.clone(), mask.clone()
    audio[..., -1] = False
    text[..., :-1] = False
    with torch.no_grad():
        both, of_audio, of_text = (model(ids, mask, one) for one in (mask, audio, text))
    assert float(of_audio.text_loss) == float(of_text.audio_loss) == 0
    torch.testing.assert_close(of_audio.audio_loss, both.audio_loss)
    torch.testing.assert_close(both.loss, 1.6 * of_text.text_loss + of_audio.audio_loss)


def test_a_window_of_attention_is_kept_by_the_caches(make_lm: MakeLM) -> None:
    model = make_lm("mistral", {"sliding_window": 4})
    ids, mask = mixed_rows(model)
    with torch.no_grad():
        whole = model(ids, mask).text_logits
        caches, found = None, []
        for step in range(ids.shape[1]):
            output = model(ids[:, step : step + 1], mask[:, step : step + 1], past_key_values=caches, use_cache=True)
            caches = output.past_key_values
            found.append(output.text_logits)
    torch.testing.assert_close(torch.cat(found, 1), whole)


def test_sequences_in_one_row_see_nothing_of_each_other_where_positions_start_anew(make_lm: MakeLM) -> None:
    model = make_lm()
    rows = [mixed_rows(model, seed=seed, batch=1) for seed in (1, 2)]
    ids, mask = (torch.cat(pair, 1) for pair in zip(*rows, strict=True))
    length = rows[0][0].shape[1]
    with torch.no_grad():
        alone = torch.cat([model(*row).text_logits for row in rows], 1)
        packed = model(ids, mask, position_ids=torch.arange(length).repeat(2)[None]).text_logits
    torch.testing.assert_close(packed, alone)


def test_checkpoints_of_activations_change_no_gradient(make_lm: MakeLM) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = make_lm().train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        ids, mask = mixed_rows(model)
        model(ids, mask, mask).loss.backward()
        gradients.append({name: one.grad for name, one in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


# Files


@pytest.mark.parametrize(("family", "sizes"), TIED, ids=lambda value: str(value))
def test_a_saved_model_computes_the_same(make_lm: MakeLM, family: str, sizes: dict[str, Any], tmp_path: Path) -> None:
    model = make_lm(family, sizes)
    model.save_pretrained(tmp_path)
    ids, mask = mixed_rows(model)
    loaded = [UniAudioLM.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)]
    with torch.no_grad():
        expected = model(ids, mask, mask)
        for other in loaded:
            assert isinstance(other, UniAudioLM)
            found = other.eval()(ids, mask, mask)
            assert torch.equal(found.text_logits, expected.text_logits)
            assert torch.equal(found.audio_logits, expected.audio_logits)
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == loaded[0].config.to_dict()
    tied = loaded[0].text_llm.lm_head.weight is loaded[0].text_llm.model.embed_tokens.weight
    assert tied == sizes["tie_word_embeddings"]


def test_dtype_and_attention_are_chosen_when_loading(make_lm: MakeLM, tmp_path: Path) -> None:
    make_lm().save_pretrained(tmp_path)
    model = UniAudioLM.from_pretrained(tmp_path, dtype=torch.bfloat16, attn_implementation="eager")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    stacks = (model.understanding_expert, model.text_llm.model, model.generation_expert, model.local_decoder)
    assert {stack.config._attn_implementation for stack in stacks} == {"eager"}
    ids, mask = mixed_rows(model)
    assert bool(model(ids, mask).text_logits.isfinite().all())


def test_a_folder_that_lacks_a_weight_is_refused(make_lm: MakeLM, tmp_path: Path) -> None:
    make_lm().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"projection\.weight"):
        UniAudioLM.from_pretrained(tmp_path)


def test_a_text_llm_is_loaded_from_its_folder(make_text_llm: Callable[..., PreTrainedModel], tmp_path: Path) -> None:
    make_text_llm("qwen2").save_pretrained(tmp_path)
    model = UniAudioLM.from_text_llm(tmp_path, num_audio_streams=2)
    token_ids = torch.arange(6)[None]
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(tmp_path)(token_ids).logits
        assert torch.equal(model(*text_rows(token_ids, 2)).text_logits, expected)


def test_new_weights_are_those_of_the_seed_and_move_no_generator(make_lm: MakeLM) -> None:
    state = torch.get_rng_state()
    one, same, other = make_lm(seed=1), make_lm(seed=1), make_lm(seed=2)
    assert torch.equal(one.audio_head, same.audio_head)
    assert not torch.equal(one.audio_head, other.audio_head)
    torch.manual_seed(5)
    assert not torch.equal(state, torch.get_rng_state())  # the fixture's own seed


# Bad input


def test_a_text_llm_of_another_family_is_refused_with_those_supported() -> None:
    other = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(ValueError, match=r"'gpt2'.*llama, qwen2, qwen3, mistral"):
        UniAudioLM.from_text_llm(other)
    with pytest.raises(ValueError, match=r"text_config.*'gpt2'.*llama"):
        UniAudioLMConfig(text_config={"model_type": "gpt2"})


def test_a_quantized_text_llm_is_refused(make_text_llm: Callable[..., PreTrainedModel]) -> None:
    text_llm = make_text_llm()
    text_llm.is_quantized = True
    with pytest.raises(ValueError, match="is quantized and cannot be built into a UniAudioLM"):
        UniAudioLM.from_text_llm(text_llm)


def test_sizes_of_the_local_decoder_that_do_not_fit_are_refused(make_lm: MakeLM) -> None:
    with pytest.raises(ValueError, match=r"hiden_size: layers of llama have no such setting"):
        make_lm(local_decoder={"hiden_size": 8})
    with pytest.raises(ValueError, match=r"hidden_size=13 is no multiple of num_attention_heads=2"):
        make_lm("qwen2", local_decoder={"hidden_size": 13})


def test_a_model_without_a_head_for_text_is_refused(make_text_llm: Callable[..., PreTrainedModel]) -> None:
    with pytest.raises(ValueError, match="LlamaModel is no causal LM"):
        UniAudioLM.from_text_llm(make_text_llm().model)


def test_inputs_that_do_not_fit_are_refused(make_lm: MakeLM) -> None:
    model = make_lm()
    ids, mask = mixed_rows(model)
    with pytest.raises(ValueError, match=r"3 audio streams and the text"):
        model(ids[..., 1:], mask[..., 1:])
    with pytest.raises(ValueError, match=r"stream_mask has shape \[2, 3, 4\]"):
        model(ids, mask[:, :3])
    with pytest.raises(ValueError, match=r"loss_mask has shape"):
        model(ids, mask, mask[:, 1:])
    with pytest.raises(ValueError, match="nothing can be learned"):
        model(ids, mask, torch.ones_like(mask))
    with pytest.raises(ValueError, match="other than 0 and 1"):
        model(ids, mask * 0.5)
    with pytest.raises(ValueError, match=r"attention_mask has shape"):
        model(ids, mask, attention_mask=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"position_ids has shape"):
        model(ids, mask, position_ids=torch.arange(3)[None])
    positions = torch.arange(ids.shape[1]).expand(2, -1)
    with pytest.raises(ValueError, match="give positions alone"):
        model(ids, mask, position_ids=positions, attention_mask=torch.ones_like(positions))
    with pytest.raises(ValueError, match="float"):
        model(ids.float(), mask)
    for stream, wrong in ((1, 18), (1, -1), (3, 40)):
        broken = ids.clone()
        step = int(mask[0, :, stream].nonzero()[0])
        broken[0, step, stream] = wrong
        name = "the text stream" if stream == 3 else f"audio stream {stream}"
        with pytest.raises(ValueError, match=rf"{wrong} in {name}, row 0, step {step}"):
            model(broken, mask)


def test_ids_that_are_not_there_may_be_anything(make_lm: MakeLM) -> None:
    model = make_lm()
    ids, mask = mixed_rows(model)
    with torch.no_grad():
        assert torch.equal(model(ids, mask).text_logits, model(ids.masked_fill(~mask, -100), mask).text_logits)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"special_ids": {"reasoning_bos": 9}}, r"reasoning_bos=9 is not in \[0, 8\)"),
        ({"special_ids": {"reconstruction_eos": -1}}, "reconstruction_eos=-1"),
        ({"special_ids": {"text_pad": 40}}, r"text_pad=40 is not in \[0, 40\)"),
        ({"special_ids": {"text_parts": {"caption": [3, 99]}}}, r"caption.*\(end\)=99"),
        ({"special_ids": {"text_parts": {"caption": [3]}}}, "two marks"),
        ({"special_ids": {"reasoning_bos": 5, "reasoning_eos": 5}}, "cannot be told apart"),
        ({"special_ids": {"bos": 1}}, "bos is unknown"),
        ({"special_ids": {"text_pad": "x"}}, "whole number"),
        ({"stream_loss_weights": [1.0]}, "1 weights for 3"),
        ({"num_audio_streams": 0}, "num_audio_streams=0"),
        ({"audio_ignore_id": 99}, "audio_ignore_id=99"),
        ({"reasoning_vocab_size": -1}, "positive sizes"),
    ],
)
def test_settings_that_do_not_fit_are_refused(make_lm: MakeLM, settings: dict[str, Any], message: str) -> None:
    values = json.loads(make_lm().config.to_json_string(use_diff=False))
    assert UniAudioLMConfig(**values)
    with pytest.raises(ValueError, match=message):
        UniAudioLMConfig(**{**values, **settings})


def test_an_expert_of_another_width_is_refused(make_lm: MakeLM) -> None:
    config = make_lm().config
    with pytest.raises(ValueError, match=r"generation_expert_config\.hidden_size=12.*has 16"):
        UniAudioLMConfig(
            text_config=config.text_config, generation_expert_config=config.local_decoder_config,
            special_ids=SpecialIds.none(),
        )  # fmt: skip


def test_released_weights_are_read_from_checkpoints_of_torch_and_refused_where_they_do_not_fit(
    make_lm: MakeLM, tmp_path: Path
) -> None:
    model = make_lm()
    released = to_released(model.state_dict(), model.config)
    path = tmp_path / "lm.checkpoint"
    torch.save({"model": {f"module.{name}": tensor for name, tensor in released.items()}}, path)
    loaded = UniAudioLM.from_released(path, model.config).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
    head = released.pop("audio_head")
    torch.save({"model": {**released, "projection.weight": head, "poem": head}}, path)
    with pytest.raises(ValueError, match=r"missing: audio_head; unknown: poem; wrong shape: projection\.weight"):
        UniAudioLM.from_released(path, model.config)
    torch.save({"model": {"epoch": 3}}, path)
    with pytest.raises(ValueError, match="'epoch' is a int"):
        UniAudioLM.from_released(path, model.config)


def test_released_names_are_for_llama_alone(make_lm: MakeLM, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"text_config: .*qwen2"):
        UniAudioLM.from_released(tmp_path / "model.safetensors", make_lm("qwen2").config)
