"""Listening to generated files: with --skip-bad each has one line, its answer or why it has none."""

from __future__ import annotations

import json
import os
import random
from functools import partial
from pathlib import Path

import pytest
import soundfile

from audiollm.cli import listening
from audiollm.modeling import AudioLLM
from tests.data.generated_records import GOOD, write_files, write_good_files

ODD_NAMES = [
    *("", "/dev/zero", "/proc/self/mem", "fifo", "missing.wav", "nul\0.wav", "x" * 5000, "a\nb.wav"),
    *("http://x/y.wav", "data:,x", "file://", "half \ud83d.wav", "\udcff.wav", "--json", "~", "$HOME", "corpus.jsonl"),
]


def refusing(encode, waveforms, sample_rate, **options):
    """An audio tokenizer that takes sound of some rates only says so with a ValueError."""
    if sample_rate == 44_100:
        raise ValueError(f"takes no {sample_rate} Hz")
    return encode(waveforms, sample_rate, **options)


@pytest.fixture(scope="module")
def llm() -> AudioLLM:
    return AudioLLM.from_pretrained("mini")


@pytest.mark.parametrize(("command", "num_named"), [("describe", 1000), ("transcribe", 50)])
def test_every_file_has_one_line(command, num_named, llm, tmp_path, monkeypatch, capsys):
    draw = random.Random(5)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(listening, "load_audio_llm", lambda *_: llm)
    soundfile.write(GOOD, [0.1] * 4000, 16_000)
    os.mkfifo("fifo")
    Path("corpus.jsonl").write_text('{"codes": [1]}\n')
    names = [GOOD, *write_good_files(tmp_path), *ODD_NAMES, *write_files(tmp_path, draw)][:num_named]
    names += draw.choices(ODD_NAMES, k=num_named - len(names))
    audio_tokenizer = llm.processor.audio_tokenizer
    monkeypatch.setattr(audio_tokenizer, "encode", partial(refusing, audio_tokenizer.encode))
    getattr(listening, command)(names, max_new_tokens=1, skip_bad=True, json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.removesuffix("\n").split("\n")]
    assert [line["audio"] for line in lines] == names
    answered = [line for line in lines if "text" in line]
    assert all(line["error"] for line in lines if "text" not in line)
    refused = [line["audio"] for line in lines if "takes no 44100 Hz" in line.get("error", "")]
    assert "two.channels.wav" in refused
    assert answered[0]["audio"] == GOOD
    assert len(answered) > len(names) / 10
