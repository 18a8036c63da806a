"""Whole runs of the vocoder's training, and the parts that are its own."""

from __future__ import annotations

import math
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from audiollm.tokenizer.decoder.vocoder.model import HiFTVocoder
from audiollm.tokenizer.decoder.vocoder.source import HarmonicSource
from audiollm.training.decoder.base import DecoderRun
from audiollm.training.decoder.clips import ClipFormat
from audiollm.training.decoder.config import VocoderTrainingSettings
from audiollm.training.decoder.parts import load_part
from audiollm.training.decoder.vocoder.segments import cut_segment, make_pass
from audiollm.training.decoder.vocoder.trainer import VocoderTrainer
from audiollm.training.recordings.segments import SegmentOrder
from audiollm.training.train_decoder import train

from ...finished_runs import assert_equal, checkpoint_of, metrics_of
from ...finished_runs import assert_near_vocoder as assert_near

pytestmark = pytest.mark.skipif(find_spec("pyworld") is None, reason="needs pyworld")

GAN_LOSSES = {"discriminator", "adversarial", "feature_matching", "discriminator_grad_norm"}


def test_a_run_learns_sound_and_pitch_and_leaves_a_vocoder(make_vocoder_config, decoder_corpus, tmp_path):
    config = make_vocoder_config(
        max_steps=40, discriminator_start=35, eval_data=str(decoder_corpus.dev), eval_every=20, eval_clips=2,
        learning_rate=5e-3,
    )  # fmt: skip
    summary = train(config)
    run = tmp_path / "run"
    lines = metrics_of(run)
    early, late = ({name: np.mean([line[name] for line in part]) for name in ("spectral", "f0")}
                   for part in (lines[:10], lines[-10:]))  # fmt: skip
    assert late["spectral"] < 0.7 * early["spectral"]
    assert late["f0"] < early["f0"]
    assert all(GAN_LOSSES.isdisjoint(line) for line in lines[:34])
    assert all(line.keys() >= GAN_LOSSES for line in lines[34:])
    assert lines[-1]["mel_frames"] == 32

    evaluations = metrics_of(run, "eval")
    assert [line["step"] for line in evaluations] == [20, 40]
    assert evaluations[1]["mel_distance"] < 1.5  # tones of 0.4 s; silence is at 7
    assert summary.evaluation == evaluations[1]
    assert {"mcd", "f0_error", "voicing_error"} <= evaluations[1].keys()
    sounds = sorted(path.name for path in (run / "evaluation" / "step_000040").iterdir())
    assert sounds == [
        "000_clip-20.copy_synthesis.wav", "000_clip-20.original.wav", "000_clip-20.png",
        "001_clip-21.copy_synthesis.wav", "001_clip-21.original.wav", "001_clip-21.png", "metrics.json",
    ]  # fmt: skip

    sizes, weights = load_part(run, "vocoder")
    vocoder = HiFTVocoder(sizes.vocoder)
    vocoder.load_state_dict(weights)
    train(make_vocoder_config(max_steps=1, start_from=str(run), output_dir=str(tmp_path / "again")))
    assert metrics_of(tmp_path / "again")[0]["spectral"] < 0.7 * lines[0]["spectral"]


def test_resumed_equals_uninterrupted_to_the_bit(make_vocoder_config, tmp_path):
    """The checkpoint is from between the discriminators' first and second update."""
    settings = {"max_steps": 6, "save_every": 3, "discriminator_start": 3, "cache_dir": str(tmp_path / "cache")}
    train(make_vocoder_config(output_dir=str(tmp_path / "straight"), **settings))
    middle = tmp_path / "straight" / "checkpoints" / "step_000003"
    train(make_vocoder_config(output_dir=str(tmp_path / "resumed"), resume=str(middle), **settings))
    assert metrics_of(tmp_path / "resumed") == metrics_of(tmp_path / "straight")[3:]
    straight = checkpoint_of(tmp_path / "straight", 6)
    assert any(name.startswith("discriminators.") for name in straight)
    assert_equal(checkpoint_of(tmp_path / "resumed", 6), straight)
    assert not torch.equal(straight["vocoder.pre_conv.weight_v"], load_file(middle / "weights.safetensors")[
        "vocoder.pre_conv.weight_v"])  # fmt: skip


def test_passes_change_memory_and_not_the_update(make_vocoder_config, tmp_path):
    settings = {"max_steps": 3, "discriminator_start": 2, "cache_dir": str(tmp_path / "cache")}
    train(make_vocoder_config(output_dir=str(tmp_path / "whole"), **settings))
    train(make_vocoder_config(output_dir=str(tmp_path / "cut"), frames_per_pass=24, **settings))  # 3 segments and 1
    assert_near(tmp_path / "whole", tmp_path / "cut")


def test_the_vocoders_losses_leave_the_discriminators_alone(make_vocoder_config, tmp_path):
    settings = {"max_steps": 1, "discriminator_start": 1, "cache_dir": str(tmp_path / "cache")}
    for name, weight in (("without", 0.0), ("with", 100.0)):
        train(make_vocoder_config(output_dir=str(tmp_path / name), adversarial_weight=weight, **settings))
    without, with_ = (checkpoint_of(tmp_path / name, 1) for name in ("without", "with"))
    equal = {name for name, tensor in without.items() if torch.equal(tensor, with_[name])}
    assert {name for name in without if name.startswith("discriminators.")} <= equal
    assert "vocoder.post_conv.weight_v" not in equal


