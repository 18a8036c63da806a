"""Evaluations that listen. Mostly decoder and judges stand in: a code sounds as a level, which is read as a word."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import WhisperFeatureExtractor, WhisperTokenizerFast

from audiollm.benchmarks.metrics.seed_tts_wer.pairs import TextPair
from audiollm.benchmarks.speech.judges.recognizers import RECOGNIZERS
from audiollm.benchmarks.speech.words import corpus_errors
from audiollm.data.audio.reading import load_audio
from audiollm.data.voices import encoders
from audiollm.modeling import AudioLLM
from audiollm.tokenizer.base import Codes
from audiollm.tokenizer.decoder.model import WaveformDecoder
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.training.audio_llm import listening
from audiollm.training.audio_llm.config import LoRASettings, SFTConfig
from audiollm.training.loop.record import read_metrics
from audiollm.training.sft import train

from ..finished_runs import assert_same_weights, metrics_of

WORDS = ["red", "green", "blue", "cat", "dog", "bird", "other"]
CODE_SAMPLES = 900
STAND_IN = "stand-in"


class Reader:
    """Hears a word for each code, and counts what it is given."""

    source = STAND_IN

    def __init__(self) -> None:
        self.num_heard = 0

    def transcribe(self, waveforms: Sequence[Tensor], sample_rate: int) -> list[str]:
        self.num_heard += len(waveforms)
        return [
            " ".join(WORDS[round(100 * level) // 10] for level in wave[::CODE_SAMPLES].tolist()) for wave in waveforms
        ]


class LevelEncoder:
    """The voice is the mean level."""

    embedding_size = 2

    def embed(self, waveform: Tensor, sample_rate: int) -> Tensor:
        angle = float(waveform.mean())
        return torch.tensor([np.cos(angle), np.sin(angle)])


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    """Judges that draw from every generator when they are loaded, as models do."""
    reader = Reader()

    def drawing(judge: Any) -> Any:
        torch.rand(1), np.random.rand(), random.random()
        return judge

    monkeypatch.setattr(RECOGNIZERS, "_factories", dict(RECOGNIZERS._factories))
    monkeypatch.setattr(encoders._encoders, "_factories", dict(encoders._encoders._factories))
    RECOGNIZERS.register(STAND_IN, lambda language, device: drawing(reader))
    encoders.register_speaker_encoder(STAND_IN, lambda device: drawing(LevelEncoder()))
    return reader


@pytest.fixture
def levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes sound as levels."""

    def decode(self: UniAudioTokenizer, codes: Codes, **options: Any) -> list[Tensor]:
        return [codes[clip][0].float().div(100).repeat_interleave(CODE_SAMPLES) for clip in range(len(codes))]

    monkeypatch.setattr(UniAudioTokenizer, "decode", decode)


def spoken_record(number: int) -> dict[str, Any]:
    """A request to say three words, and a code for each."""
    generator = random.Random(number)
    words = [generator.randrange(6) for _ in range(3)]
    codes = [10 * word + generator.randrange(10) for word in words]
    request = "Say this:\n\n" + " ".join(WORDS[word] for word in words)
    return {
        "id": f"clip/{number}",
        "task": "speak",
        "messages": [
            {"role": "user", "content": request},
            {"role": "assistant", "content": [{"type": "audio", "codes": codes}]},
        ],
    }


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Pictures take longer than all the rest: keeps what they would have shown."""
    shown: list[dict[str, Tensor]] = []
    monkeypatch.setattr(listening, "draw_clip", lambda path, title, sounds, mel: shown.append(sounds))
    return shown


@pytest.fixture(scope="module")
def spoken(decoder_parts: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty spoken records."""
    folder = tmp_path_factory.mktemp("spoken")
    records: Path = decoder_parts.write_records(folder / "train.jsonl", [spoken_record(n) for n in range(40)])
    return records


