"""Evaluation of tokenizers in training: sums do not depend on batches or processes, texts are scored by their task."""

from __future__ import annotations

import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import WhisperTokenizerFast

from audiollm.data.sap.parsing import parse_sap
from audiollm.tokenizer.configuration import UniAudioTokenizerConfig
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.tokenizer.supervision.model import SupervisedTokenizer
from audiollm.tokenizer.supervision.text import SapText
from audiollm.tokenizer.supervision.text_decoder import SapDecoder
from audiollm.training.audio_tokenizer import evaluation as tokenizer_evaluation
from audiollm.training.audio_tokenizer.batches import collate_examples
from audiollm.training.audio_tokenizer.evaluation import TextSample, evaluate_tokenizer, score_texts, write_samples
from audiollm.training.audio_tokenizer.records import TokenizerRecords

SAP = {
    "linguistic_content": "two birds",
    "vocal_attributes": {"gender": "Female"},
    "auditory_scenes": {"summary": "A woman speaks.", "events": []},
}
TASKS = {"asr": 1.0, "sap": 1.0, "emotion": 1.0}


def build_text() -> SapText:
    """One token per byte, and Whisper's marks."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(BPE(vocab={character: n for n, character in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    marks = ["<|endoftext|>", "<|startoftranscript|>"]
    backend.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    return SapText(WhisperTokenizerFast(tokenizer_object=backend), max_target_positions=250)


def build_model(text: SapText, quantize: bool = True) -> SupervisedTokenizer:
    config = UniAudioTokenizerConfig(
        num_mel_bins=80, d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32,
        max_source_positions=1500, pooling_kernel_size=2, quantize_position=2, quantize_vocab_size=16,
        encoder_residual_source_position=1, encoder_residual_target_position=2, use_residual_adapter=True,
        use_residual_gate=True, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=32,
        max_target_positions=250, vocab_size=len(text), pad_token_id=text.pad_id, init_std=0.3,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SupervisedTokenizer(UniAudioTokenizer(config), SapDecoder(config), text)
    model.quantize = quantize
    return model


@pytest.fixture(scope="module")
def text() -> SapText:
    return build_text()


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory, text: SapText) -> TokenizerRecords:
    folder = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    for number in range(9):
        samples = 0.1 * generator.standard_normal(4000 + 900 * (number * 5 % 9))
        soundfile.write(folder / f"{number}.wav", samples.astype(np.float32), 16000)
        kind: dict[str, Any] = {"text": "two birds", "sap": SAP, "emotion": "Happy"}
        if number % 3 == 1:
            kind = {"text": "", "sound_type": "music"}
        elif number % 3 == 2:
            kind = {"text": "red cat", "sound_type": "mix"}
        lines.append({"id": f"clip-{number}", "audio": f"{number}.wav", **kind})
    (folder / "dev.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return TokenizerRecords(str(folder / "dev.jsonl"), text, tasks=TASKS)


def test_sums_equal_a_plain_loop_over_single_clips(text, records):
    model = build_model(text).eval()
    losses: dict[str, list[float]] = {}
    counts, gates, error, power = torch.zeros(16), {}, 0.0, 0.0
    for index in range(len(records)):
        for n, task in enumerate(records.tasks(index)):
            example = records.example(index, 0, 0, task=task)
            batch = collate_examples([example], model.tokenizer.log_mel, token_stride=640, pad_id=text.pad_id)
            with torch.no_grad():
                output = model(batch.input_features, batch.attention_mask, batch.decoder_input_ids, batch.labels)
            total = losses.setdefault(task, [0.0, 0.0])
            total[0] += float(output.text_loss_sum)
            total[1] += float(output.num_targets)
            if n == 0:
                counts += torch.bincount(output.codes[0, : batch.num_frames], minlength=16)
                gates.setdefault(example.sound_type, []).append(float(output.gate_means[0]))
                error += float(output.quantization_error)
                power += float(output.feature_power)
    result = evaluate_tokenizer(model, records, text, step=1, num_samples=0)
    assert result["text_losses"] == pytest.approx({task: a / b for task, (a, b) in losses.items()}, rel=1e-5)
    assert result["loss"] == pytest.approx(
        sum(a for a, _ in losses.values()) / sum(b for _, b in losses.values()), rel=1e-5
    )
    assert result["num_targets"] == sum(b for _, b in losses.values())
    shares = counts / counts.sum()
    assert result["perplexity"] == pytest.approx(math.exp(-float(torch.xlogy(shares, shares).sum())), rel=1e-5)
    assert result["code_usage"] == float((counts > 0).sum()) / 16
    assert result["num_dead_codes"] == int((counts == 0).sum())
    assert result["relative_quantization_error"] == pytest.approx(error / power, rel=1e-4)
    assert result["gate_means"] == pytest.approx({name: np.mean(values) for name, values in gates.items()}, rel=1e-5)


class Together:
    """Collective calls of threads that stand for processes."""

    def __init__(self, num_processes: int) -> None:
        self.num_processes = num_processes
        self.barrier = threading.Barrier(num_processes)
        self.values: dict[int, Any] = {}

    def exchange(self, process: int, value: Any) -> list[Any]:
        self.values[process] = value
        self.barrier.wait(timeout=60)
        everyone = [self.values[n] for n in range(self.num_processes)]
        self.barrier.wait(timeout=60)
        return everyone


class ThreadAccelerator:
    """What evaluation needs of an accelerator."""

    def __init__(self, together: Together, process_index: int) -> None:
        self.together, self.process_index = together, process_index
        self.num_processes = together.num_processes
        self.is_main_process = process_index == 0

    def reduce(self, tensor: torch.Tensor, reduction: str) -> torch.Tensor:
        assert reduction == "sum"
        return torch.stack(self.together.exchange(self.process_index, tensor)).sum(dim=0)

    @staticmethod
    def autocast() -> Any:
        return nullcontext()


def assert_near(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value == (pytest.approx(other[name], rel=1e-4) if not isinstance(value, int) else other[name]), name


def test_the_size_of_batches_changes_nothing(text, records):
    model = build_model(text)
    settings: dict[str, Any] = {"step": 1, "num_samples": 2, "max_new_tokens": 20}
    whole = evaluate_tokenizer(model, records, text, batch_size=16, **settings)
    assert_near(evaluate_tokenizer(model, records, text, batch_size=1, **settings), whole)


@pytest.mark.parametrize("num_processes", [2, 20])
def test_processes_share_the_work_also_when_some_have_none(text, records, num_processes, monkeypatch, tmp_path):
    together = Together(num_processes)
    models = [build_model(text) for _ in range(num_processes)]
    mine = threading.local()

    def gather_object(value: list[Any]) -> list[Any]:
        return [one for some in together.exchange(mine.process, value) for one in some]

    monkeypatch.setattr(tokenizer_evaluation, "gather_object", gather_object)

    def evaluate(process: int) -> dict[str, Any]:
        mine.process = process
        accelerator: Any = ThreadAccelerator(together, process)
        return evaluate_tokenizer(
            models[process], records, text, step=1, num_samples=3, batch_size=2, max_new_tokens=20,
            folder=tmp_path / str(process), accelerator=accelerator,
        )  # fmt: skip

    alone = evaluate_tokenizer(build_model(text), records, text, step=1, num_samples=3, max_new_tokens=20)
    with ThreadPoolExecutor(num_processes) as executor:
        results = list(executor.map(evaluate, range(num_processes)))
    assert_near(results[0], alone)
    for result in results[1:]:
        assert_near(result, {name: alone[name] for name in result})
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def test_evaluating_changes_neither_model_nor_random_state(text, records):
    model = build_model(text).train()
    model.tokenizer.encoder.layers[0].eval()
    modes = [module.training for module in model.modules()]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    evaluate_tokenizer(model, records, text, step=1, num_samples=1, max_new_tokens=5)
    assert torch.rand(1) == expected
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_the_first_stage_has_no_codes_to_count(text, records, tmp_path):
    model = build_model(text, quantize=False)
    result = evaluate_tokenizer(model, records, text, step=3, num_samples=0, folder=tmp_path)
    assert result.keys() == {"num_clips", "loss", "text_losses", "num_targets", "gate_means", "num_samples"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000003.jsonl", "step_000003.txt"]


def test_drawn_clips_are_the_same_at_every_call(text, records, tmp_path):
    model = build_model(text)
    settings: dict[str, Any] = {"num_clips": 4, "num_samples": 1, "max_new_tokens": 8, "folder": tmp_path}
    first = evaluate_tokenizer(model, records, text, step=1, **settings)
    assert first == evaluate_tokenizer(model, records, text, step=2, **settings)
    assert first["num_clips"] == 4
    assert (tmp_path / "step_000001.jsonl").read_bytes() == (tmp_path / "step_000002.jsonl").read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "step_000001.jsonl").read_text().splitlines()]
    assert len(lines) == first["num_samples"] == len({line["task"] for line in lines})
    assert (tmp_path / "step_000001.codes.png").read_bytes().startswith(b"\x89PNG")
    other = evaluate_tokenizer(model, records, text, step=1, seed=1, num_clips=4, num_samples=0)
    assert other["loss"] != first["loss"]


def sample(task: str, reference: str, prediction: str) -> TextSample:
    return TextSample("clip", task, "speech", reference, prediction)


def test_texts_are_scored_by_their_task():
    sap = parse_sap(SAP)
    samples = [
        sample("asr", "Two birds.", "two words"),
        sample("asr", "a red cat", "a red cat"),
        sample("asr", "", "hello"),
        sample("asr", "", ""),
        sample("emotion", "Happy", "happy"),
        sample("emotion", "Happy", "Sad"),
        sample("caption", "a bell", "a ball"),
        sample("sap", "", json.dumps(SAP)),
        sample("sap", "", "{"),
    ]
    scores = score_texts(samples, [None] * 7 + [sap, sap])
    assert scores["wer"] == pytest.approx(1 / 5)
    assert scores["false_speech"] == 0.5
    assert scores["emotion_accuracy"] == 0.5
    assert scores["sap"]["valid_json"] == 0.5
    assert scores["sap"]["gender_accuracy"] == 0.5
    assert score_texts([], []) == {"num_samples": 0}


def test_samples_can_be_read_by_programs_and_people(tmp_path: Path):
    write_samples(tmp_path / "step_000007", [sample("asr", "two birds", "two words\nand more")])
    [line] = (tmp_path / "step_000007.jsonl").read_text().splitlines()
    assert TextSample(**json.loads(line)) == sample("asr", "two birds", "two words\nand more")
    assert "asr of clip (speech)\n  true:    two birds\n" in (tmp_path / "step_000007.txt").read_text()
