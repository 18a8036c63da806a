"""From labelled recordings to figures: reading clips, their views, and the script that clusters and probes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiollm.benchmarks.codes.classes import held_out_parts
from audiollm.benchmarks.codes.clips import LabelledClip, read_labelled_clips
from audiollm.benchmarks.codes.features import encode_clips, relative_error
from audiollm.benchmarks.harness.figures import show_figures
from audiollm.benchmarks.sound_classes import SoundClassesConfig, measure
from audiollm.data.conversation.types import AudioPart
from audiollm.tokenizer import UniAudioTokenizer, UniAudioTokenizerConfig


@pytest.fixture(scope="module")
def tokenizer() -> UniAudioTokenizer:
    config = UniAudioTokenizerConfig(
        num_mel_bins=80, d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32,
        max_source_positions=1500, pooling_kernel_size=2, pooling_position=1, quantize_position=1,
        quantize_vocab_size=32, quantize_encoder_only=True,
    )  # fmt: skip
    tokenizer = UniAudioTokenizer(config).eval()
    waveforms = [tone(pitch_hz) for pitch_hz in (200, 600, 1500, 3000)]
    tokenizer.fit_codebook(waveforms, 16000)
    return tokenizer


def tone(pitch_hz: float, seconds: float = 0.5) -> torch.Tensor:
    return 0.3 * torch.sin(2 * torch.pi * pitch_hz * torch.arange(int(seconds * 16000)) / 16000)


def write_tone(path: Path, pitch_hz: float) -> None:
    soundfile.write(path, tone(pitch_hz).numpy(), 16000)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    lines = []
    for number in range(8):
        write_tone(tmp_path / f"{number}.wav", 200 if number % 2 else 3000)
        label = "low" if number % 2 else "high"
        lines.append({"id": f"n{number}", "audio": f"{number}.wav", "label": label, "sound_type": "sound"})
        lines[-1]["split"] = "train" if number < 4 else "test"
    lines.append({"id": "unlabelled", "audio": "0.wav", "sound_type": "sound"})
    lines.append({"id": "alone", "audio": "0.wav", "label": "rare", "sound_type": "speech"})
    path = tmp_path / "clips.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_only_the_clips_asked_for_are_read(records: Path) -> None:
    assert len(read_labelled_clips(records)) == 9
    assert len(read_labelled_clips(records, min_clips_per_class=2)) == 8
    held_out = read_labelled_clips(records, splits=["test"], sound_type="sound")
    assert [clip.id for clip in held_out] == ["n4", "n5", "n6", "n7"]
    assert held_out[0].load(16000).shape == (8000,)
    with pytest.raises(ValueError, match="has no clips with 'category'"):
        read_labelled_clips(records, label_key="category")


def test_a_folder_of_esc50_is_known_by_its_table(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "audio").mkdir()
    write_tone(tmp_path / "audio" / "1-100-A-0.wav", 500)
    (tmp_path / "meta" / "esc50.csv").write_text(
        "filename,fold,target,category,esc10,src_file,take\n"
        "1-100-A-0.wav,1,0,dog,True,100,A\n"
        "2-200-A-1.wav,2,1,clapping,False,200,A\n"
    )
    with pytest.raises(ValueError, match="no folder of ESC-50"):
        read_labelled_clips(tmp_path / "meta", esc10=True)
    assert [(clip.label, clip.fold) for clip in read_labelled_clips(tmp_path)] == [("dog", "1"), ("clapping", "2")]
    (dog,) = read_labelled_clips(tmp_path, esc10=True)
    assert len(dog.load(16000)) == 8000


def test_the_script_measures_a_tokenizer(records: Path, tokenizer: UniAudioTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    output = tmp_path / "out" / "classes.json"
    results = measure(SoundClassesConfig(audio_tokenizer=str(tmp_path / "tokenizer"), data=str(records), num_seeds=2))
    show_figures(results, str(output), as_json=False)
    assert json.loads(output.read_text())["codes"]["codebook_size"] == 32
    assert results["clustering"]["num_clips"] == 4  # those that are not for training
    assert results["clustering"]["purity"] == 1  # two pitches, each always the same codes
    for view in ("histogram", "entries", "features"):
        assert results[f"probes on {view}"]["logistic_accuracy"] == 1
        assert results[f"probes on {view}"]["majority_accuracy"] == 0.5


def test_each_fold_is_held_out_once_and_clips_without_parts_cannot_be_probed() -> None:
    def clip(**facts: str | None) -> LabelledClip:
        return LabelledClip(id="", label="dog", audio=AudioPart(path="a.wav"), **facts)

    parts = held_out_parts([clip(fold=fold) for fold in ("1", "2", "2", "3")])
    assert [(train.tolist(), held_out.tolist()) for train, held_out in parts] == [
        ([1, 2, 3], [0]), ([0, 3], [1, 2]), ([0, 1, 2], [3]),
    ]  # fmt: skip
    assert held_out_parts([clip(), clip()]) == []
    assert held_out_parts([clip(split="train")]) == []
    ((train, held_out),) = held_out_parts([clip(split="train"), clip(split="dev"), clip(split="test")])
    assert (train.tolist(), held_out.tolist()) == ([0], [1, 2])


def test_views_of_clips_agree_with_the_codes(records: Path, tokenizer: UniAudioTokenizer) -> None:
    waveforms = [clip.load(16000) for clip in read_labelled_clips(records, sound_type="sound")[:3]]
    views = encode_clips(tokenizer, waveforms, 16000)
    entries = tokenizer.codebook.weight.detach().double().numpy()
    np.testing.assert_allclose(views.vectors["entries"], views.vectors["histogram"] @ entries, atol=1e-9)
    distinct, counts = np.unique(np.concatenate(views.codes), return_counts=True)
    assert views.usage == len(distinct) / 32
    shares = counts / counts.sum()
    assert views.perplexity == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert views.vectors["features"].shape == (3, 16)
    assert views.quantization_error is not None


def test_the_relative_error_is_one_for_the_mean_and_zero_for_the_frames() -> None:
    frames = np.random.default_rng(0).normal(size=(50, 4))
    assert relative_error(frames, frames) == 0
    assert relative_error(frames, np.broadcast_to(frames.mean(axis=0), frames.shape)) == pytest.approx(1)
