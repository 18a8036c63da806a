"""The demo: trains a small Audio-LLM on real recordings, in minutes on a CPU, and asks it a question (`make demo`).

First the embedded model `mini` answers and speaks as it is. Then each step is a library call that a real project makes
as well: tokenize a corpus, extend an LLM's vocabulary, `accelerate launch training/sft.py`, ask. Everything is small;
nothing is faked.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from audiollm.benchmarks.speech.judges.recognizers import Transcriber
from audiollm.data.audio.reading import load_audio
from audiollm.data.audio.writing import save_audio
from audiollm.data.corpora.clips import Clip
from audiollm.data.corpora.sample_corpus import load_sample_corpus
from audiollm.data.files.json_document import write_json
from audiollm.data.files.json_lines import read_json_lines, write_json_lines
from audiollm.data.files.lock import held_run_folder, holds_nothing
from audiollm.data.tokenizing.corpus import tokenize_corpus
from audiollm.mini import audio_tokenizer_or_mini
from audiollm.modeling import AudioLLM
from audiollm.program import ProgramError, run_program
from audiollm.prompts import instruction, prompts
from audiollm.speaking import SpeechResult, speak
from audiollm.tables import print_table
from audiollm.tokenizer.configuration import SAMPLE_RATE
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.training.audio_llm.small_llm import SmallLLMConfig, small_llm, small_text_tokenizer
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.loop.record import METRICS_NAME, read_metrics
from audiollm.training.recipes.demo.commands import CommandSettings, UnderstoodCommands, teach_commands
from audiollm.training.recipes.demo.questions import answer_text, answers_of, records_of, score_table
from audiollm.training.recipes.demo.report import DemoReport, Hearing, write_report
from audiollm.training.recipes.fitted_tokenizer import fitted_tokenizer
from audiollm.training.recipes.launching import console, launch_trainer

SPOKEN_BY_MINI = "The kettle is on the table."
RECOGNIZER = "whisper-tiny.en"


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """The demo run."""

    output_dir: str = "runs/demo"
    """Folder for everything the demo makes; an earlier demo there is replaced."""

    encoder: str | None = None
    """Folder or Hub id of a Whisper model to build a tokenizer on, with a codebook fitted to the training recordings
    and nothing else trained. None: the trained tokenizer of `mini`."""

    llm: str | None = None
    """Folder or Hub id of a causal LM to extend. None: a small Qwen2 architecture with random weights."""

    codebook_size: int = 8192
    """Entries of the codebook that is fitted to the training recordings; only with ``encoder``."""

    max_steps: int = 400
    """Updates of training/sft.py."""

    learning_rate: float = 1e-3
    """Peak learning rate; use about 1e-4 with a pretrained LLM."""

    commands: CommandSettings = field(default_factory=CommandSettings)
    """The spoken commands that mini is fine-tuned on at the end; only without ``encoder``."""

    seed: int = 0
    """Decides new weights and the order of the data."""


@dataclass(frozen=True)
class TokenizerSource:
    """An audio tokenizer and what the report says of it."""

    audio_tokenizer: UniAudioTokenizer
    facts: dict[str, str]


# ------------------------------------------------------------------- the parts


def find_tokenizer(config: DemoConfig, clips: Sequence[Clip]) -> TokenizerSource:
    """The tokenizer of mini; or one on the Whisper encoder asked for, its codebook fitted to the clips by k-means."""
    if config.encoder is None:
        audio_tokenizer = UniAudioTokenizer.from_pretrained(audio_tokenizer_or_mini(None))
        return TokenizerSource(
            audio_tokenizer,
            {"audio tokenizer": f"mini's, {audio_tokenizer.codebook_size} codes of Whisper tiny.en's first layers"},
        )
    audio_tokenizer, fit = fitted_tokenizer(config.encoder, clips, config.codebook_size, config.seed)
    facts = {
        "audio tokenizer": f"{config.encoder}, with {config.codebook_size} codes fitted to {fit.num_frames} frames: "
        f"{100 * fit.usage:.1f} % in use, {100 * fit.quantization_error:.1f} % of the variance lost",
        "SAE gate": "initial values: the gate is trained together with the tokenizer",
    }
    return TokenizerSource(audio_tokenizer, facts)


def build_llm(audio_tokenizer: UniAudioTokenizer, texts: Sequence[str], config: DemoConfig) -> AudioLLM:
    """The Audio-LLM to train; new rows are projected from the codebook, so that like codes start alike."""
    if config.llm is not None:
        return AudioLLM.create(
            config.llm, audio_tokenizer=audio_tokenizer, init="codebook", seed=config.seed, dtype=torch.float32
        )
    sizes = SmallLLMConfig()
    text_tokenizer = small_text_tokenizer(texts, sizes)
    llm = small_llm(text_tokenizer, sizes, config.seed)
    return AudioLLM.create(llm, text_tokenizer, audio_tokenizer, init="codebook", seed=config.seed)


def launch_training(folder: Path, config: DemoConfig) -> list[dict[str, Any]]:
    """Runs training/sft.py as a user would; returns the lines of its metrics."""
    launch_trainer(
        "sft.py",
        "demo.yaml",
        *("--model", str(folder / "extended")),
        *("--train_data", str(folder / "train.jsonl"), "--eval_data", str(folder / "held_out.jsonl")),
        *("--output_dir", str(folder / "sft"), "--seed", str(config.seed)),
        *("--max_steps", str(config.max_steps), "--learning_rate", str(config.learning_rate)),
    )
    return read_metrics(folder / "sft" / METRICS_NAME)


# ------------------------------------------------------------------ the report


def listen(model: AudioLLM, audio_tokenizer: UniAudioTokenizer, clip: Clip) -> Hearing:
    """Asks the trained model about a clip and looks at what the tokenizer made of it."""
    waveform, sample_rate = load_audio(clip.audio, sample_rate=SAMPLE_RATE)
    gates: list[Tensor] = []
    assert audio_tokenizer.sae is not None
    hook = audio_tokenizer.sae.register_forward_hook(lambda _module, _inputs, outputs: gates.append(outputs[1][0]))
    codes = audio_tokenizer.encode(waveform, sample_rate)[0][0]
    hook.remove()
    padded = torch.nn.functional.pad(waveform, (0, -len(waveform) % audio_tokenizer.config.token_stride))
    question = instruction("kind")  # which the model can tell of nearly all recordings
    return Hearing(
        title=f"{clip.id}: {clip.text or clip.caption or clip.label}",
        waveform=waveform,
        sample_rate=sample_rate,
        log_mel=audio_tokenizer.log_mel(padded[None])[0],
        codes=codes,
        gate=gates[0].float().mean(dim=-1)[: len(codes)],
        frame_rate=audio_tokenizer.frame_rate,
        question=question,
        answer=model.ask(str(clip.audio), question, max_new_tokens=16),
        truth=answers_of(clip)["kind"],
    )


def ask_mini(clips: Sequence[Clip], speech_file: Path) -> list[dict[str, str]]:
    """Lets the embedded model transcribe, describe and speak, before anything is trained.

    Args:
        clips: recordings that it was not trained on.
        speech_file: where the sentence goes that it speaks.
    """
    mini = AudioLLM.from_pretrained()
    english = next(clip for clip in clips if clip.sound_type == "speech" and clip.language == "en")
    others = [next(clip for clip in clips if clip.sound_type == name) for name in ("sound", "music")]
    asked = [(english, "transcribe", english.text or ""), *((clip, "describe", clip.label or "") for clip in others)]
    rows = []
    for clip, task, truth in asked:
        question = instruction(task)
        answer = mini.ask(str(clip.audio), question, max_new_tokens=64)
        rows.append({"recording": clip.id, "question": question, "answer": answer, "label": truth})
    speech = speak(mini, SPOKEN_BY_MINI, "a man", seed=0)
    save_audio(speech_file, speech.waveform, speech.sample_rate)
    answer = f"{speech_file}: {_heard(speech)}"
    rows.append({"recording": "", "question": f"speak: {SPOKEN_BY_MINI}", "answer": answer, "label": SPOKEN_BY_MINI})
    return rows


def _heard(speech: SpeechResult) -> str:
    """What a recognizer understands of it; or why there is none, as where it is not kept and no registry is reached."""
    try:
        (words,) = Transcriber(RECOGNIZER).transcribe([speech.waveform], speech.sample_rate)
    except (OSError, ValueError) as error:
        return f"no recognizer ({' '.join(str(error).split())[:200]})"
    return f"“{words.strip()}” is what {RECOGNIZER} hears"


def understand_commands(clips: Sequence[Clip], folder: Path, config: DemoConfig) -> UnderstoodCommands:
    """Fine-tunes mini on a few commands that it has never heard, and shows what it makes of them."""
    started = time.perf_counter()
    understood = teach_commands("mini", clips, folder / "commands", config.commands, config.seed)
    show_rows("spoken commands, in recordings that were not learned from", understood.rows)
    rates = understood.word_error_rates
    console.print(
        f"  word error rate {100 * rates['before']:.0f} % before, {100 * rates['after']:.0f} % after "
        f"{time.perf_counter() - started:.0f} s"
    )
    return understood


def show_next_steps(folder: Path, understood: UnderstoodCommands | None, question: Clip) -> None:
    """Ends the demo with commands that go on from here."""
    console.rule("what to do next")
    ask = f'audiollm describe {question.audio} --question "{instruction("kind")}"'
    steps = {
        "look at the report": f"{folder / 'report.html'}",
        "ask the model you just trained": f"{ask} --model {folder / 'sft' / MODEL_FOLDER}",
        "fine-tune on recordings of yours": "python examples/finetune_on_own_clips.py clips.jsonl --output runs/mine",
        "start from a real LLM": "audiollm extend Qwen/Qwen2.5-0.5B-Instruct my-audio-llm",
    }
    if understood is not None:
        heard = next(understood.model_folder.parents[1].glob("*_unheard.wav"))
        steps["ask the one that knows the commands"] = f"audiollm transcribe {heard} --model {understood.model_folder}"
    for what, command in steps.items():
        console.print(f"  {what}:\n    {command}", soft_wrap=True)


def _last_samples(folder: Path) -> list[dict[str, Any]]:
    """All answers of the last evaluation."""
    return list(read_json_lines(max((folder / "sft" / "samples").glob("step_*.jsonl"))))


def shown_samples(
    samples: Sequence[dict[str, Any]], records: Sequence[dict[str, Any]], count: int
) -> list[dict[str, str]]:
    """Some of the last evaluation's answers, spread over the held-out records."""
    questions = {record["id"]: record["messages"][0]["content"][1]["text"] for record in records}
    return [
        {
            "recording": sample["id"],
            "question": questions[sample["id"]],
            "answer": sample["prediction"],
            "truth": sample["reference"],
        }
        for sample in samples[:: max(1, len(samples) // count)]
    ]


def right_and_wrong(samples: Sequence[Mapping[str, str]], scores: Sequence[Mapping[str, Any]]) -> list[str]:
    """A right and a wrong answer to the question that was answered worst, with the odds of both.

    Args:
        samples: answers with their references, of all tasks.
        scores: rows of `score_table`.
    """
    worst = min(scores, key=lambda row: float(row["accuracy %"]))
    odds = f"{worst['task']}: {worst['accuracy %']} of 100 answers are right, and {worst['random %']} by chance"
    lines = [odds]
    for name, is_right in (("right", True), ("wrong", False)):
        found = [
            one
            for one in samples
            if one["task"] == worst["task"] and (one["prediction"].strip() == one["reference"].strip()) == is_right
        ]
        if found:
            truth = "" if is_right else f" (truth: {found[0]['reference']})"
            lines.append(f"{name}: {found[0]['id']}: {found[0]['prediction']}{truth}")
    return lines


def show_rows(title: str, rows: Sequence[dict[str, Any]]) -> None:
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*map(str, row.values()))
    print_table(table, console)


def run_demo(config: DemoConfig) -> DemoReport:
    """Runs all steps and writes ``report.html``; returns what it shows.

    Raises:
        ValueError: if the folder holds something that is not a demo, or another demo is at work in it.
    """
    with held_run_folder(config.output_dir):
        return _run_in(Path(config.output_dir), config)


def _run_in(folder: Path, config: DemoConfig) -> DemoReport:
    started = time.perf_counter()
    if not (folder / "demo.json").exists() and not holds_nothing(folder):
        raise ValueError(f"{folder} holds something that is not a demo; name another --output_dir")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(folder / "demo.json", asdict(config))

    clips = load_sample_corpus()
    train_clips = [clip for clip in clips if clip.split == "train"]
    held_out_clips = [clip for clip in clips if clip.split != "train"]
    minutes = sum(clip.duration_seconds for clip in clips) / 60
    console.rule("1. recordings")
    console.print(f"  {len(clips)} real recordings, {minutes:.1f} minutes; {len(held_out_clips)} held out")

    mini_rows: list[dict[str, str]] = []
    if config.encoder is None:
        console.rule("the embedded model, as it is")
        mini_rows = ask_mini(held_out_clips, folder / "mini_speech.wav")
        show_rows("mini", mini_rows)

    console.rule("2. audio tokenizer")
    source = find_tokenizer(config, train_clips)
    audio_tokenizer = source.audio_tokenizer
    for name, value in source.facts.items():
        console.print(f"  {name}: {value}")
    report = tokenize_corpus([clip.audio for clip in clips], audio_tokenizer, folder / "codes.jsonl")
    console.print(f"  {report.tokens} audio tokens, {report.realtime_speed:.0f} times faster than real time")
    codes = {line["audio"]: line["codes"] for line in read_json_lines(folder / "codes.jsonl")}
    train_records, held_out_records = records_of(train_clips, codes), records_of(held_out_clips, codes)
    write_json_lines(folder / "train.jsonl", train_records)
    write_json_lines(folder / "held_out.jsonl", held_out_records)

    console.rule("3. Audio-LLM")
    texts = [answer_text(record) for record in train_records]
    texts += [prompt.text for task in {record["task"] for record in train_records} for prompt in prompts(task)]
    model = build_llm(audio_tokenizer, texts, config)
    model.save_pretrained(folder / "extended")
    size = sum(parameter.numel() for parameter in model.model.parameters())
    console.print(f"  {config.llm or 'Qwen2 architecture, random weights'}: {size / 1e6:.1f} M parameters")

    console.rule("4. training")
    metrics = launch_training(folder, config)
    train_losses = [(line["step"], line["loss"]) for line in metrics if line["event"] == "train"]
    evaluations = [line for line in metrics if line["event"] == "eval"]
    held_out_losses = [(line["step"], line["loss"]) for line in evaluations]
    scores = score_table(train_records, held_out_records, evaluations[-1]["accuracy_by_task"])

    understood: UnderstoodCommands | None = None
    if config.encoder is None:
        console.rule("5. a few spoken commands")
        understood = understand_commands(held_out_clips, folder, config)

    console.rule("6. results")
    last_updates = [loss for _, loss in train_losses[-20:]]
    facts = {
        **source.facts,
        "recordings": f"{len(train_clips)} to train on, {len(held_out_clips)} held out, {minutes:.1f} minutes in all",
        "train loss, last 20 updates": f"{sum(last_updates) / len(last_updates):.3f} nats per answer token",
        "held-out loss": f"{held_out_losses[-1][1]:.3f} nats per answer token",
    }
    if understood is not None:
        rates = {name: f"{100 * rate:.1f} %" for name, rate in understood.word_error_rates.items()}
        facts["spoken commands"] = f"word error rate {rates['before']} before fine-tuning, {rates['after']} after"
    for name, value in facts.items():
        console.print(f"  {name}: {value}")
    show_rows("accuracy on held-out clips", scores)
    samples = _last_samples(folder)
    for line in right_and_wrong(samples, scores):
        console.print(f"  {line}")
    trained = AudioLLM.from_pretrained(folder / "sft" / MODEL_FOLDER)
    asked = next(clip for clip in held_out_clips if clip.sound_type == "speech")
    hearing = listen(trained, audio_tokenizer, asked)
    console.print(f"  {hearing.title}\n  Q: {hearing.question}\n  A: {hearing.answer} (truth: {hearing.truth})")

    facts["wall time"] = f"{time.perf_counter() - started:.0f} s without the installation"
    demo_report = DemoReport(
        title="audiollm demo",
        facts=facts,
        scores=scores,
        train_losses=train_losses,
        held_out_losses=held_out_losses,
        hearing=hearing,
        samples=shown_samples(samples, held_out_records, count=20),
        mini_samples=mini_rows,
        commands=[] if understood is None else understood.rows,
        word_error_rates={} if understood is None else understood.word_error_rates,
        attribution="Licence and author of every clip: data/corpora/sample/ATTRIBUTION.md",
    )
    write_report(demo_report, folder / "report.html")
    results = {"facts": facts, "scores": scores, "commands": demo_report.word_error_rates}
    write_json(folder / "results.json", results)
    console.print(f"  report: {folder / 'report.html'} ({facts['wall time']})")
    show_next_steps(folder, understood, asked)
    return demo_report


def check_demo(config: DemoConfig) -> None:
    """Runs the demo; ends with status 1 where a model has not learnt to listen."""
    report = run_demo(config)
    weak = [row["task"] for row in report.scores if row["accuracy %"] <= row["majority %"]]
    if weak:
        raise ProgramError(f"no better than the majority answer on: {', '.join(weak)}")
    rates = report.word_error_rates
    if rates and rates["after"] >= rates["before"]:
        raise ProgramError(f"fine-tuning on commands left {100 * rates['after']:.0f} % of their words wrong")


if __name__ == "__main__":
    run_program(DemoConfig, check_demo, name="demo", level=logging.WARNING)
