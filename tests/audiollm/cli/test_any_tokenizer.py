"""Commands with audio tokenizers of several codebooks."""

from __future__ import annotations

import json

import pytest
import torch

from audiollm.cli import main
from audiollm.data.files.json_lines import read_json_lines
from audiollm.modeling import AudioLLM
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.layout import CodeLayout
from tests.toy_codec import ToyCodec, register


@pytest.fixture(autouse=True)
def known_kind(monkeypatch):
    register(monkeypatch)


@pytest.fixture
def codec(tmp_path):
    ToyCodec(4).save_pretrained(tmp_path / "codec")
    return str(tmp_path / "codec")


@pytest.fixture
def audio_llm(folders, tmp_path, codec, capsys):
    line = ["--audio-tokenizer", codec, "--codebooks", "3", "--code-order", "delay", "--json"]
    main(["extend", str(folders / "llm"), str(tmp_path / "audio-llm"), *line])
    facts = json.loads(capsys.readouterr().out)
    assert (facts["codebook_size"], facts["tokens_per_second_of_audio"]) == (25, 30)
    return str(tmp_path / "audio-llm")


def test_extend_keeps_the_layout_and_the_decoder(audio_llm):
    model = AudioLLM.from_pretrained(audio_llm)
    assert model.vocabulary.layout == CodeLayout((8, 8, 8), "delay")
    assert model.processor.audio_tokenizer.can_decode


def test_a_corpus_is_tokenized_as_the_llm_reads_it(folders, tmp_path, codec, audio_llm):
    clip = str(folders / "clips" / "a.wav")
    records = {}
    for name, line in {
        "codebooks": [codec],
        "row": [codec, "--code-order", "delay", "--codebooks", "3"],
        "llm": [audio_llm],
    }.items():
        main(["tokenize", clip, str(tmp_path / f"{name}.jsonl"), "--audio-tokenizer", *line])
        (records[name],) = read_json_lines(tmp_path / f"{name}.jsonl")
    codes = torch.tensor(records["codebooks"]["codes"])
    assert codes.shape[0] == 4
    assert records["row"]["codes"] == CodeLayout((8, 8, 8), "delay").to_symbols(codes[:3]).tolist()
    assert records["llm"]["codes"] == records["row"]["codes"]
    fingerprint = AudioLLM.from_pretrained(audio_llm).processor.codec_fingerprint
    assert records["llm"]["audio_tokenizer"] == records["row"]["audio_tokenizer"] == fingerprint
    assert records["codebooks"]["audio_tokenizer"] == AudioTokenizer.from_pretrained(codec).fingerprint()


def test_codebooks_that_are_not_there_are_named(folders, tmp_path, codec, capsys):
    with pytest.raises(SystemExit):
        main(["extend", str(folders / "llm"), str(tmp_path / "out"), "--audio-tokenizer", codec, "--codebooks", "5"])
    assert "codebooks=5: ToyCodec has 4 codebooks; use 1 to 4" in capsys.readouterr().err