@pytest.fixture(scope="module")
def speaking_llm(assets: Any, decoder_parts: Any, spoken: Path) -> Path:
    """The tiny Audio-LLM with a decoder, after some updates in which it has learned to speak."""
    audio_llm = AudioLLM.from_pretrained(assets.audio_llm)
    audio_tokenizer = decoder_parts.build_audio_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        audio_tokenizer.attach_decoder(WaveformDecoder(decoder_parts.tiny_decoder()))
    audio_llm.processor.audio_tokenizer = audio_tokenizer
    audio_llm.save_pretrained(spoken.parent / "llm")
    config = SFTConfig(
        model=str(spoken.parent / "llm"), train_data=str(spoken), output_dir=str(spoken.parent / "run"), max_steps=60,
        global_batch_size=8, micro_batch_size=8, learning_rate=1e-2,
    )  # fmt: skip
    return train(config).model_folder


@pytest.fixture
def make_speaking(
    make_config: Callable[..., SFTConfig],
    assets: Any,
    spoken: Path,
    speaking_llm: Path,
    tmp_path: Path,
    decoder_parts: Any,
) -> Callable[..., SFTConfig]:
    """A run on spoken records; its held-out ones are of both kinds."""
    texts = [json.loads(line) for line in assets.dev.read_text().splitlines()]
    held_out = [record for n in range(5) for record in (spoken_record(100 + n), texts[n])]
    dev = decoder_parts.write_records(tmp_path / "dev.jsonl", held_out)

    def make(**changes: Any) -> SFTConfig:
        settings: dict[str, Any] = {
            "model": str(speaking_llm), "train_data": str(spoken), "eval_data": str(dev),
            "eval_listen_samples": 4, "eval_max_new_tokens": 8, "learning_rate": 1e-3,
        }  # fmt: skip
        return make_config(**(settings | changes))

    return make


def answers_of(run: Path, step: int) -> list[dict[str, Any]]:
    lines = (run / "evaluation" / f"step_{step:06d}" / "answers.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_what_is_spoken_is_written_heard_and_scored_beside_the_records_own_codes(
    make_speaking, tmp_path, reader, levels, caplog
):
    caplog.set_level("INFO")
    config = make_speaking(
        max_steps=2, eval_every=1, eval_asr=STAND_IN, eval_similarity=STAND_IN, metric_for_best="spoken_wer",
    )  # fmt: skip
    summary = train(config)
    run = tmp_path / "run"
    evaluations = [line for line in read_metrics(run / "metrics.jsonl") if line["event"] == "eval"]
    num_with_sound = 0
    for line in evaluations:
        answers = answers_of(run, line["step"])
        assert len(answers) == line["num_listened"] == 4
        assert all(answer["task"] == "speak" and len(answer["text"].split()) == 3 for answer in answers)
        # Codes that are decoded as they are are understood: an error is the language model's.
        assert [answer["heard_in_reference"] for answer in answers] == [answer["text"] for answer in answers]
        assert line["reference_wer"] == 0
        pairs = [TextPair(answer["id"], answer["heard"], answer["text"]) for answer in answers]
        assert line["spoken_wer"] == corpus_errors(pairs, "en")["wer"]
        assert line["num_spoken_cut"] == sum(answer["is_cut"] for answer in answers)
        there = [answer for answer in answers if answer["sound"] is not None]
        assert line["num_without_sound"] == 4 - len(there)
        voices = [answer["similarity"] for answer in there]
        assert line["spoken_similarity"] == (pytest.approx(np.mean(voices)) if voices else None)
        folder = run / "evaluation" / f"step_{line['step']:06d}"
        for answer in there:
            waveform, rate = load_audio(folder / answer["sound"])
            assert len(waveform) / rate == answer["seconds"]
            assert reader.transcribe([waveform], rate) == [answer["heard"]]
            assert (folder / answer["sound"]).with_suffix(".png").stat().st_size > 1000
        sounds = {answer["sound"] for answer in there}
        assert {path.name for path in folder.glob("*.wav")} == sounds
        num_with_sound += len(there)
    assert num_with_sound  # the model has learned to speak
    assert len(list((run / "evaluation" / "reference").glob("*.wav"))) == 4
    assert summary.best is not None
    assert summary.best.metric == "spoken_wer"
    cut = evaluations[-1]["num_spoken_cut"]
    assert f"4 records answered in sound after update 2: {cut} cut at eval_max_new_tokens=8" in caplog.text