def test_discriminators_have_a_learning_rate_of_their_own(make_vocoder_config, tmp_path):
    settings = {"max_steps": 1, "discriminator_start": 1, "cache_dir": str(tmp_path / "cache"), "weight_decay": 0.0}
    moved = []
    for rate in (2e-3, 4e-3):
        run = tmp_path / f"{rate}"
        train(make_vocoder_config(output_dir=str(run), discriminator_learning_rate=rate, **settings))
        moved.append(checkpoint_of(run, 1)["discriminators.discriminators.0.output.bias"])
    # From the same start, the first step of Adam is the learning rate; both went the same way.
    start = 2 * moved[0] - moved[1]
    assert (moved[0] - start).abs().item() == pytest.approx(2e-3, rel=1e-2)


def test_settings_that_cannot_work_are_refused(make_vocoder_config, decoder_corpus):
    with pytest.raises(ValueError, match=r"segment_frames=8 is above frames_per_pass=4"):
        train(make_vocoder_config(frames_per_pass=4))
    with pytest.raises(ValueError, match=r"8 frames hold 2048 samples, too few for a window of 4096"):
        train(make_vocoder_config(resolutions=(512, 4096)))
    for wrong, message in (
        ({"segment_frames": 0}, r"segment_frames=0: use a positive"),
        ({"min_pitch": 500.0, "max_pitch": 400.0}, r"max_pitch=400.0 must be above vocoder.min_pitch=500.0"),
        ({"feature_weight": -1.0}, r"feature_weight=-1.0: use zero or more"),
        ({"resolutions": (1000, 62)}, r"resolutions has 62"),
        ({"discriminator_start": 0}, r"discriminator_start=0: updates count from 1"),
        ({"periods": (), "spectrogram_resolutions": ()}, r"name at least one discriminator"),
        ({"discriminator_learning_rate": math.inf}, r"discriminator_learning_rate=inf"),
    ):
        with pytest.raises(ValueError, match=message):
            VocoderTrainingSettings(**wrong)
    VocoderTrainingSettings(periods=(), spectrogram_resolutions=(), discriminator_start=None)


def test_the_flow_models_training_refuses_the_vocoders_settings(make_decoder_config):
    with pytest.raises(ValueError, match=r"vocoder.segment_frames has no effect with model: flow"):
        make_decoder_config(vocoder=VocoderTrainingSettings(segment_frames=8))


class Ramps:
    """Two clips, of 3 and of 40 frames; every frame tells clip and number."""

    def __init__(self, clip_format) -> None:
        self.clip_format = clip_format

    def id(self, clip: int) -> str:
        return f"clip-{clip}"

    def f0(self, clip: int) -> torch.Tensor:
        return 1000.0 * clip + torch.arange((3, 40)[clip])

    def mel(self, clip: int) -> torch.Tensor:
        return self.f0(clip).repeat(20, 1)

    def waveform(self, clip: int, start: int, stop: int) -> torch.Tensor:
        return self.f0(clip).repeat_interleave(256)[start:stop]


@pytest.fixture
def ramps(decoder_parts):
    return Ramps(ClipFormat(decoder_parts.tiny_decoder().mel, 25.0, 64))


def test_mel_pitch_and_waveform_of_a_segment_belong_together(ramps):
    mel, f0, waveform = cut_segment(ramps, 1, 7, 8)
    assert f0.tolist() == [1007 + frame for frame in range(8)]
    assert torch.equal(mel, f0.repeat(20, 1))
    assert torch.equal(waveform, f0.repeat_interleave(256))


def test_silence_follows_a_clip_shorter_than_a_segment(ramps):
    mel, f0, waveform = cut_segment(ramps, 0, 0, 8)
    assert f0.tolist() == [0, 1, 2, 0, 0, 0, 0, 0]
    assert waveform.shape == (8 * 256,)
    assert waveform[3 * 256 :].abs().max() == 0
    assert torch.allclose(mel[:, 3:], torch.tensor(math.log(1e-5)))


def test_a_segment_is_the_same_whatever_is_cut_beside_it(ramps, decoder_parts):
    order = SegmentOrder([3, 40], segment_frames=8, segments_per_update=4, seed=5)
    source = HarmonicSource(decoder_parts.tiny_decoder().vocoder)
    together = make_pass(ramps, order, 3, [0, 1, 2], source)
    alone = make_pass(ramps, order, 3, [1], source)
    for name in ("mel", "f0", "waveform", "phase", "noise"):
        assert torch.equal(getattr(together, name)[1:2], getattr(alone, name)), name
    assert together.ids[1] == alone.ids[0]


def test_more_processes_than_segments_are_refused(make_vocoder_config):
    config = make_vocoder_config(frames_per_update=8)
    accelerator = SimpleNamespace(device=torch.device("cpu"), num_processes=2, prepare=lambda *parts: parts)

    class Clips(list):
        def num_frames(self, index):
            return self[index]

    with pytest.raises(ValueError, match=r"frames_per_update=8 makes 1 segments of 8 frames for 2 processes"):
        VocoderTrainer(DecoderRun(accelerator, config, Clips([40]), None), None)


def test_written_sounds_are_the_vocoders(make_vocoder_config, decoder_corpus, tmp_path):
    train(make_vocoder_config(max_steps=1, eval_data=str(decoder_corpus.dev), eval_clips=1))
    folder = tmp_path / "run" / "evaluation" / "step_000001"
    made, sample_rate = soundfile.read(folder / "000_clip-20.copy_synthesis.wav")
    original, _ = soundfile.read(folder / "000_clip-20.original.wav")
    assert sample_rate == 22050
    assert made.shape == original.shape
    assert np.abs(made - original).max() > 0.01
