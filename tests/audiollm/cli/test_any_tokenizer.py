"""Commands with audio tokenizers of several codebooks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from audiollm.cli import main
from audiollm.data.files.json_lines import read_json_lines
from audiollm.modeling import AudioLLM
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.layout import CodeLayout
from tests.local_hub import serve_folders
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


def test_codes_that_the_llm_does_not_know_are_told(folders, tmp_path, audio_llm, caplog):
    clip, own, changed = str(folders / "clips" / "a.wav"), tmp_path / "own.jsonl", tmp_path / "changed"
    main(["tokenize", clip, str(own), "--audio-tokenizer", audio_llm])
    assert not [one for one in caplog.records if "knows codes of" in one.getMessage()]
    shutil.copytree(audio_llm, changed)
    path = changed / "processor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"codec_fingerprint": "f" * 64}))
    main(["tokenize", clip, str(tmp_path / "other.jsonl"), "--audio-tokenizer", str(changed)])
    told = [one.getMessage() for one in caplog.records if "knows codes of" in one.getMessage()]
    assert len(told) == 1
    assert f"{changed} knows codes of the audio tokenizer ffffffffffff…" in told[0]


def test_codebooks_that_are_not_there_are_named(folders, tmp_path, codec, capsys):
    with pytest.raises(SystemExit):
        main(["extend", str(folders / "llm"), str(tmp_path / "out"), "--audio-tokenizer", codec, "--codebooks", "5"])
    assert "codebooks=5: ToyCodec has 4 codebooks; use 1 to 4" in capsys.readouterr().err


def test_the_layout_of_an_audio_llm_is_read_from_the_hub_too(folders, tmp_path, audio_llm, monkeypatch):
    serve_folders(monkeypatch, {"owner/llm": Path(audio_llm), "owner/codec": tmp_path / "codec"}, tmp_path / "cache")
    clip = str(folders / "clips" / "a.wav")
    places = {"here": audio_llm, "there": "owner/llm", "codec": "owner/codec", "own": f"{audio_llm}/audio_tokenizer"}
    records = {}
    for name, place in places.items():
        main(["tokenize", clip, str(tmp_path / f"{name}.jsonl"), "--audio-tokenizer", place])
        (records[name],) = read_json_lines(tmp_path / f"{name}.jsonl")
    assert records["there"]["codes"] == records["here"]["codes"]
    assert records["there"]["audio_tokenizer"] == records["here"]["audio_tokenizer"]
    assert len(records["codec"]["codes"]) == 4  # a row for each codebook, of a tokenizer alone
    assert records["own"]["codes"] == records["codec"]["codes"]


@pytest.mark.parametrize("line", [[], ["--stream"], ["--quality", "exact", "--seed", "3"]])
def test_a_model_speaks_by_a_decoder_of_codes_alone(tmp_path, audio_llm, capsys, line):
    output = str(tmp_path / "a.wav")
    main(["speak", "a", "--model", audio_llm, "-o", output, "--max-seconds", "0.4", "--json", *line])
    facts = json.loads(capsys.readouterr().out)
    assert facts["seconds"] > 0
    assert facts["quality"] is None
    for refused in (["--quality", "fast"], ["--steps", "3"], ["--guidance", "1.5"]):
        with pytest.raises(SystemExit):
            main(["speak", "a", "--model", audio_llm, "-o", str(tmp_path / "b.wav"), *refused])
        assert f"{refused[0][2:]}: the decoder of ToyCodec makes sound of codes alone" in capsys.readouterr().err