def test_references_are_heard_once_in_a_run(make_speaking, tmp_path, reader, levels, no_pictures):
    settings = {"eval_every": 1, "max_steps": 3, "eval_asr": STAND_IN}
    train(make_speaking(save_every=2, **settings))
    spoken = sum(answer["sound"] is not None for step in (1, 2, 3) for answer in answers_of(tmp_path / "run", step))
    assert reader.num_heard == 4 + spoken
    again = reader.num_heard
    checkpoint = str(tmp_path / "run" / "checkpoints" / "step_000002")
    train(make_speaking(resume=checkpoint, **settings))
    assert reader.num_heard == again + sum(answer["sound"] is not None for answer in answers_of(tmp_path / "run", 3))


@pytest.mark.parametrize("judges", [{}, {"eval_asr": STAND_IN, "eval_similarity": STAND_IN}])
def test_listening_changes_no_update(make_speaking, tmp_path, reader, no_pictures, judges):
    """The real decoder is loaded at the first evaluation. Dropout makes random states matter."""
    settings = {"lora": LoRASettings(r=2, dropout=0.2), "max_steps": 2, "eval_every": 1}
    train(make_speaking(output_dir=str(tmp_path / "deaf"), eval_listen_samples=0, **settings))
    train(make_speaking(output_dir=str(tmp_path / "hearing"), **settings, **judges))
    assert metrics_of(tmp_path / "hearing") == metrics_of(tmp_path / "deaf")
    assert_same_weights(tmp_path / "hearing", tmp_path / "deaf")
    for line, deaf in zip(metrics_of(tmp_path / "hearing", "eval"), metrics_of(tmp_path / "deaf", "eval"), strict=True):
        assert line["loss"] == deaf["loss"]
        assert ("spoken_wer" in line) == ("spoken_similarity" in line) == bool(judges)


def test_a_resumed_run_speaks_and_trains_as_one_that_was_not_interrupted(make_speaking, tmp_path, reader, no_pictures):
    settings = {
        "lora": LoRASettings(r=2, dropout=0.2), "eval_every": 2, "save_every": 3, "max_steps": 4, "eval_asr": STAND_IN,
        "eval_listen_samples": 2,
    }  # fmt: skip
    train(make_speaking(output_dir=str(tmp_path / "straight"), **settings))
    checkpoint = str(tmp_path / "straight" / "checkpoints" / "step_000003")
    train(make_speaking(output_dir=str(tmp_path / "resumed"), resume=checkpoint, **settings))
    straight, resumed = (metrics_of(tmp_path / name, "eval") for name in ("straight", "resumed"))
    assert resumed == straight[1:]
    assert_same_weights(tmp_path / "straight", tmp_path / "resumed")
    one, other = (tmp_path / name / "evaluation" / "step_000004" for name in ("straight", "resumed"))
    assert list(one.glob("*.wav"))
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in other.iterdir())
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes(), path


