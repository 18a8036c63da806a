"""The multi-stream LM computes what the published code computed: logits, losses, gradients, frames, layouts."""
# Sizes, marks and tolerances are those of the folder's meta.json.

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaConfig

from audiollm.uniaudio import TASKS, Layout, SpecialIds, UniAudioLM, UniAudioLMConfig, lay_out, pad_batch
from audiollm.uniaudio.configuration import paper_local_decoder_config
from audiollm.uniaudio.generation import Steps, guided, write_frame
from audiollm.uniaudio.released import to_released
from audiollm.uniaudio.settings import Choice

STACKS = {
    "text_config": "backbone",
    "understanding_expert_config": "meta-llama/Llama-3.2-Understanding",
    "generation_expert_config": "meta-llama/Llama-3.2-Generation",
    "local_decoder_config": "local",
}
PARTS = {"reason": "reasoning", "semantic": "reconstruction"}


def llama_config(gpt: Mapping[str, Any]) -> LlamaConfig:
    """The configuration of a stack as the published code writes it, in the words of transformers."""
    assert (gpt["norm_class_name"], gpt["mlp_class_name"], gpt["bias"]) == ("RMSNorm", "LLaMAMLP", False)
    rope = {"rope_type": "default", "rope_theta": float(gpt["rope_base"])}
    if gpt.get("rope_adjustments"):
        given = dict(gpt["rope_adjustments"])
        rope |= {"rope_type": "llama3", "original_max_position_embeddings": given.pop("original_max_seq_len"), **given}
    return LlamaConfig(
        vocab_size=gpt["padded_vocab_size"], hidden_size=gpt["n_embd"], intermediate_size=gpt["intermediate_size"],
        num_hidden_layers=gpt["n_layer"], num_attention_heads=gpt["n_head"], num_key_value_heads=gpt["n_query_groups"],
        max_position_embeddings=gpt["block_size"], rms_norm_eps=1e-5, rope_parameters=rope, pad_token_id=None,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip


def read_meta(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "meta.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def config_of(folder: Path, ignore_id: int | None = None) -> UniAudioLMConfig:
    meta = read_meta(folder)
    sizes = meta["sizes"]
    return UniAudioLMConfig(
        **{ours: llama_config(sizes["gpt"][theirs]) for ours, theirs in STACKS.items()},
        num_audio_streams=sizes["num_audio_streams"],
        reasoning_vocab_size=sizes["audio_reason_vocab"],
        reconstruction_vocab_size=sizes["audio_semantic_vocab"],
        special_ids=SpecialIds.none(),
        text_loss_weight=meta["text_loss_weight"],
        stream_loss_weights=meta["audio_stream_loss_weights"],
        audio_ignore_id=ignore_id,
    )


def tolerance(folder: Path, kind: str) -> dict[str, float]:
    """The words of the meta file, such as "rtol 1e-3, atol 1e-6"."""
    values = dict(one.split() for one in read_meta(folder)["tolerance"][kind].split(", "))
    return {"rtol": float(values.get("rtol", 0)), "atol": float(values.get("atol", 0))}


@pytest.fixture(scope="module")
def io(uniaudio2_lm_folder: Path) -> dict[str, Tensor]:
    return load_file(uniaudio2_lm_folder / "io.safetensors")


@pytest.fixture(scope="module")
def model(uniaudio2_lm_folder: Path, io: dict[str, Tensor]) -> UniAudioLM:
    config = config_of(uniaudio2_lm_folder, int(io["audio_ignore_id"]))
    return UniAudioLM.from_released(uniaudio2_lm_folder / "model.safetensors", config)


def test_logits_are_those_of_the_reference(uniaudio2_lm_folder: Path, model: UniAudioLM, io: dict[str, Tensor]) -> None:
    with torch.no_grad():
        output = model(io["tokens"], io["mask"], io["loss_mask"])
    close = tolerance(uniaudio2_lm_folder, "logits")
    torch.testing.assert_close(output.text_logits[:, :-1], io["text_logits"], **close)
    torch.testing.assert_close(output.audio_logits, io["audio_logits"], **close)
    assert torch.equal(output.audio_labels, io["audio_labels"])
    assert torch.equal(output.audio_loss_mask, io["audio_loss_mask"][:, :-1] != 0)


def test_losses_accuracies_and_gradients_are_those_of_the_reference(
    uniaudio2_lm_folder: Path, model: UniAudioLM, io: dict[str, Tensor]
) -> None:
    model.zero_grad()
    output = model(io["tokens"], io["mask"], io["loss_mask"])
    output.loss.backward()
    close = tolerance(uniaudio2_lm_folder, "losses")
    found = {"text": output.text_loss, "audio": output.audio_loss, "total": output.loss}
    for name, loss in found.items():
        torch.testing.assert_close(loss, io[f"loss_{name}"][0], **close)
    torch.testing.assert_close(output.text_accuracy, io["accuracy_text"][0], **close)
    streams = [name for name in io if name.startswith("accuracy_audio_")]
    assert streams
    for name in streams:  # counted from 1
        torch.testing.assert_close(output.audio_accuracies[int(name.rpartition("_")[2]) - 1], io[name][0], **close)
    gradients = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    named = to_released(gradients, model.config)
    expected = {name.removeprefix("grad."): one for name, one in io.items() if name.startswith("grad.")}
    assert expected
    for name, gradient in expected.items():
        torch.testing.assert_close(named[name], gradient, **tolerance(uniaudio2_lm_folder, "grad"), msg=name)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("case", ["greedy", "greedy_cfg"])
def test_frames_are_those_of_the_reference(
    uniaudio2_lm_folder: Path, model: UniAudioLM, io: dict[str, Tensor], case: str, use_cache: bool
) -> None:
    settings = read_meta(uniaudio2_lm_folder)["generation"]
    scale = settings["cfg_scale"][case]
    prefix = io[f"{case}.prefix_text_logits"]
    ids, mask = io["prompt_tokens"][: len(prefix)], io["prompt_mask"][: len(prefix)] != 0
    config = model.config
    choose = Choice(settings["temperature"], settings["topk"])
    forbidden = torch.zeros(1, 1, config.audio_vocab_size, dtype=torch.bool)
    # "0 for frames 0-2, audio_reason_vocab for frames 3-5"
    found = re.search(r"audio_reason_vocab for frames (\d+)-(\d+)", settings["forbid_prefix"])
    assert found is not None
    without_reasoning = range(int(found[1]), int(found[2]) + 1)
    frames = []
    with torch.no_grad():
        steps = Steps(model, ids[:, :-1], mask[:, :-1], mask[:, :-1].any(-1), use_cache)
        logits = model.get_output_embeddings()(steps.hidden_all)
        torch.testing.assert_close(logits, prefix, **tolerance(uniaudio2_lm_folder, "logits"))
        steps.append(ids[:, -1:], mask[:, -1:])
        for number in range(settings["frames"]):
            forbidden[..., : config.reasoning_vocab_size] = number in without_reasoning
            text = choose(guided(model.get_output_embeddings()(steps.hidden).float(), scale))
            frame = write_frame(
                model, steps.hidden, choose, forbidden_BKA=forbidden, guidance_scale=scale, use_cache=use_cache
            )
            frames.append(torch.cat((text[:, None], frame), 1))
            steps.add_frame(frame)
    assert torch.equal(torch.stack(frames, 1), io[f"{case}.frames"])


# Layouts


@pytest.fixture(scope="module")
def layout_config(uniaudio2_lm_folder: Path) -> UniAudioLMConfig:
    meta = read_meta(uniaudio2_lm_folder)
    ids, texts = meta["layout_special_ids"], meta["layout_text_special_ids"]
    config = config_of(uniaudio2_lm_folder)
    config.text_config.vocab_size = max([*texts.values(), ids["text_pad_token"]]) + 1
    config.reasoning_vocab_size, config.reconstruction_vocab_size = ids["audio_reason_card"], ids["audio_semantic_card"]
    marks = SpecialIds(
        reasoning_bos=ids["reason_bos"], reasoning_eos=ids["reason_eos"], reasoning_pad=ids["reason_pad_token"],
        reconstruction_bos=ids["semantic_bos"], reconstruction_eos=ids["semantic_eos"],
        reconstruction_pad=ids["semantic_pad_token"], text_pad=ids["text_pad_token"],
        text_parts={
            name: (texts[f"<{name}>"], texts[f"</{name}>"]) for name in ("transcription", "lyric", "caption")
        },
    )  # fmt: skip
    return UniAudioLMConfig(**{**config.to_dict(), "special_ids": marks.to_dict()})


def parts_of(io: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The inputs under a prefix, codes a row per stream."""
    found = {}
    for name, value in io.items():
        if name.startswith(prefix) and name.endswith("_seq"):
            part = name.removeprefix(prefix).removesuffix("_seq")
            found[PARTS.get(part, part)] = value.T if part in PARTS else value
    return found


def check_layout(layout: Layout, io: Mapping[str, Tensor], prefix: str) -> None:
    assert torch.equal(layout.input_ids, io[f"{prefix}.tokens"])
    assert torch.equal(layout.stream_mask, io[f"{prefix}.mask"])
    assert torch.equal(layout.loss_mask, io[f"{prefix}.loss_mask"])


def test_the_layout_of_each_task_is_that_of_the_reference(
    uniaudio2_lm_folder: Path, layout_config: UniAudioLMConfig, io: dict[str, Tensor]
) -> None:
    for name, described in read_meta(uniaudio2_lm_folder)["layout_tasks"].items():
        task = TASKS[name.removesuffix("_unconditional")]
        named = [key.removesuffix("_seq") for key in described["keys"]]
        assert task.parts == tuple(PARTS.get(key, key) for key in named)
        layout = lay_out(
            task,
            parts_of(io, f"layout.{name}.in."),
            layout_config,
            prompt=io.get(f"layout.{name}.in.prompt"),
            unconditional=name.endswith("_unconditional"),
        )
        check_layout(layout, io, f"layout.{name}")


def test_a_batch_is_padded_as_the_reference_pads_it(layout_config: UniAudioLMConfig, io: dict[str, Tensor]) -> None:
    rows = []
    for item in ("a", "b"):
        parts = parts_of(io, f"layout.batch.in.{item}.")
        # Which task an item is shows in its parts.
        task = next(
            name for name in ("TTS", "LTS", "text_only", "audio_only") if set(TASKS[name].parts) == parts.keys()
        )
        prompt = io["layout.batch.in.prompt"] if TASKS[task].has_prompt else None
        rows.append(lay_out(task, parts, layout_config, prompt=prompt))
    assert [len(row) for row in rows] == io["layout.batch.lengths"].tolist()
    check_layout(pad_batch(rows, layout_config), io, "layout.batch")


# Names


def test_a_model_of_released_size_has_the_released_names_and_shapes(uniaudio2_lm_folder: Path) -> None:
    names = json.loads((uniaudio2_lm_folder / "full_size_state_dict_keys.json").read_text(encoding="utf-8"))
    num_streams, local_width, size = names["audio_head"][0]
    config = UniAudioLMConfig(
        num_audio_streams=num_streams, reasoning_vocab_size=size, reconstruction_vocab_size=0,
        special_ids=SpecialIds.none(),
    )  # fmt: skip
    assert local_width == paper_local_decoder_config().hidden_size
    with torch.device("meta"):
        model = UniAudioLM(config)
    released = to_released(model.state_dict(), config)
    assert {name: list(one.shape) for name, one in released.items()} == {name: one[0] for name, one in names.items()}


def test_renaming_there_and_back_changes_nothing(model: UniAudioLM, uniaudio2_lm_folder: Path) -> None:
    stored = load_file(uniaudio2_lm_folder / "model.safetensors")
    back = to_released(model.state_dict(), model.config)
    assert back.keys() == stored.keys()
    assert all(torch.equal(back[name], stored[name]) for name in stored)
