"""The demo's own parts: which encoder it takes, what it asks, how it scores, and the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import WhisperConfig, WhisperModel

from audiollm.data.corpora.sample_corpus import load_sample_corpus
from audiollm.program import run_program
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.training import demo
from audiollm.training.audio_llm.config import SFTConfig
from audiollm.training.recipes.demo import commands
from audiollm.training.recipes.demo.commands import CommandSettings, choose_commands, degraded_copy, teach_commands
from audiollm.training.recipes.demo.questions import answer_text, answers_of, records_of, score_table
from audiollm.training.recipes.demo.report import DemoReport, Hearing, write_report
from audiollm.training.sft import train

from .conftest import ROOT, Assets


@pytest.fixture
def whisper_folder(tmp_path: Path) -> str:
    config = WhisperConfig(
        d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    WhisperModel(config).save_pretrained(tmp_path / "whisper")
    return str(tmp_path / "whisper")


def test_without_an_encoder_the_trained_tokenizer_of_mini_is_taken(
    whisper_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = UniAudioTokenizer.from_whisper(whisper_folder, quantize_position=1, codebook_size=32)
    trained.save_pretrained(tmp_path / "mini")
    monkeypatch.setattr(demo, "audio_tokenizer_or_mini", lambda name: str(tmp_path / "mini"))
    found = demo.find_tokenizer(demo.DemoConfig(), [])
    assert torch.equal(found.audio_tokenizer.codebook.weight, trained.codebook.weight)
    assert "32 codes" in found.facts["audio tokenizer"]


def test_an_encoder_that_is_asked_for_gets_a_codebook_of_the_recordings(whisper_folder: str) -> None:
    clips = load_sample_corpus()[:3]
    found = demo.find_tokenizer(demo.DemoConfig(encoder=whisper_folder, codebook_size=16), clips)
    assert found.audio_tokenizer.config.d_model == 16
    assert whisper_folder in found.facts["audio tokenizer"]
    assert "initial values" in found.facts["SAE gate"]


def test_a_folder_that_is_no_demo_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="is not a demo"):
        demo.run_demo(demo.DemoConfig(output_dir=str(tmp_path)))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_every_question_is_answered_by_the_clip_s_own_labels() -> None:
    clips = load_sample_corpus()
    codes = {str(clip.audio): [index] for index, clip in enumerate(clips)}
    records = records_of(clips, codes)
    assert len({record["id"] for record in records}) == len(records) == sum(len(answers_of(clip)) for clip in clips)
    for clip in clips:
        own = [record for record in records if record["id"].rpartition("/")[0] == clip.id]
        assert {record["task"]: answer_text(record) for record in own} == answers_of(clip)
        assert all(record["messages"][0]["content"][0]["codes"] == codes[str(clip.audio)] for record in own)
    assert len({record["messages"][0]["content"][1]["text"] for record in records}) > len(answers_of(clips[0]))


def test_scores_stand_beside_what_needs_no_listening() -> None:
    def record(answer: str) -> dict:
        return {"task": "kind", "messages": [{}, {"role": "assistant", "content": answer}]}

    train = [record(answer) for answer in ("music", "music", "speech", "sound", "sound", "sound")]
    held_out = [record(answer) for answer in ("sound", "music", "speech", "speech")]
    (row,) = score_table(train, held_out, {"kind": 0.75})
    assert row == {"task": "kind", "questions": 4, "accuracy %": 75.0, "majority %": 25.0, "random %": 33.3}


def test_the_report_needs_nothing_beside_it_and_escapes_what_it_shows(tmp_path: Path) -> None:
    hearing = Hearing(
        title="clip <1>",
        waveform=torch.sin(torch.arange(16000) / 20),
        sample_rate=16000,
        log_mel=torch.rand(80, 100),
        codes=torch.arange(25),
        gate=torch.rand(25),
        frame_rate=25.0,
        question="What & where?",
        answer="<script>",
        truth="speech",
    )
    report = DemoReport("demo", {"loss": "1.0"}, [{"task": "kind"}], [(1, 2.0), (2, 1.0)], [(2, 1.5)], hearing)
    write_report(report, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert page.count("data:image/png;base64,") == 2
    assert "data:audio/ogg;base64," in page
    assert 'src="http' not in page
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".html", ".png", ".png"]


@pytest.fixture
def training_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainers are launched without a process of their own."""

    def launch(script: str, settings: str, *flags: str) -> None:
        assert script == "sft.py"
        arguments = ["--config", str(ROOT / "training" / "configs" / settings), *flags]
        run_program(SFTConfig, train, arguments=arguments)

    monkeypatch.setattr(commands, "launch_trainer", launch)


