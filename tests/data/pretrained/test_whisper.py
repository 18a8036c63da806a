"""Whisper files out of packages load in transformers and transcribe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from jiwer import wer
from tokenizers import Tokenizer, models
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor
from whisper_normalizer.english import EnglishTextNormalizer

from audiollm.data.audio.reading import load_audio
from audiollm.data.corpora.sample_corpus import load_sample_corpus
from audiollm.data.pretrained import whisper as pretrained
from audiollm.data.pretrained.whisper import WhisperFiles, convert_whisper, whisper_from_package


def test_a_whisper_checkpoint_becomes_a_folder_that_transformers_loads(tmp_path, whisper_files):
    folder = tmp_path / "out"
    folder.mkdir()
    convert_whisper(whisper_files, folder)
    names = {path.name for path in folder.iterdir()}
    assert names >= {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"}
    model = WhisperForConditionalGeneration.from_pretrained(folder)
    assert model.dtype == torch.float16
    assert model.proj_out.weight.data_ptr() == model.model.decoder.embed_tokens.weight.data_ptr()
    assert model.generation_config.suppress_tokens == [1, 2]
    processor = WhisperProcessor.from_pretrained(folder)
    assert len(processor.tokenizer) == model.config.vocab_size
    assert processor.tokenizer.convert_tokens_to_ids("<|30.00|>") == model.config.vocab_size - 1
    assert processor.feature_extractor.feature_size == model.config.num_mel_bins


def test_a_tokenizer_of_another_model_is_refused(tmp_path, whisper_files):
    shorter = json.loads(whisper_files.tokenizer.read_text())
    shorter["added_tokens"] = shorter["added_tokens"][:-1]
    whisper_files.tokenizer.write_text(json.dumps(shorter))
    with pytest.raises(ValueError, match=r"entries with timestamps, but the model has"):
        convert_whisper(whisper_files, tmp_path)


@pytest.fixture
def whisper_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WhisperFiles:
    """A tiny checkpoint, as the CTranslate2 reader gives it; its tokenizer lacks timestamps, as published ones do."""
    source = tmp_path / "source"
    source.mkdir()
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "c": 2}, merges=[]))
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|startofprev|>",
               "<|notimestamps|>"]  # fmt: skip
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(source / "tokenizer.json"))
    settings = {"suppress_ids": [1, 2], "suppress_ids_begin": [0], "alignment_heads": [[0, 0]]}
    (source / "config.json").write_text(json.dumps(settings))
    sizes = {
        "vocab_size": 3 + len(special) + 1501, "d_model": 8, "num_mel_bins": 10, "encoder_layers": 1,
        "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 8,
        "decoder_ffn_dim": 8, "pad_token_id": 3, "bos_token_id": 3, "eos_token_id": 3, "decoder_start_token_id": 4,
    }  # fmt: skip
    model = WhisperForConditionalGeneration(WhisperConfig(**sizes)).half()
    monkeypatch.setattr(pretrained, "read_model", lambda _: None)
    monkeypatch.setattr(pretrained, "whisper_config", lambda _: sizes)
    monkeypatch.setattr(pretrained, "whisper_state_dict", lambda _: model.state_dict())
    return WhisperFiles([source / "model.bin"], source / "config.json", source / "tokenizer.json")


def test_an_unknown_whisper_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'small'; available are tiny\.en, base"):
        whisper_from_package("small")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_a_real_whisper_transcribes_real_speech(name, from_package):
    folder = from_package(whisper_from_package, name)
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = WhisperProcessor.from_pretrained(folder)
    clips = [clip for clip in load_sample_corpus() if clip.language == "en" and clip.split == "test"]
    waveforms = [load_audio(clip.audio, 16000)[0].numpy() for clip in clips]
    features = processor(waveforms, sampling_rate=16000, return_tensors="pt").input_features
    language = {"language": "en"} if name == "base" else {}
    texts = processor.batch_decode(model.generate(features, **language), skip_special_tokens=True)
    normalise = EnglishTextNormalizer()
    assert wer([normalise(clip.text) for clip in clips], [normalise(text) for text in texts]) < 0.15
