"""Recordings with texts and their latents that are kept: whose they are, what is refused, and that none is cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import torch
from accelerate import Accelerator
from safetensors.torch import save

from audiollm.tokenizer.base import AudioTokenizer
from audiollm.training.diffusion.clips import TextClips
from audiollm.training.diffusion.start import assemble
from audiollm.training.loop.errors import DataError

from .conftest import DiffusionCorpus, write_records

RATE = 16000


@pytest.fixture(scope="module")
def losatok(dit_corpus: DiffusionCorpus) -> AudioTokenizer:
    return AudioTokenizer.from_pretrained(str(dit_corpus.audio_tokenizer))


@pytest.fixture
def make_clips(make_dit_config, losatok: AudioTokenizer, tmp_path: Path) -> Callable[..., TextClips]:
    """The clips of one record, whose recording lies in the temporary folder."""

    def make(record: dict, **settings) -> TextClips:
        path = str(write_records(tmp_path / "clips.jsonl", [{"audio": "clip.wav"} | record]))
        return TextClips(path, losatok, make_dit_config(train_data=path, **settings), len)

    return make


def write_sound(folder: Path, *shape: int) -> None:
    samples = 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    soundfile.write(folder / "clip.wav", samples.numpy(), RATE)


def test_latents_in_a_folder_are_told_apart_by_the_channels_that_are_heard(make_clips, tmp_path):
    write_sound(tmp_path, 8000, 2)
    mean, first, again = (
        make_clips({"text": "a"}, cache_dir=str(tmp_path / "cache"), mono=mono).latents(0).mean
        for mono in ("mean", "first", "mean")
    )
    assert torch.equal(first, make_clips({"text": "a"}, mono="first").latents(0).mean)
    assert torch.equal(mean, again)
    assert not torch.equal(first, mean)


@pytest.mark.parametrize(
    "stored",
    [
        {"foo": torch.zeros(12, 6)},
        {"mean": torch.zeros(12, 5)},
        {"mean": torch.zeros(12, 6), "log_variance": torch.zeros(3, 6)},
        {"mean": torch.full((12, 6), float("nan"))},
    ],
)
def test_what_is_none_of_the_kept_latents_is_refused_with_its_file(make_clips, tmp_path, stored):
    write_sound(tmp_path, 8000)
    settings = {"cache_dir": str(tmp_path / "cache")}
    make_clips({"text": "a"}, **settings).latents(0)
    [path] = (tmp_path / "cache").rglob("*.safetensors")
    path.write_bytes(save(stored))
    with pytest.raises(ValueError, match=rf"{path.name} does not hold the latents of a recording.*delete it"):
        make_clips({"text": "a"}, **settings).latents(0)


@pytest.mark.parametrize("seconds", [0.25, 1.03, 1.16])
def test_speech_that_is_as_long_as_may_be_keeps_its_last_latent(make_dit_config, losatok, tmp_path, seconds):
    write_sound(tmp_path, round(seconds * RATE))
    record = {"audio": "clip.wav", "text": "a", "sound_type": "speech"}
    path = str(write_records(tmp_path / "clips.jsonl", [record]))
    run, model = assemble(Accelerator(cpu=True), make_dit_config(train_data=path, max_seconds=seconds), losatok)
    assert run.train.num_frames(0) == model.config.max_frames


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "a", "sound_type": ["speech"]}, r"clips\.jsonl:1: task=None, sound_type=\['speech'\]: use a task of"),
        ({"text": "a", "sound_type": {"a": 1}}, r"sound_type=\{'a': 1\}: use a task of"),
        ({"text": "a\ud800"}, r"clips\.jsonl:1: text: 'a\\ud800' holds half a character"),
    ],
)
def test_records_that_no_text_or_task_can_be_read_from_are_listed(make_clips, tmp_path, record, message):
    write_sound(tmp_path, 8000)
    with pytest.raises(DataError, match=message):
        make_clips(record)


def test_a_record_without_an_id_is_called_by_its_line(make_clips, tmp_path):
    write_sound(tmp_path, 8000)
    assert make_clips({"text": "a", "id": None}).id(0).endswith("clips.jsonl:1")


def test_a_recording_whose_latents_cannot_be_made_any_more_is_named(make_clips, losatok, tmp_path, monkeypatch):
    write_sound(tmp_path, 8000)
    clips = make_clips({"text": "a"})

    def fails(waveforms, sample_rate):
        raise ValueError("clip 0 has latents that are NaN or infinite")

    monkeypatch.setattr(losatok, "encode", fails)
    with pytest.raises(DataError, match=r"clips\.jsonl:1: audio: has latents that are NaN"):
        clips.latents(0)
    (tmp_path / "clip.wav").unlink()
    with pytest.raises(DataError, match=r"clips\.jsonl:1: audio: can no longer be read"):
        clips.latents(0)