def test_commands_are_learned_from_copies_and_asked_about_others(
    assets: Assets, tmp_path: Path, training_in_this_process: None
) -> None:
    clips = load_sample_corpus()
    settings = CommandSettings(num_commands=2, copies_to_learn_from=1, max_steps=2)
    understood = teach_commands(str(assets.audio_llm), clips, tmp_path / "commands", settings)
    assert [row["said"] for row in understood.rows] == [clip.text for clip in choose_commands(clips, 2)]
    assert set(understood.word_error_rates) == {"before", "after"}
    assert (understood.model_folder / "config.json").exists()
    learned = (tmp_path / "commands" / "commands.jsonl").read_text()
    assert learned.count("assistant") == 2 * (1 + 1)
    assert "_unheard" not in learned
    assert len(list((tmp_path / "commands").glob("*_unheard.wav"))) == 2


def test_copies_are_degraded_each_in_its_own_way(tmp_path: Path) -> None:
    [clip] = choose_commands(load_sample_corpus(), 1)
    copies = [degraded_copy(clip, tmp_path / f"{n}.wav", n).read_bytes() for n in (0, 1)]
    assert copies[0] != copies[1]
    assert degraded_copy(clip, tmp_path / "again.wav", 0).read_bytes() == copies[0]


def test_the_demo_ends_with_commands_that_name_what_was_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [clip] = choose_commands(load_sample_corpus(), 1)
    demo.show_next_steps(tmp_path / "demo", None, clip)
    shown = capsys.readouterr().out
    assert f"--model {tmp_path / 'demo' / 'sft' / 'model'}" in shown
    assert "examples/finetune_on_own_clips.py" in shown


@pytest.mark.slow
def test_the_whole_demo_beats_the_majority_answer(tmp_path: Path) -> None:
    report = demo.run_demo(demo.DemoConfig(output_dir=str(tmp_path / "demo")))
    assert "mini" in report.facts["audio tokenizer"]
    assert (tmp_path / "demo" / "mini_speech.wav").stat().st_size > 10_000
    rates = json.loads((tmp_path / "demo" / "results.json").read_text())["commands"]
    assert rates["after"] < 0.2 < rates["before"]
    accuracies = {row["task"]: row["accuracy %"] for row in report.scores}
    assert accuracies["kind"] > 85
    assert accuracies["language"] > 50
    assert all(row["accuracy %"] > row["majority %"] for row in report.scores)
    assert json.loads((tmp_path / "demo" / "results.json").read_text())["scores"] == report.scores


def test_a_right_and_a_wrong_answer_are_shown_with_their_odds() -> None:
    scores = [
        {"task": "kind", "accuracy %": 99.0, "random %": 33.3},
        {"task": "sound", "accuracy %": 50.0, "random %": 5.3},
    ]
    samples = [
        {"id": "a", "task": "kind", "prediction": "speech", "reference": "music"},
        {"id": "b", "task": "sound", "prediction": "horn", "reference": "horn"},
        {"id": "c", "task": "sound", "prediction": "horn", "reference": "train"},
    ]
    assert demo.right_and_wrong(samples, scores) == [
        "sound: 50.0 of 100 answers are right, and 5.3 by chance",
        "right: b: horn",
        "wrong: c: horn (truth: train)",
    ]
    assert demo.right_and_wrong(samples[:2], scores)[1:] == ["right: b: horn"]


@pytest.mark.parametrize("error", [OSError("no registry\nis reached"), None])
def test_the_spoken_sentence_is_written_with_what_is_heard_of_it(error, tmp_path, monkeypatch) -> None:
    class Hears:
        def __init__(self, name: str) -> None:
            if error is not None:
                raise error

        def transcribe(self, waveforms, sample_rate: int) -> list[str]:
            return [f" {len(waveforms)} sentence."]

    monkeypatch.setattr(demo, "Transcriber", Hears)
    held_out = [clip for clip in load_sample_corpus() if clip.split != "train"]
    *_, spoken = demo.ask_mini(held_out, tmp_path / "said.wav")
    told = "“1 sentence.” is what whisper-tiny.en hears" if error is None else "no recognizer (no registry is reached)"
    assert spoken["answer"] == f"{tmp_path / 'said.wav'}: {told}"
    assert (tmp_path / "said.wav").stat().st_size > 10_000
