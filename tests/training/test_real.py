"""The experiment with a real LLM, on tiny models and a few of the recordings that ship: every step runs as it would,
only in this process; what is asked follows from labels, nothing held out is learned, a stopped run goes on."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM, WhisperConfig, WhisperModel

from audiollm.data.corpora.clips import Clip
from audiollm.data.corpora.sample_corpus import load_sample_corpus
from audiollm.modeling import AudioLLM
from audiollm.program import run_program
from audiollm.training import real
from audiollm.training.audio_llm.config import SFTConfig
from audiollm.training.loop.record import read_metrics
from audiollm.training.recipes.real import data as real_data
from audiollm.training.recipes.real import scoring
from audiollm.training.recipes.real import start as real_start
from audiollm.training.recipes.real.data import all_transcripts, of_each, questions_about, usable_clips
from audiollm.training.recipes.real.layout import RealLayout, Trial
from audiollm.training.recipes.real.report import BEGIN, END, PAGE, install_results, results_tables
from audiollm.training.recipes.schedule import read_steps
from audiollm.training.sft import train

from .conftest import ROOT, build_text_tokenizer

CONFIGS = ROOT / "training" / "configs"


def few_clips() -> list[Clip]:
    """Short ones of every sort, on both sides."""
    clips = [clip for clip in load_sample_corpus() if clip.duration_seconds <= 2.5]

    def key(clip: Clip) -> Any:
        return clip.split == "train", clip.sound_type, clip.language

    return of_each(clips, key, 3)


def build_llm(folder: Path) -> None:
    """A Llama with a token per byte."""
    config = LlamaConfig(
        vocab_size=259, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=1024, tie_word_embeddings=True, pad_token_id=None,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    build_text_tokenizer().save_pretrained(folder)


def build_whisper(folder: Path) -> None:
    config = WhisperConfig(
        d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        WhisperModel(config).save_pretrained(folder)


class Launches:
    """Trainings, in this process; the first ``num_failing`` of them end early."""

    def __init__(self, num_failing: int = 0) -> None:
        self.num_failing = num_failing
        self.flags: list[dict[str, str]] = []

    def __call__(self, script: str, settings: str, *flags: str, **_: Any) -> None:
        assert script == "sft.py"
        self.flags.append({"settings": settings, **dict(zip(flags[::2], flags[1::2], strict=True))})
        if len(self.flags) <= self.num_failing:
            raise subprocess.CalledProcessError(-9, script)
        run_program(SFTConfig, train, arguments=["--config", str(CONFIGS / settings), *flags])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    build_llm(folder / "llm")
    build_whisper(folder / "whisper")
    return folder


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """Little data, short answers, and a folder of its own for the modules of metrics."""
    cache = tmp_path_factory.mktemp("metrics")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluate.config.HF_MODULES_CACHE", str(cache / "modules"))
        patch.setattr("evaluate.config.HF_METRICS_CACHE", cache / "metrics")
        patch.setattr(real_data, "load_sample_corpus", few_clips)
        patch.setattr("audiollm.training.recipes.answering.MAX_ANSWER_TOKENS", {"transcribe": 4, "kind": 2})
        yield patch


def config_of(models: Path, folder: Path, **changes: Any) -> real.RealConfig:
    settings: dict[str, Any] = {
        "output_dir": str(folder), "llm": str(models / "llm"), "whisper": str(models / "whisper"), "small": True,
        "steps": 2, "codebook_size": 32,
    }  # fmt: skip
    return real.RealConfig(**(settings | changes))


@dataclass(frozen=True)
class Finished:
    """A run, and its results before any test adds to it."""

    layout: RealLayout
    results: dict[str, Any]


@pytest.fixture(scope="module")
def finished(models: Path, patched: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("real") / "run"
    patched.setattr(real, "launch_trainer", Launches())
    real.run_real(config_of(models, folder))
    layout = RealLayout(folder)
    return Finished(layout, read(layout.results))


@pytest.fixture
def run(finished: Finished) -> RealLayout:
    return finished.layout


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ------------------------------------------------------------------------ the run


def test_both_variants_are_trained_on_the_same_records_for_equal_updates_and_scored(finished: Finished) -> None:
    runs = finished.results["runs"]
    assert list(runs) == ["pretrained", "random"]
    pretrained, random = (by_seed["1"] for by_seed in runs.values())
    for name in ("updates", "tokens", "target_tokens"):
        assert pretrained["training"][name] == random["training"][name]
    assert pretrained["training"]["updates"] == 2
    assert random["training"]["trained_parameters"] == random["parameters"] == pretrained["parameters"]
    assert pretrained["training"]["trained_parameters"] < pretrained["parameters"]
    assert ("before" in pretrained, "before" in random) == (True, False)
    asked = [pretrained["before"], pretrained["after"], random["after"]]
    assert len({tuple((task, own["questions"]) for task, own in scores["accuracy"].items()) for scores in asked}) == 1
    assert {tuple(scores["wer"]) for scores in asked} == {("asterisk",)}
    assert random["training"]["text_perplexity"].keys() == {"before", "after"}
    assert finished.results["command"].endswith("--steps 2 --llm " + finished.results["settings"]["llm"] + " --whisper "
        + finished.results["settings"]["whisper"] + " --codebook_size 32 --small True")  # fmt: skip


def test_the_trained_model_is_a_folder_of_its_own_that_hears_recordings(run: RealLayout) -> None:
    trial = Trial("pretrained", 1)
    model = AudioLLM.from_pretrained(run.model(trial))
    assert not any("lora" in name for name, _ in model.model.named_parameters())
    clip = next(clip for clip in few_clips() if clip.split != "train" and clip.language == "en")
    asked = read(run.scores(trial, "after"))["asked_about_a_file"]
    assert asked["truth"] == clip.text
    assert model.ask(str(clip.audio), asked["question"], max_new_tokens=64) == asked["answer"]
    assert not (run.run(trial) / "checkpoints").exists()


def test_what_is_complete_is_not_made_again(finished: Finished, models: Path, patched: pytest.MonkeyPatch) -> None:
    launches = Launches()
    patched.setattr(real, "launch_trainer", launches)
    real.run_real(config_of(models, finished.layout.root))
    assert launches.flags == []
    with pytest.raises(ValueError, match=r"steps"):
        real.run_real(config_of(models, finished.layout.root, steps=3))


def test_what_is_added_goes_on_in_the_training_in_which_it_was_killed(
    finished: Finished, models: Path, patched: pytest.MonkeyPatch
) -> None:
    launches = Launches(num_failing=1)
    patched.setattr(real, "launch_trainer", launches)
    layout, trial = finished.layout, Trial("random_lora", 7)
    config = config_of(models, layout.root, seeds=(7,), variants=("random_lora",))
    with pytest.raises(subprocess.CalledProcessError):
        real.run_real(config)
    complete = read_steps(layout.root)
    assert (f"{trial}-start" in complete, f"{trial}-train" in complete) == (True, False)
    real.run_real(config)
    assert {*read_steps(layout.root)} - {*complete} == {f"{trial}-train", f"{trial}-after"}
    assert [(flags["--resume"], flags["--seed"]) for flags in launches.flags] == [("latest", "7")] * 2
    steps = [line["step"] for line in read_metrics(layout.run(trial) / "metrics.jsonl")]
    assert steps == [0, 1, 2, 2]

    results, runs = read(layout.results), finished.results["runs"]
    assert {variant: list(by_seed) for variant, by_seed in results["runs"].items()} == {
        "pretrained": ["1"], "random": ["1"], "random_lora": ["7"],
    }  # fmt: skip
    assert {variant: results["runs"][variant] for variant in runs} == runs
    adapted = results["runs"]["random_lora"]["7"]["training"]
    assert adapted["trained_parameters"] == runs["pretrained"]["1"]["training"]["trained_parameters"]
    flags = """--seeds '[1,7]' --variants '["pretrained","random","random_lora"]'"""
    assert results["command"].endswith(flags)


def test_one_step_runs_alone_and_not_before_what_it_needs(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"step random-1-train needs random-1-start, records first"):
        real.run_real(config_of(models, tmp_path / "run", only="random-1-train"))
    with pytest.raises(ValueError, match=r"only=train is no step: use one of llm, data, .*pretrained-1-before"):
        real.RealConfig(only="train")


def test_every_step_comes_after_those_it_needs() -> None:
    steps = real.steps_of(real.RealConfig(seeds=(1, 2), variants=real.VARIANTS))
    names = list(steps)
    for position, step in enumerate(steps.values()):
        assert set(step.needs) <= set(names[:position])
    assert len([name for name in names if name.endswith("-train")]) == 6


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steps": 0}, "steps=0: use 1 or more"),
        ({"synthetic": -1}, "synthetic=-1: use 0 or more"),
        ({"seeds": ()}, "nothing to train"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        real.RealConfig(**changes)


def test_the_control_differs_in_nothing_but_what_is_trained() -> None:
    adapters, control = (
        yaml.safe_load((CONFIGS / name).read_text()) for name in ("real_smollm2_lora.yaml", "real_random.yaml")
    )
    assert adapters.pop("lora")["train_audio_rows"]
    assert adapters == control


# ----------------------------------------------------------------------- the data


def altered(clip: Clip, **changes: Any) -> Clip:
    return Clip(**{**{name: getattr(clip, name) for name in clip.__dataclass_fields__}, **changes})


def test_no_training_clip_says_what_is_held_out() -> None:
    clips = load_sample_corpus()
    held_out = next(clip for clip in clips if clip.split == "test" and clip.text)
    trained = next(clip for clip in clips if clip.split == "train" and clip.text)
    same = altered(trained, text=f"{held_out.text.upper()}!!", language="en")
    kept, report = usable_clips([held_out, same, altered(trained, id="asterisk/x", text="(beep)")])
    assert [clip.id for clip in kept] == [held_out.id]
    assert report.left_out.total() == 2
    kept, _ = usable_clips(clips)
    sides = [{real_data.spoken_words(clip.text) for clip in kept if clip.text and (clip.split == "train") == is_train}
             for is_train in (True, False)]  # fmt: skip
    assert sides[0]
    assert not sides[0] & sides[1]


def test_of_each_answer_there_are_so_many_at_most() -> None:
    clips = load_sample_corpus()
    codes = {str(clip.audio): [1] for clip in clips}
    records = questions_about(clips, codes, 2)
    answers = [(record["task"], record["messages"][1]["content"]) for record in records]
    assert max(answers.count(answer) for answer in answers) == 2
    assert {answer for answer in answers if answer[0] == "kind"} == {("kind", k) for k in ("speech", "sound", "music")}


def test_recordings_are_transcribed_several_times_and_synthetic_speech_once() -> None:
    clip = next(clip for clip in load_sample_corpus() if clip.language == "en")
    read_aloud = altered(clip, id=f"{real_data.SYNTHETIC}/pico-gb/1", audio=Path("read.wav"))
    spanish = altered(clip, id="asterisk/es", audio=Path("es.wav"), language="es")
    codes = {str(one.audio): [number] for number, one in enumerate((clip, read_aloud, spanish))}
    records = all_transcripts([clip, read_aloud, spanish], codes)
    assert len({record["id"] for record in records}) == len(records) == real_data.TRANSCRIPTS_OF_RECORDED + 1
    assert {record["messages"][1]["content"] for record in records} == {" ".join(clip.text.split())}
    assert not questions_about([read_aloud], codes, 9)


def test_texts_to_measure_perplexity_on_are_never_read_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [f"The old man number {'x' * n} walked to the harbour twice." for n in range(1, 400)]
    monkeypatch.setattr(real_data, "wordnet_examples", lambda: examples)
    layout = RealLayout(tmp_path)
    count = real_data.write_texts(layout, small=False)
    texts = layout.texts.read_text().splitlines()
    assert 0 < count == len(texts) < len(examples) / 10
    left_out: list[Any] = []
    monkeypatch.setattr(
        real_data, "build_corpus", lambda corpus, folder: left_out.append(corpus.recordings.keywords.get("leave_out"))
        if corpus.name == real_data.SYNTHETIC else None
    )  # fmt: skip
    real_data.build_corpora(layout, 5)
    assert all(left_out[0](text) for text in texts)
    left_out.clear()
    real_data.build_corpora(layout, 0)
    assert left_out == []


def test_held_out_records_of_a_run_are_answered_by_labels_and_not_learned(run: RealLayout) -> None:
    sides = [lines(path) for path in (run.train, run.held_out)]
    clips = [{record["id"].rpartition("/")[0] for record in side} for side in sides]
    assert not clips[0] & clips[1]
    assert {record["task"] for record in sides[1]} == {"transcribe", "kind", "language", "sound"}
    facts = read(run.data_facts)
    assert sum(facts["held_out"]["records_by_task"].values()) == len(sides[1])
    assert facts["train"]["clips"] >= len(clips[0])


# --------------------------------------------------------------------- the models


def test_random_weights_have_the_architecture_and_nothing_else(models: Path) -> None:
    llm = real_start.load_causal_lm(models / "llm")
    torch.manual_seed(3)
    state = torch.get_rng_state()
    one, same, other = (real_start.drawn_again(llm, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, weight in llm.named_parameters():
        drawn = one.get_parameter(name)
        assert drawn.shape == weight.shape
        assert torch.equal(drawn, same.get_parameter(name))
        if weight.dim() > 1:
            assert not torch.equal(drawn, weight)
            assert not torch.equal(drawn, other.get_parameter(name))


def test_the_extended_llm_keeps_its_text_rows_and_the_random_one_does_not(run: RealLayout, models: Path) -> None:
    text_rows = real_start.load_causal_lm(models / "llm").get_input_embeddings().weight
    rows = {
        variant: AudioLLM.from_pretrained(run.start(Trial(variant, 1))).model.get_input_embeddings().weight
        for variant in ("pretrained", "random")
    }
    assert torch.equal(rows["pretrained"][: len(text_rows)], text_rows)
    assert not torch.equal(rows["random"][: len(text_rows)], text_rows)


# --------------------------------------------------------------------- the figures


def test_scores_by_corpus_and_beside_chance() -> None:
    def sample(name: str, task: str, reference: str, prediction: str) -> scoring.GeneratedSample:
        return scoring.GeneratedSample(name, task, reference, prediction)

    samples = [
        sample("a/1/transcribe", "transcribe", "the house", "the house"),
        sample("a/2/transcribe", "transcribe", "a cat", "a dog"),
        sample("b/1/transcribe", "transcribe", "tree", ""),
        sample("a/3/kind", "kind", "music", "music"),
    ]
    assert scoring.word_error_rates(samples) == {"a": {"clips": 2, "wer": 0.25}, "b": {"clips": 1, "wer": 1.0}}
    assert [example["heard"] for example in scoring.examples(samples)] == ["the house", "a dog", ""]

    def record(task: str, answer: str) -> dict[str, Any]:
        return {"task": task, "messages": [{}, {"role": "assistant", "content": answer}]}

    trained = [record("kind", "music"), record("kind", "music"), record("kind", "speech"), record("transcribe", "x")]
    held_out = [record("kind", "music"), record("kind", "speech"), record("transcribe", "y")]
    found = scoring.accuracies_beside_chance({"kind": 1.0}, trained, held_out)
    assert found == {"kind": {"questions": 2, "accuracy": 1.0, "majority": 0.5, "guessing": 0.5}}


def scores_of(wer: float) -> dict[str, Any]:
    return {
        "wer": {"asterisk": {"clips": 120, "wer": wer}},
        "accuracy": {"kind": {"questions": 9, "accuracy": 1 - wer, "majority": 0.4, "guessing": 0.3}},
        "examples": [{"id": "a", "said": "Hello | you.", "heard": "" if wer > 0.8 else "hello"}],
    }


def results_of(seeds: Sequence[str], *, with_adapted_control: bool = False) -> dict[str, Any]:
    def figures(wer: float, *, before: bool = False) -> dict[str, Any]:
        training = {
            "trained_parameters": 5, "updates": 600, "tokens": 10, "target_tokens": 4, "hours": 2.0,
            "seconds_per_update": 9.0, "processor_seconds_per_update": 17.0, "held_out_loss": 2.5,
            "text_perplexity": {"before": 50.0, "after": 60.0},
        }  # fmt: skip
        scores = {"before": scores_of(1.5)} if before else {}
        return {**scores, "after": scores_of(wer), "parameters": 9, "training": training}

    runs = {
        "pretrained": {seed: figures(0.2 + 0.1 * n, before=True) for n, seed in enumerate(seeds)},
        "random": {seed: figures(0.9) for seed in seeds},
    }
    if with_adapted_control:
        runs["random_lora"] = {seeds[0]: figures(1.0)}
    return {
        "command": "python training/real.py", "date": "2026-12-01", "codebook": {"usage": 1, "quantization_error": 0.4},
        "settings": {"llm": "smollm2", "whisper": "whisper-base", "steps": 600, "codebook_size": 2048},
        "data": {side: {"clips": 3, "minutes": 1.5} for side in ("train", "held_out")},
        "machine": {"cores": 2, "processor": "x86", "threads": 2, "torch": "2.13"}, "runs": runs,
    }  # fmt: skip


def test_tables_show_what_was_measured_and_a_spread_only_over_seeds() -> None:
    one, two = results_tables(results_of(["1"])), results_tables(results_of(["1", "2"], with_adapted_control=True))
    assert "| word error rate, asterisk | 120 | – | 150.0 % | 20.0 % | 90.0 % |" in one
    assert "| accuracy, kind | 9 | 40.0 % | -50.0 % | 80.0 % | 10.0 % |" in one
    assert "| perplexity of held-out texts |  | – | 50.000 | 60.000 | 60.000 |" in one
    assert "±" not in one
    assert "| 150.0 ± 0.0 % | 25.0 ± 7.1 % | 90.0 ± 0.0 % | 100.0 % |" in two
    assert "seeds 1, 2, 600 updates" in two
    assert r"| “Hello \| you.” | (nothing) | “hello” | (nothing) |" in one


def test_results_are_installed_between_the_marks_of_the_page(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="in a checkout of the project only"):
        install_results(results_of(["1"]), tmp_path)
    page = tmp_path / PAGE
    page.parent.mkdir()
    page.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    assert install_results(results_of(["1"]), tmp_path) == page
    text = page.read_text()
    assert (text.startswith("above\n"), text.endswith("below\n"), "old" in text) == (True, True, False)
    assert read(page.with_suffix(".json")) == results_of(["1"])


def test_the_page_holds_what_its_file_of_results_says_or_that_there_is_none() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    between = text.partition(BEGIN)[2].partition(END)[0]
    file = (ROOT / PAGE).with_suffix(".json")
    if file.exists():
        assert between.strip() == results_tables(read(file)).strip()
    else:
        assert "nothing was measured" in between
        assert not re.search(r"\d", between)
