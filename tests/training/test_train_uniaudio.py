"""Whole stages of the training of a multi-stream LM, on tiny models."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from audiollm.data.conversation.loading import load_conversations
from audiollm.tokenizer.grouped import GroupedLayout, GroupedSequenceTokenizer
from audiollm.training.audio_llm.records import EncodedRecords
from audiollm.training.loop.errors import ResumeError
from audiollm.training.train_uniaudio import train
from audiollm.training.uniaudio.config import TextLoRASettings, UniAudioSizes, UniAudioTrainingConfig
from audiollm.training.uniaudio.stages import ORDER, modules_of
from audiollm.uniaudio import UniAudio, pad_batch
from audiollm.uniaudio.processor import rows_of
from tests.tokenizer.reasoningcodec.conftest import make as tiny_reasoningcodec
from tests.toy_codec import ToyCodec, register

from .finished_runs import assert_same_weights, metrics_of, weights_of

WORDS = ("red", "green", "blue", "cat")
NUM_STREAMS = 2
LOCAL = UniAudioSizes(understanding_layers=1, generation_layers=1, local_decoder_layers=1)


@pytest.fixture(autouse=True)
def known_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


def record(number: int, generator: random.Random) -> dict[str, Any]:
    """A clip whose codes all belong to a word; asked for the word, or the other way round, or both in a sentence."""
    word = generator.randrange(len(WORDS))
    frames = [4 * word + generator.randrange(4) for _ in range(generator.randrange(2, 6) * NUM_STREAMS)]
    symbols = [code + 16 * (place % NUM_STREAMS) for place, code in enumerate(frames)]
    clip, text = [{"type": "audio", "codes": symbols}], WORDS[word]
    asked = [*clip, {"type": "text", "text": "What?"}]
    listens = [{"role": "user", "content": asked}, {"role": "assistant", "content": text}]
    speaks = [{"role": "user", "content": f"Say {text}."}, {"role": "assistant", "content": clip}]
    return {"id": f"record-{number}", "messages": [listens, speaks, listens + speaks][number % 3]}


@pytest.fixture
def corpus(tmp_path: Path) -> dict[str, Path]:
    generator = random.Random(0)
    found = {}
    for name, numbers in (("train", range(24)), ("dev", range(100, 109))):
        found[name] = tmp_path / f"{name}.jsonl"
        found[name].write_text("".join(json.dumps(record(n, generator)) + "\n" for n in numbers))
    found["text"] = tmp_path / "held_out.txt"
    found["text"].write_text("the red cat\nblue birds\n")
    return found


@pytest.fixture
def stage_config(assets: Any, corpus: dict[str, Path], tmp_path: Path) -> Callable[..., UniAudioTrainingConfig]:
    """Six short updates of the first stage; every setting can be changed."""
    ToyCodec(NUM_STREAMS, 16).save_pretrained(tmp_path / "codec")

    def make(**changes: Any) -> UniAudioTrainingConfig:
        settings: dict[str, Any] = {
            "stage": "understanding_warmup", "train_data": str(corpus["train"]), "output_dir": str(tmp_path / "run"),
            "max_steps": 6, "global_batch_size": 8, "micro_batch_size": 2, "learning_rate": 1e-2, "sizes": LOCAL,
        }  # fmt: skip
        if "model" not in changes:
            settings |= {"model": str(assets.text_llm), "audio_tokenizer": str(tmp_path / "codec")}
        return UniAudioTrainingConfig(**(settings | changes))

    return make


def test_four_stages_learn_what_is_theirs_and_leave_the_text_llm(stage_config, corpus, assets, tmp_path):
    held_out = {"eval_data": str(corpus["dev"]), "eval_text": str(corpus["text"])}
    train(stage_config(output_dir=str(tmp_path / "0"), max_steps=20, **held_out))
    for number, stage in enumerate(ORDER[1:], 1):
        lora = TextLoRASettings(r=2) if number > 1 else None
        train(
            stage_config(
                stage=stage,
                model=str(tmp_path / str(number - 1)),
                output_dir=str(tmp_path / str(number)),
                max_steps=20,
                lora=lora,
                **held_out,
            )
        )
    models = [UniAudio.from_pretrained(tmp_path / "0" / "extended").model]
    models += [UniAudio.from_pretrained(tmp_path / str(number)).model for number in range(4)]
    assert models[-1].config.trained_stages == list(ORDER)
    parts = ("audio_embeddings", "understanding_expert", "generation_expert", "local_decoder", "text_llm")
    changed = []
    for before, after in itertools.pairwise(models):
        now = [part for part in parts if bits(before, part) != bits(after, part)]
        changed.append(now)
    of_listening, of_speaking = ["audio_embeddings", "understanding_expert"], ["generation_expert", "local_decoder"]
    assert changed == [of_listening, of_speaking, list(parts), list(parts)]
    for number in range(4):
        lines = metrics_of(tmp_path / str(number))
        figure = "text_nll" if number == 0 else "audio_nll" if number == 1 else "loss"
        assert np.mean([one[figure] for one in lines[-4:]]) < np.mean([one[figure] for one in lines[:4]]), number
        [probe] = metrics_of(tmp_path / str(number), "start")
        [evaluation] = metrics_of(tmp_path / str(number), "eval")
        assert len(evaluation["stream_nll"]) == NUM_STREAMS
        is_same = probe["text_perplexity"] == evaluation["text_perplexity"]
        assert is_same == (number < 2)  # warm-ups don't touch what says text


def bits(model: torch.nn.Module, part: str) -> list[bytes]:
    found: list[bytes] = []
    for one in modules_of(model, part):
        weights = [one] if isinstance(one, torch.nn.Parameter) else list(one.parameters())
        found += [weight.detach().numpy().tobytes() for weight in weights]
    return found


def test_the_loss_of_an_update_is_that_of_all_its_records_together(stage_config, corpus, tmp_path):
    weights = (2.0, 0.5)
    train(stage_config(max_steps=1, global_batch_size=24, stream_loss_weights=weights, unconditional_share=0.0))
    [line] = metrics_of(tmp_path / "run")
    uniaudio = UniAudio.from_pretrained(tmp_path / "run" / "extended")
    uniaudio.model.config.stream_loss_weights = list(weights)
    encoded = uniaudio.processor.encode_conversations(load_conversations(corpus["train"])[:])
    rows = [rows_of(one.token_ids, one.labels, one.frames, uniaudio.model.config) for one in encoded]
    batch = pad_batch(rows, uniaudio.model.config)
    with torch.no_grad():
        output = uniaudio.model(batch.input_ids, batch.stream_mask, batch.loss_mask)
    assert line["loss"] == pytest.approx(float(output.loss), rel=1e-5)
    assert line["text_nll"] == pytest.approx(float(output.text_loss), rel=1e-5)


@pytest.mark.parametrize(
    "cut", [{"micro_batch_size": 8}, {"tokens_per_pass": 60}, {"tokens_per_pass": 60, "packing": "pack"}]
)
def test_passes_and_packing_change_no_update(stage_config, tmp_path, cut):
    plain = {"trained_parts": ("audio_embeddings", "understanding_expert", "generation_expert", "local_decoder")}
    train(stage_config(output_dir=str(tmp_path / "plain"), max_steps=3, **plain))
    train(stage_config(output_dir=str(tmp_path / "cut"), max_steps=3, **plain, **cut))
    for one, other in zip(metrics_of(tmp_path / "plain"), metrics_of(tmp_path / "cut"), strict=True):
        for name in ("loss", "text_nll", "audio_nll", "grad_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-3), name


def test_interrupted_and_resumed_equals_uninterrupted_to_the_bit(stage_config, corpus, tmp_path):
    first = train(stage_config(output_dir=str(tmp_path / "0"), max_steps=1)).model_folder
    second = stage_config(stage="generation_warmup", model=str(first), output_dir=str(tmp_path / "1"), max_steps=1)
    third = {
        "stage": "pretraining", "model": str(train(second).model_folder), "lora": TextLoRASettings(r=2, dropout=0.2),
        "eval_data": str(corpus["dev"]), "eval_every": 2, "save_every": 3,
    }  # fmt: skip
    train(stage_config(output_dir=str(tmp_path / "straight"), **third))
    resumed = tmp_path / "resumed"
    shutil.copytree(tmp_path / "straight", resumed)
    shutil.rmtree(resumed / "model")
    shutil.rmtree(resumed / "checkpoints" / "step_000006")
    train(stage_config(output_dir=str(resumed), resume="latest", **third))
    for event in ("train", "eval"):
        assert metrics_of(resumed, event) == metrics_of(tmp_path / "straight", event)
    assert_same_weights(resumed, tmp_path / "straight")


@pytest.mark.multiprocess
def test_two_processes_make_the_updates_of_one(stage_config, assets, tmp_path, launches):
    # In processes of its own no toy is known: the tokenizer of one codebook, whose codes the records hold.
    generator = random.Random(0)
    records = tmp_path / "one_codebook.jsonl"
    lines = [record(number, generator) for number in range(24)]
    records.write_text("".join(json.dumps(one) + "\n" for one in lines))
    settings = {"train_data": str(records), "audio_tokenizer": str(assets.audio_tokenizer), "max_steps": 3}
    parts = {"trained_parts": ("audio_embeddings", "understanding_expert", "generation_expert", "local_decoder")}
    single = stage_config(output_dir=str(tmp_path / "single"), **settings, **parts)
    double = stage_config(output_dir=str(tmp_path / "double"), **settings, **parts)
    train(single)
    ended = launches.run("ddp", "training/train_uniaudio.py", double)
    assert ended.returncode == 0, ended.stdout
    for one, other in zip(metrics_of(tmp_path / "single"), metrics_of(tmp_path / "double"), strict=True):
        for name in ("loss", "text_nll", "audio_nll", "grad_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-4), name
    for name, tensor in weights_of(tmp_path / "single").items():
        torch.testing.assert_close(tensor, weights_of(tmp_path / "double")[name], rtol=1e-3, atol=1e-4)


def test_a_mixture_of_sources_trains(stage_config, corpus, tmp_path):
    mixture = tmp_path / "mixture.yaml"
    mixture.write_text("sources:\n- {data: train.jsonl, weight: 2}\n- {data: dev.jsonl, weight: 1}\n")
    for number, budget in enumerate(({}, {"tokens_per_update": 80, "global_batch_size": 64})):
        output = tmp_path / f"mixed{number}"
        train(stage_config(train_data=str(mixture), output_dir=str(output), max_steps=2, **budget))
        assert [line["step"] for line in metrics_of(output)] == [1, 2]


# --- bad input --------------------------------------------------------------------------------------------------------


def test_a_stage_out_of_its_turn_is_refused_and_says_what_to_run(stage_config, tmp_path):
    with pytest.raises(ValueError, match=r"stage=pretraining.*no stage yet.*--config uniaudio_understanding_warmup"):
        train(stage_config(stage="pretraining"))
    model = str(train(stage_config(max_steps=1)).model_folder)
    again = {"model": model, "output_dir": str(tmp_path / "again")}
    with pytest.raises(ValueError, match=r"has been through understanding_warmup, and generation_warmup is what comes"):
        train(stage_config(stage="midtraining", **again))
    assert train(stage_config(max_steps=1, **again)).steps == 1  # more of the same stage


def test_a_text_llm_of_another_family_is_refused(stage_config, assets, tmp_path):
    other = shutil.copytree(assets.text_llm, tmp_path / "gpt2")
    GPT2LMHeadModel(GPT2Config(vocab_size=259, n_embd=8, n_layer=1, n_head=1)).save_pretrained(other)
    with pytest.raises(ValueError, match=r"family 'gpt2'.*llama, qwen2, qwen3, mistral"):
        train(stage_config(model=str(other), audio_tokenizer=str(tmp_path / "codec")))
    with pytest.raises(ValueError, match=r"is no multi-stream LM.*name its audio_tokenizer"):
        train(stage_config(model=str(assets.text_llm)))


def test_another_codebook_size_is_refused_by_a_resumed_run_and_by_the_next_stage(stage_config, tmp_path):
    train(stage_config(max_steps=2, save_every=1))
    larger = ToyCodec(NUM_STREAMS, codebook_size=32)
    larger.save_pretrained(tmp_path / "larger")
    with pytest.raises(ValueError, match=r"larger does not fit .*codebooks of 32 entries, and the LM was made for 16"):
        train(
            stage_config(
                model=str(stage_config().model), audio_tokenizer=str(tmp_path / "larger"), max_steps=2, resume="latest"
            )
        )
    with pytest.raises(ValueError, match="codebooks of 32 entries"):
        train(
            stage_config(
                stage="generation_warmup",
                model=str(tmp_path / "run"),
                audio_tokenizer=str(tmp_path / "larger"),
                output_dir=str(tmp_path / "next"),
            )
        )
    with pytest.raises(ResumeError, match="learning_rate"):
        train(stage_config(max_steps=2, resume="latest", learning_rate=1e-3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora": TextLoRASettings()}, "stage=understanding_warmup leaves the layers"),
        ({"trained_parts": ("text_llm",)}, "leaves it as it is"),
        ({"stage": "pretraining", "lora": TextLoRASettings(), "trained_parts": ("text_llm",)}, "by one of them"),
        ({"unconditional_share": 1.5}, "share between 0 and 1"),
        ({"stream_loss_weights": (-1.0,)}, "zero or more"),
        ({"metric_for_best": "wer", "eval_data": "dev.jsonl"}, "use one of loss"),
    ],
)
def test_settings_that_cannot_work_are_refused(stage_config, settings, message):
    with pytest.raises(ValueError, match=message):
        stage_config(**settings)


def test_weights_of_streams_must_be_as_many_as_streams(stage_config):
    with pytest.raises(ValueError, match="3 weights, and the model 2 audio streams"):
        train(stage_config(stream_loss_weights=(1.0, 1.0, 1.0)))


def test_a_record_that_is_too_long_or_has_broken_frames_is_named(stage_config, corpus):
    whole = corpus["train"].read_text()
    lines = [json.loads(line) for line in whole.splitlines()]
    lines[0]["messages"][0]["content"][0]["codes"].append(3)  # half a frame
    corpus["train"].write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match=r"train\.jsonl:1.*breaks off"):
        train(stage_config())
    corpus["train"].write_text(whole)
    with pytest.raises(ValueError, match=r"more than max_length=10"):
        train(stage_config(max_length=10))


def test_encoded_records_count_steps_and_hold_their_frames(stage_config, corpus, tmp_path):
    train(stage_config(max_steps=1))
    processor = UniAudio.from_pretrained(tmp_path / "run").processor
    records = EncodedRecords(
        load_conversations(corpus["train"]), processor, max_length=100, vocabulary_size=processor.vocabulary_size,
        cache_tokens=0,
    )  # fmt: skip
    [one] = records.encode([0])
    num_frames = len(json.loads(corpus["train"].read_text().splitlines()[0])["messages"][0]["content"][0]["codes"]) // 2
    assert one.frames is not None
    assert one.frames.shape == (num_frames + 2, NUM_STREAMS)
    assert int((one.token_ids >= processor.config.text_config.vocab_size).sum()) == num_frames + 2


def test_codes_of_two_rates_are_learned_from_recordings_and_from_codes_alike(stage_config, tmp_path):
    codec = tiny_reasoningcodec(reasoning_quantizer=(4, 32, 8))
    codec.save_pretrained(tmp_path / "two_rates")
    generator = torch.Generator().manual_seed(0)
    heard, given = tmp_path / "heard.jsonl", tmp_path / "given.jsonl"
    one_row = GroupedSequenceTokenizer(codec, GroupedLayout.of(codec))
    lines: dict[Path, list[str]] = {heard: [], given: []}
    for number in range(4):
        waveform = 0.3 * torch.randn(12_000, generator=generator)
        soundfile.write(tmp_path / f"{number}.wav", waveform.numpy(), 24_000, subtype="FLOAT")
        symbols = one_row.encode([waveform], 24_000)[0][0].tolist()
        for path, part in ((heard, {"path": str(tmp_path / f"{number}.wav")}), (given, {"codes": symbols})):
            content = [{"type": "audio", **part}]
            messages = [{"role": "user", "content": "Go on."}, {"role": "assistant", "content": content}]
            lines[path].append(json.dumps({"id": str(number), "messages": messages}))
    lines_of = {}
    for path, chosen in lines.items():
        path.write_text("\n".join(chosen) + "\n")
        run = tmp_path / path.stem
        train(
            stage_config(
                audio_tokenizer=str(tmp_path / "two_rates"), train_data=str(path), output_dir=str(run), max_steps=3,
                global_batch_size=4,
            )
        )  # fmt: skip
        lines_of[path] = [line["loss"] for line in metrics_of(run)]
    assert lines_of[heard] == lines_of[given]
    assert lines_of[heard][-1] < lines_of[heard][0]
    answers = UniAudio.from_pretrained(tmp_path / "heard").answer_in_sound(
        [{"role": "user", "content": "Go on."}], max_frames=12, seed=0, steps=2
    )
    assert answers.reasoning[0].shape[0] == answers.codes[0].shape[0] == 4