REFUSED = {
    "no recognizer": ({"eval_asr": "/nowhere/asr"}, "eval_asr=/nowhere/asr: /nowhere/asr is neither a folder here nor"),
    "no model that hears": ({"eval_asr": "LLM"}, "eval_asr=.*holds a model of type qwen2, which recognizes no speech"),
    "no package": ({"eval_asr": "paraformer-zh"}, "eval_asr=paraformer-zh: .* needs funasr: run `pip install funasr`"),
    "no endpoint's model": ({"eval_asr": "http://localhost:1/v1"}, "eval_asr=http://localhost:1/v1: .* names no model"),
    "no encoder": ({"eval_similarity": "nobody"}, "eval_similarity=nobody: no speaker encoder 'nobody'; there are"),
    "no decoder": ({"model": "SILENT"}, "eval_listen_samples=4: the model's audio tokenizer has no waveform decoder"),
    "no spoken answer": ({"eval_data": "TEXTS"}, "eval_listen_samples=4: no record of .* is answered in sound"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_could_not_listen_is_refused_before_the_first_update(
    make_speaking, assets, tmp_path, monkeypatch, reader, case
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    changes, message = REFUSED[case]
    places = {"LLM": assets.text_llm, "SILENT": assets.audio_llm, "TEXTS": assets.dev}
    if case == "no package":
        monkeypatch.setattr(
            "audiollm.benchmarks.speech.judges.recognizers.import_module", lambda name: __import__("no_such_module")
        )
    with pytest.raises(ValueError, match=message):
        train(make_speaking(**{name: str(places.get(value, value)) for name, value in changes.items()}))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_textless_records_are_refused_or_counted(
    make_speaking, tmp_path, decoder_parts, reader, levels, no_pictures, caplog
):
    records = [spoken_record(n) for n in range(2)]
    for record in records:
        record["task"] = "speech_to_speech"
    settings = {"max_steps": 1, "eval_asr": STAND_IN}
    dev = decoder_parts.write_records(tmp_path / "textless.jsonl", records)
    with pytest.raises(ValueError, match=r"eval_asr=stand-in: none of 2 records .* tells what it says"):
        train(make_speaking(eval_data=str(dev), **settings))
    records[1]["text"] = "red"
    decoder_parts.write_records(dev, records)
    train(make_speaking(eval_data=str(dev), **settings))
    assert "1 of 2 spoken answers tell no text" in caplog.text
    assert "eval_listen_samples=4: only 2 records" in caplog.text
    texts = [answer["text"] for answer in answers_of(tmp_path / "run", 1)]
    assert texts == [None, "red"]


def test_answers_that_the_limit_will_cut_are_said_beforehand(make_speaking, no_pictures, caplog):
    train(make_speaking(max_steps=1, eval_max_new_tokens=5))  # three codes, two marks and the end of the turn
    assert "eval_max_new_tokens=5 is shorter than 4 of the 4 answers in sound" in caplog.text


def test_the_picture_shows_a_records_recording(make_speaking, tmp_path, decoder_parts, levels, no_pictures):
    """The recording is at 16 kHz, the sound at the decoder's rate."""
    decoder_parts.make_clip(tmp_path, 7, 0.4)
    record = spoken_record(0) | {"messages": [
        {"role": "user", "content": "Say it."},
        {"role": "assistant", "content": [{"type": "audio", "path": "clip_7.wav"}]},
    ]}  # fmt: skip
    dev = decoder_parts.write_records(tmp_path / "recorded.jsonl", [record])
    train(make_speaking(eval_data=str(dev), max_steps=1, eval_max_new_tokens=24))
    [answer] = answers_of(tmp_path / "run", 1)
    [sounds] = no_pictures
    assert answer["sound"] == "000_clip_0.wav"
    assert list(sounds) == ["spoken", "reference codes, decoded", "recording"]
    assert len(sounds["recording"]) == round(0.4 * 22050)
    assert len(sounds["reference codes, decoded"]) == 10 * CODE_SAMPLES


@pytest.mark.multiprocess
@pytest.mark.parametrize("mode", ["ddp", "zero3"])
def test_processes_share_the_speaking_and_one_listens(
    make_speaking: Any, tokenizer_corpus: Any, launches: Any, tmp_path: Path, mode: str
) -> None:
    """With a recognizer of transformers, which ZeRO-3 would split if it could; five answers in batches of two."""
    recognizer = shutil.copytree(tokenizer_corpus.whisper, tmp_path / "recognizer")
    WhisperFeatureExtractor().save_pretrained(recognizer)
    text_tokenizer = WhisperTokenizerFast.from_pretrained(recognizer)
    text_tokenizer.pad_token = "<|endoftext|>"
    text_tokenizer.save_pretrained(recognizer)
    settings = {"max_steps": 2, "eval_every": 1, "eval_listen_samples": 5, "eval_asr": str(recognizer)}
    train(make_speaking(output_dir=str(tmp_path / "alone"), **settings))
    both = make_speaking(output_dir=str(tmp_path / "both"), num_processes=2, **settings)
    ended = launches.run(mode, "training/sft.py", both)
    assert ended.returncode == 0, ended.stderr[-3000:]
    for line, expected in zip(
        metrics_of(tmp_path / "both", "eval"), metrics_of(tmp_path / "alone", "eval"), strict=True
    ):
        assert line.keys() == expected.keys()
        assert line["num_listened"] == 5
        assert line["reference_wer"] == expected["reference_wer"]
    for path in (tmp_path / "alone" / "evaluation" / "reference").glob("*.wav"):
        assert path.read_bytes() == (tmp_path / "both" / "evaluation" / "reference" / path.name).read_bytes()
    ids = [[answer["id"] for answer in answers_of(tmp_path / name, 2)] for name in ("alone", "both")]
    assert ids[0] == ids[1]
    assert any(answer["sound"] for answer in answers_of(tmp_path / "both", 2))
