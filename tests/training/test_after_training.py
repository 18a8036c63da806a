"""What trainings leave for those who come after: the best weights, and cards whose examples run as they stand."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from audiollm.cli.training import with_packaged_config
from audiollm.modeling import AudioLLM
from audiollm.program import run_program
from audiollm.tokenizer.supervision.model import SupervisedTokenizer
from audiollm.training import sft, train_decoder, train_tokenizer
from audiollm.training.audio_llm.config import LoRASettings
from audiollm.training.audio_tokenizer.config import TokenizerSettings, TokenizerTrainingConfig
from audiollm.training.decoder.parts import join_decoder
from audiollm.training.decoder.vocoder.trainer import VocoderTrainer
from audiollm.training.loop.run import RunSummary

from .finished_runs import weights_of

EVALUATED = {"eval_every": 1, "save_every": 1, "keep_checkpoints": 1, "max_steps": 4, "load_best_at_end": True}


def best_at_two(step: int) -> dict[str, Any]:
    return {"loss": abs(step - 2) + 0.5}


def checked_end(summary: RunSummary, run: Path) -> Path:
    """The checkpoint of the best evaluation, after looking at what the end says."""
    assert (summary.model_step, summary.best.step, summary.steps) == (2, 2, 4)
    assert "those after update 2 of 4, of the best evaluation (loss 0.5)" in (run / "model" / "README.md").read_text()
    assert sorted(path.name for path in (run / "checkpoints").glob("step*")) == ["step_000002", "step_000004"]
    return run / "checkpoints" / "step_000002"


def test_an_audio_llm_ends_with_its_best_weights(make_config, assets, tmp_path, monkeypatch):
    monkeypatch.setattr(sft, "_evaluate", lambda parts, step: best_at_two(step))
    summary = sft.train(make_config(eval_data=str(assets.dev), **EVALUATED))
    best = load_file(checked_end(summary, tmp_path / "run") / "weights.safetensors")
    saved = weights_of(tmp_path / "run")
    assert all(torch.equal(saved[name.removeprefix("model.")], tensor) for name, tensor in best.items())


def test_a_tokenizer_ends_with_its_best_weights(make_tokenizer_config, tokenizer_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(train_tokenizer, "_evaluate", lambda *given: best_at_two(given[-1]))
    summary = train_tokenizer.train(make_tokenizer_config(eval_data=str(tokenizer_corpus.dev), **EVALUATED))
    checkpoint = checked_end(summary, tmp_path / "run")
    codebook = torch.load(checkpoint / "codebook.pt", weights_only=True)["weight"]
    saved = SupervisedTokenizer.from_pretrained(tmp_path / "run" / "model")
    assert torch.equal(saved.tokenizer.codebook.weight, codebook)


def test_a_vocoder_ends_with_its_best_weights(make_vocoder_config, decoder_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(VocoderTrainer, "evaluate", lambda self, step, folder: best_at_two(step))
    config = make_vocoder_config(eval_data=str(decoder_corpus.dev), discriminator_start=None, **EVALUATED)
    best = load_file(checked_end(train_decoder.train(config), tmp_path / "run") / "weights.safetensors")
    saved = weights_of(tmp_path / "run", "vocoder.safetensors")
    assert all(torch.equal(saved[name.removeprefix("vocoder.")], tensor) for name, tensor in best.items())


def test_the_end_of_a_first_stage_names_the_second_which_starts_from_it(make_tokenizer_config, tmp_path, caplog):
    caplog.set_level("INFO")
    settings = make_tokenizer_config(quantized=False, max_steps=1, audio_tokenizer=TokenizerSettings())
    train_tokenizer.train(settings)
    [command] = re.findall(r"next: audiollm train-tokenizer (.*)", caplog.text)
    options = [*with_packaged_config(shlex.split(command)), "--max_steps", "1"]
    config = run_program(TokenizerTrainingConfig, lambda config: config, arguments=options)
    assert (config.start_from, config.quantized) == (str(tmp_path / "run" / "model"), True)


# ------------------------------------------------------------------------ cards


@pytest.fixture
def card_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], ModelCard]:
    """Reads a model's card, looks at what every card must keep, and runs its example in the model's folder."""

    def read(model: Path) -> ModelCard:
        card = ModelCard.load(model / "README.md")
        assert str(tmp_path) not in card.content
        assert "/tmp" not in card.content
        tone = np.sin(np.arange(16000) / 20).astype(np.float32)
        soundfile.write(model / "recording.wav", 0.3 * tone, 16000)
        [example] = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
        monkeypatch.setattr("audiollm.generation.planning.TEXT_TOKENS", 8)  # the tiny model's context is short
        monkeypatch.chdir(model)
        exec(compile(example, str(model / "README.md"), "exec"), {})
        return card

    return read


def test_the_card_of_an_audio_llm_tells_data_base_licence_figures_and_settings(make_config, assets, tmp_path, card_of):
    base = shutil.copytree(assets.audio_llm, tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: cc-by-sa-3.0\n---\n")
    sft.train(make_config(model=str(base), eval_data=str(assets.dev), max_steps=1))
    card = card_of(tmp_path / "run" / "model")
    assert card.data.license == "cc-by-sa-3.0"
    assert "cc-by-sa-3.0, the licence of what it was made from." in card.text
    assert card.data.library_name == "audiollm"
    assert [result.metric_type for result in card.data.eval_results] == ["loss"]
    assert card.data.eval_results[0].dataset_name == "dev.jsonl"
    assert "- Audio-LLM: base. Licence: cc-by-sa-3.0." in card.text
    assert re.search(r"\| training \| train.jsonl \| 40 \| 0 \| \w{64} \|", card.text)
    assert re.search(r"\| evaluation \| dev.jsonl \| 9 \|", card.text)
    assert "learning_rate: 0.01" in card.text


def test_adapters_get_a_card_of_their_own(make_config, tmp_path, assets, card_of):
    sft.train(make_config(lora=LoRASettings(r=2), max_steps=1))
    adapter = tmp_path / "run" / "adapter"
    (adapter / "audio_llm").symlink_to(assets.audio_llm)  # the card knows the base by its name
    card = card_of(adapter)
    assert card.data.library_name == "peft"
    assert card.data.license is None


def test_adapters_and_checkpoints_of_the_embedded_model_name_it_and_no_place(
    make_config, tmp_path, assets, monkeypatch
):
    def no_hub(*_: object, **__: object) -> None:
        raise AssertionError("the Hub is asked")

    monkeypatch.setattr("audiollm.mini.mini_folder", lambda: assets.audio_llm)
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", no_hub)
    sft.train(make_config(model="mini", lora=LoRASettings(r=2), max_steps=1))
    settings = (tmp_path / "run" / "adapter" / "adapter_config.json").read_text()
    assert json.loads(settings)["base_model_name_or_path"] == "mini"
    assert str(assets.audio_llm) not in settings
    sft.train(make_config(model="mini", output_dir=str(tmp_path / "whole"), max_steps=1))
    for folder in ("run/adapter", "whole/checkpoints/step_000001"):
        AudioLLM.from_pretrained(tmp_path / folder)


@pytest.mark.parametrize("metric", ["wer", "accuracy", "accuracy_by_task/describe", "mcd"])
def test_a_figure_of_answers_that_are_not_generated_is_refused_before_training(make_config, assets, metric):
    with pytest.raises(ValueError, match=f"metric_for_best={metric} needs eval_generate_samples"):
        make_config(eval_data=str(assets.dev), metric_for_best=metric)


@pytest.mark.parametrize("quantized", [True, False])
def test_tokenizers_get_cards(make_tokenizer_config, tmp_path, card_of, quantized):
    settings = {} if quantized else {"audio_tokenizer": TokenizerSettings()}
    train_tokenizer.train(make_tokenizer_config(quantized=quantized, max_steps=1, **settings))
    card = card_of(tmp_path / "run" / "model")
    assert re.search(r"\| training \| train.jsonl \| 20 \| [\d.]+ \| 0 \| \w{64} \|", card.text)


def test_parts_of_a_decoder_and_the_whole_get_cards(make_decoder_config, make_vocoder_config, tmp_path, card_of):
    flow, vocoder = tmp_path / "flow_run" / "model", tmp_path / "vocoder_run" / "model"
    train_decoder.train(make_decoder_config(output_dir=str(flow.parent), max_steps=1))
    train_decoder.train(make_vocoder_config(output_dir=str(vocoder.parent), max_steps=1))
    (flow / "vocoder").symlink_to(vocoder)
    (vocoder / "flow").symlink_to(flow)
    assert card_of(flow).data.tags == ["audiollm", "waveform-decoder"]
    card_of(vocoder)
    join_decoder(flow.parent, vocoder.parent, tmp_path / "decoder")
    card = card_of(tmp_path / "decoder")
    assert "- flow model: flow_run" in card.text
