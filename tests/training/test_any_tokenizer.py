"""One line of a config puts the same fine-tuning on another audio tokenizer: of one, two or eight codebooks."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import soundfile
import torch

from audiollm.data.tokenizing.corpus import tokenize_corpus
from audiollm.modeling import AudioLLM
from audiollm.tokenizer import AudioTokenizer
from audiollm.tokenizer.sequence import as_one_row
from audiollm.training.sft import train
from audiollm.training.speed.estimate import EstimateConfig, estimate
from tests.conftest import FIXTURES
from tests.local_hub import serve_folders
from tests.tokenizer.zoo.tiny_codecs import make_codec
from tests.toy_codec import ToyCodec, register, sound


@pytest.fixture(autouse=True)
def known_kind(monkeypatch):
    register(monkeypatch)


@pytest.fixture
def recordings(tmp_path):
    """Recordings with questions about them that are answered in words or in sound."""
    records = []
    for number in range(8):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, sound(0.3, number).numpy(), 16000)
        audio = {"type": "audio", "path": path.name}
        answer = [audio] if number % 2 else "a noise"
        question = {"role": "user", "content": [audio, {"type": "text", "text": "What?"}]}
        records.append({"id": str(number), "messages": [question, {"role": "assistant", "content": answer}]})
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return path


@pytest.fixture
def config_of(make_config, assets, recordings, tmp_path):
    def made(codec, **changes):
        codec.save_pretrained(tmp_path / "codec")
        settings = {
            "model": str(assets.text_llm), "train_data": str(recordings), "max_steps": 2, "global_batch_size": 4,
            "audio_tokenizer": str(tmp_path / "codec"),
        }  # fmt: skip
        return make_config(**settings | changes)

    return made


@pytest.mark.parametrize(
    ("num_codebooks", "line", "told"),
    [
        (1, {}, "10 tokens per second of audio (1 codebook × 10 Hz), context of 256 holds 25.4 s"),
        (2, {}, "20 tokens per second of audio (2 codebooks × 10 Hz, flat), context of 256 holds 12.7 s"),
        (8, {}, "80 tokens per second of audio (8 codebooks × 10 Hz, flat), context of 256 holds 3.1 s"),
        (8, {"code_order": "delay"}, "80 tokens per second of audio (8 codebooks × 10 Hz, delay)"),
        (8, {"codebooks": 2}, "20 tokens per second of audio (2 codebooks × 10 Hz, flat), context of 256 holds 12.7 s"),
    ],
)
def test_a_fine_tuning_on_any_tokenizer(config_of, tmp_path, caplog, num_codebooks, line, told):
    with caplog.at_level(logging.INFO):
        summary = train(config_of(ToyCodec(num_codebooks), **line))
    assert told in caplog.text
    assert ("use a longer context" in caplog.text) == ("80 tokens" in told)
    assert summary.loss > 0
    model = AudioLLM.from_pretrained(tmp_path / "run" / "model")
    assert type(model.processor.audio_tokenizer).__name__ == ("ToyCodec" if num_codebooks == 1 else "SequenceTokenizer")
    chat = [{"role": "user", "content": [{"type": "audio", "path": str(tmp_path / "0.wav")}]}]
    result = model.chat(chat, modalities={"audio"}, max_seconds=0.4, seed=0)
    assert 0 < len(result.waveforms[0][0]) <= 0.4 * 16000


def test_codes_made_beforehand_train_the_same(config_of, recordings, tmp_path):
    codec = ToyCodec(2)
    tokenize_corpus(recordings, as_one_row(codec, None, "delay"), tmp_path / "codes.jsonl", progress=False)
    config = config_of(codec, code_order="delay")
    first = train(config).loss
    again = config_of(
        codec, code_order="delay", train_data=str(tmp_path / "codes.jsonl"), output_dir=str(tmp_path / "again")
    )
    assert train(again).loss == first


@pytest.mark.parametrize(
    ("made", "trained", "message"),
    [("flat", "delay", "made by another audio"), ("delay", "flat", "16 is out of range")],
)
def test_codes_of_another_layout_are_refused(config_of, recordings, tmp_path, made, trained, message):
    codec = ToyCodec(2)
    tokenize_corpus(recordings, as_one_row(codec, None, made), tmp_path / "codes.jsonl", progress=False)
    with pytest.raises(ValueError, match=message):
        train(config_of(codec, train_data=str(tmp_path / "codes.jsonl"), code_order=trained))


def test_codes_of_several_codebooks_in_a_record_are_refused(config_of, tmp_path):
    part = {"type": "audio", "codes": [[1, 2], [3, 4]]}
    messages = [{"role": "user", "content": [part]}, {"role": "assistant", "content": "a"}]
    (tmp_path / "codes.jsonl").write_text(json.dumps({"id": "a", "messages": messages}) + "\n")
    with pytest.raises(ValueError, match=r"codes\[0\]: must be a whole number, not a list; of codes of several"):
        train(config_of(ToyCodec(1), train_data=str(tmp_path / "codes.jsonl")))


def test_answers_that_nobody_will_hear_are_warned_of_once(config_of, caplog):
    train(config_of(ToyCodec(2, decodes=False)))
    warnings = [one for one in caplog.messages if "nobody will hear them" in one]
    assert len(warnings) == 1
    assert "ToyCodec has no waveform decoder" in warnings[0]


def test_a_context_that_holds_no_audio_is_refused(config_of):
    with pytest.raises(ValueError, match="max_length of 8 tokens holds no audio at all: a frame of 8 x 8 codes, flat"):
        train(config_of(ToyCodec(8), max_length=8))


@pytest.mark.parametrize("line", [{"codebooks": 2}, {"code_order": "delay"}])
def test_a_layout_is_that_of_the_tokenizer_that_extends(make_config, line):
    with pytest.raises(ValueError, match="has no effect without audio_tokenizer"):
        make_config(**line)


@pytest.mark.parametrize(("line", "rate"), [({}, 80), ({"codebooks": 3, "code_order": "delay"}, 30)])
def test_the_estimate_tells_what_audio_costs(config_of, assets, tmp_path, line, rate):
    ToyCodec(8).save_pretrained(tmp_path / "codec")
    settings = {"model": str(assets.text_llm), "audio_tokenizer": str(tmp_path / "codec"), "global_batch_size": 8}
    facts = estimate(EstimateConfig(**settings, json=True, **line))
    assert facts["tokens_per_second_of_audio"] == rate
    assert facts["seconds_of_audio_in_the_context"] == pytest.approx(254 // rate * 10 / 10, abs=1)


def test_the_estimate_reads_a_tokenizer_of_the_hub_without_a_config(assets, tmp_path, monkeypatch):
    release = tmp_path / "release"
    release.mkdir()
    shutil.copy(FIXTURES / "wavtokenizer" / "model.safetensors", release)
    serve_folders(monkeypatch, {"owner/wavtokenizer": release}, tmp_path / "cache")
    settings = {"model": str(assets.text_llm), "audio_tokenizer": "owner/wavtokenizer", "global_batch_size": 8}
    facts = estimate(EstimateConfig(**settings, json=True))
    tokenizer = AudioTokenizer.from_pretrained(release)
    assert facts["tokens_per_second_of_audio"] == tokenizer.frame_rate


def test_the_estimate_of_an_audio_llm_knows_its_layout(assets, tmp_path):
    model = AudioLLM.create(str(assets.text_llm), audio_tokenizer=ToyCodec(4), code_order="delay")
    model.save_pretrained(tmp_path / "llm")
    facts = estimate(EstimateConfig(model=str(tmp_path / "llm"), global_batch_size=8, json=True))
    assert facts["tokens_per_second_of_audio"] == 40
    assert facts["parameters"] == sum(one.numel() for one in model.parameters())
    assert torch.isfinite(torch.tensor(facts["total_gib"]))


@pytest.mark.parametrize(
    ("num_codebooks", "line"),
    [(2, {}), (2, {"code_order": "delay"}), (8, {}), (8, {"codebooks": 2})],
)
def test_a_fine_tuning_on_a_codec_of_transformers(make_config, assets, recordings, tmp_path, num_codebooks, line):
    """From the files of a codec to a model that speaks its codes, and back from the model's own folder."""
    values = {"upsampling_ratios": [10, 10], "sampling_rate": 1000, "target_bandwidths": [0.08, 0.04 * num_codebooks]}
    make_codec("encodec", **values).save_pretrained(tmp_path / "codec")
    train(
        make_config(
            model=str(assets.text_llm), train_data=str(recordings), max_steps=2, global_batch_size=4,
            audio_tokenizer=str(tmp_path / "codec"), **line,
        )
    )  # fmt: skip
    model = AudioLLM.from_pretrained(tmp_path / "run" / "model")
    tokenizer = model.processor.audio_tokenizer
    assert tokenizer.inner.kind == "encodec"
    assert tokenizer.layout.num_codebooks == line.get("codebooks", num_codebooks)
    whole = AudioTokenizer.from_pretrained(tmp_path / "codec")
    waveform = sound(0.3, 1)
    expected = tokenizer.layout.to_symbols(whole.encode([waveform], 16000)[0][: tokenizer.layout.num_codebooks])
    assert torch.equal(tokenizer.encode([waveform], 16000)[0][0], expected)
    chat = [{"role": "user", "content": [{"type": "audio", "path": str(tmp_path / "0.wav")}]}]
    result = model.chat(chat, modalities={"audio"}, max_seconds=0.4, seed=0)
    assert 0 < len(result.waveforms[0][0]) <= 0.4 * 1000
    codes = tokenizer.layout.to_codes(result.codes[0][0])
    torch.testing.assert_close(result.waveforms[0][0], whole.decode(codes)[0])
