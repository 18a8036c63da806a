"""Whole runs of the last stage of a ReasoningCodec's training."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.reasoningcodec.flow import GIVEN, PADDING, WANTED
from audiollm.tokenizer.reasoningcodec.model import ReasoningCodec
from audiollm.tokenizer.zoo.sqcodec.configuration import SQCodecConfig
from audiollm.tokenizer.zoo.sqcodec.model import SQCodec
from audiollm.training.loop.errors import DataError, ResumeError
from audiollm.training.loop.stopping import RunStoppedError
from audiollm.training.reasoning_codec.config import ReasoningCodecTrainingConfig
from audiollm.training.reasoning_codec.opening import make_codec
from audiollm.training.reasoning_codec.reconstruction import stage as stage_module
from audiollm.training.reasoning_codec.reconstruction.objective import FrozenParts, ReconstructionObjective
from audiollm.training.reasoning_codec.reconstruction.segments import ReconstructionSegments
from audiollm.training.reasoning_codec.reconstruction.start import codec_to_train
from audiollm.training.reasoning_codec.reconstruction_settings import ReconstructionSettings
from audiollm.training.recordings.checked import Recordings
from audiollm.training.train_reasoning_codec import train
from tests.training.finished_runs import assert_same_weights, metrics_of, weights_of

from .conftest import RATE, SIZES, Material, write

FROZEN = ("reasoning.", "encoders.", "sqcodec.")
SETTINGS = ReconstructionSettings(
    phone_quantizer=(1, 8, 8), structure_quantizer=(1, 8, 8), acoustic_quantizer=(2, 8, 8), dit_layers=1, dit_heads=2,
    dit_head_size=8, dit_inner_size=16, dit_positions=800, dit_time_size=8, segment_seconds=0.8, given_latents=(2, 6),
    eval_steps=2, film_dropout=0.5,
)  # fmt: skip
Make = Callable[..., ReasoningCodecTrainingConfig]


@dataclasses.dataclass(frozen=True)
class Before:
    """What the stages before have left, an SQCodec, and recordings alone."""

    codec: Path
    sqcodec: Path
    train: Path
    dev: Path


@pytest.fixture(scope="session")
def before(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Before:
    folder = tmp_path_factory.mktemp("before-reconstruction")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        codec = make_codec(material.encoders, SIZES)
        codec.config = dataclasses.replace(codec.config, trained_stage="grpo")
        codec.save_pretrained(folder / "codec")
        SQCodec(
            SQCodecConfig(
                sample_rate=RATE, num_samples=2, downsample_factors=(8, 10, 6),
                downsample_kernel_sizes=(16, 20, 12), upsample_factors=(6, 10, 8),
                upsample_kernel_sizes=(12, 20, 16), latent_hidden_dim=6, init_channel=2,
            )
        ).save_pretrained(folder / "sqcodec")  # fmt: skip
    train, dev = write(folder / "train.jsonl", material.clips[:9]), write(folder / "dev.jsonl", material.clips[9:])
    return Before(folder / "codec", folder / "sqcodec", train, dev)


@pytest.fixture
def make(before: Before, tmp_path: Path) -> Make:
    """A config of four short updates; settings of the stage are keywords too."""
    own = {entry.name for entry in dataclasses.fields(ReconstructionSettings)}

    def make(**changes: Any) -> ReasoningCodecTrainingConfig:
        settings = {"sqcodec": str(before.sqcodec)} | {name: changes.pop(name) for name in list(changes) if name in own}
        common: dict[str, Any] = {
            "stage": "reconstruction", "codec": str(before.codec), "train_data": str(before.train),
            "output_dir": str(tmp_path / "run"), "max_steps": 4, "global_batch_size": 6, "micro_batch_size": 4,
            "learning_rate": 3e-3, "eval_clips": 2,
        }  # fmt: skip
        return ReasoningCodecTrainingConfig(
            reconstruction=dataclasses.replace(SETTINGS, **settings), **(common | changes)
        )

    return make


def opened(folder: Path) -> ReasoningCodec:
    codec = AudioTokenizer.from_pretrained(folder)
    assert isinstance(codec, ReasoningCodec)
    return codec


def mean_of(lines: list[dict[str, Any]], name: str) -> float:
    return sum(line[name] for line in lines) / len(lines)


# --- a run ------------------------------------------------------------------------------------------------------------


def test_the_loss_falls_the_frozen_stay_and_what_is_left_speaks(make: Make, material: Material, before, tmp_path):
    train(make(max_steps=40, eval_data=str(before.dev), eval_every=20))
    run = tmp_path / "run"
    lines = metrics_of(run)
    for name in ("loss", "flow", "phone", "structure"):
        assert mean_of(lines[-5:], name) < 0.9 * mean_of(lines[:5], name), name
    assert [len(lines[-1][name]) for name in ("perplexity", "code_usage", "num_active_codes", "num_restarted")] == [
        4
    ] * 4
    early, late = metrics_of(run, "eval")
    assert late["loss"] < early["loss"]
    assert late.keys() >= {"flow", "phone", "structure", "mel_distance", "perplexity", "codes_used", "num_codes"}
    assert len(list((run / "evaluation" / "step_000040").glob("*.decoded.wav"))) == 2

    assert "SQCodec" in (run / "model" / "README.md").read_text()
    codec, start = opened(run), opened(before.codec)
    assert (codec.config.trained_stage, codec.group, codec.can_decode) == ("reconstruction", "both", True)
    trained = codec.state_dict()
    for name, tensor in start.state_dict().items():
        if name.startswith(FROZEN):
            assert torch.equal(trained[name], tensor), name
    for name, tensor in AudioTokenizer.from_pretrained(before.sqcodec).state_dict().items():
        assert torch.equal(trained[f"sqcodec.{name}"], tensor), name
    waveform, _ = soundfile.read(material.clips[1]["audio"], dtype="float32")
    codes = codec.encode(torch.from_numpy(waveform), RATE)
    [sound] = codec.decode(codes, steps=2)
    assert sound.shape == (-(-len(waveform) // 1920) * 1920,)
    assert sound.isfinite().all()


def test_passes_of_two_segments_equal_one_pass_of_all(make: Make, tmp_path):
    train(make(output_dir=str(tmp_path / "whole"), micro_batch_size=6))
    train(make(output_dir=str(tmp_path / "cut"), micro_batch_size=2))
    for line, other in zip(metrics_of(tmp_path / "whole"), metrics_of(tmp_path / "cut"), strict=True):
        for name in ("loss", "flow", "commitment", "phone", "structure"):
            assert line[name] == pytest.approx(other[name], rel=2e-3), name


@pytest.mark.multiprocess
def test_two_processes_make_the_updates_of_one(make: Make, before: Before, launches, tmp_path):
    """An odd number of segments, in passes of which one process has more."""
    settings = {
        "eval_data": str(before.dev), "eval_every": 2, "learning_rate": 1e-4, "global_batch_size": 5,
        "micro_batch_size": 2,
    }  # fmt: skip
    train(make(output_dir=str(tmp_path / "alone"), **settings))
    config = make(output_dir=str(tmp_path / "both"), num_processes=2, **settings)
    ended = launches.run("ddp", "training/train_reasoning_codec.py", config)
    assert ended.returncode == 0, ended.stderr[-3000:]
    for event in ("train", "eval"):
        lines = metrics_of(tmp_path / "both", event)
        for line, expected in zip(lines, metrics_of(tmp_path / "alone", event), strict=True):
            for name in ("loss", "flow", "commitment", "phone", "structure", "mel_distance"):
                if name in expected:
                    assert line[name] == pytest.approx(expected[name], rel=5e-3), (event, line["step"], name)
            for name in ("perplexity", "num_codes", "num_restarted"):
                if name in expected:
                    assert line[name] == pytest.approx(expected[name], rel=5e-2), (event, line["step"], name)


def test_resumed_equals_uninterrupted_to_the_bit(make: Make, before: Before, monkeypatch, tmp_path):
    """Stopped at the third update, so that the last checkpoint is from there; dropouts and noise must go on."""
    settings = {"save_every": 1, "keep_checkpoints": 9, "eval_data": str(before.dev), "eval_every": 2}
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train(make(output_dir=str(straight), **settings))
    update = stage_module.ReconstructionTrainer.update

    def stops(trainer: Any, step: int, batch: Any) -> dict[str, Any]:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(trainer, step, batch)

    with monkeypatch.context() as patched:
        patched.setattr(stage_module.ReconstructionTrainer, "update", stops)
        with pytest.raises(RunStoppedError):
            train(make(output_dir=str(stopped), **settings))
    train(make(output_dir=str(stopped), resume="latest", **settings))
    for event in ("train", "eval"):
        assert metrics_of(stopped, event) == metrics_of(straight, event)
    assert_same_weights(stopped, straight)


def test_a_run_goes_on_from_an_earlier_reconstruction(make: Make, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    train(make(output_dir=str(first)))
    sizes = ("phone_quantizer", "structure_quantizer", "acoustic_quantizer")
    train(make(output_dir=str(second), codec=str(first), sqcodec=None, learning_rate=1e-9, max_steps=1))
    for name, tensor in weights_of(first).items():
        if name.startswith("flow."):
            torch.testing.assert_close(weights_of(second)[name], tensor, msg=name)
    for size in sizes:
        with pytest.raises(ValueError, match=rf"reconstruction\.{size}=\[1, 4, 8\]: .* with \[\d, 8, 8\]"):
            train(make(output_dir=str(tmp_path / "other"), codec=str(first), sqcodec=None, **{size: (1, 4, 8)}))
    with pytest.raises(ValueError, match=r"reconstruction\.sqcodec has no effect"):
        train(make(output_dir=str(tmp_path / "other"), codec=str(first)))


# --- what is drawn ----------------------------------------------------------------------------------------------------


@pytest.fixture
def codec(before: Before) -> ReasoningCodec:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return codec_to_train(opened(before.codec), dataclasses.replace(SETTINGS, sqcodec=str(before.sqcodec)))


def segments(codec: ReasoningCodec, before: Before, **changes: Any) -> ReconstructionSegments:
    settings = dataclasses.replace(SETTINGS, **changes)
    return ReconstructionSegments(Recordings(str(before.train), sample_rate=RATE), codec.config, settings, 64, 0)


def test_reasoning_codes_are_left_out_in_training_only(codec: ReasoningCodec, before: Before):
    """As often as is asked for; encoding moves the features of every clip, in training mode too."""
    every = 1 - 1e-9  # of a whole 1, nothing would be learned
    shares = {
        share: np.mean([one.hears_reasoning for one in segments(codec, before, film_dropout=share).draws(1)])
        for share in (0.0, 0.25, every)
    }
    assert shares[0.0] == 1
    assert shares[every] == 0
    assert 0.6 < shares[0.25] < 0.9
    frozen, objective = FrozenParts(codec), ReconstructionObjective(codec).eval()
    losses = {}
    for share in (0.0, every):
        one = segments(codec, before, film_dropout=share).make_pass(1, range(4))
        made = frozen(one.waveforms)
        losses[share] = objective(made, one)["flow"]
        made.reasoning.mul_(2)
        changes = objective(made, one)["flow"] != losses[share]
        assert bool(changes) == (share == 0), share
    waveform = torch.randn(RATE // 2, generator=torch.Generator().manual_seed(0))
    codes = codec.train().encode(waveform, RATE).groups["reconstruction"][0]
    assert all(torch.equal(codec.encode(waveform, RATE).groups["reconstruction"][0], codes) for _ in range(4))


def test_without_film_the_reconstruction_codes_are_the_same_whatever_is_reasoned(make: Make, before: Before, tmp_path):
    """They are heard by the decoder alone; and a codec goes on as it is."""
    train(make(max_steps=2, film=False))
    codec, waveform = opened(tmp_path / "run"), torch.randn(RATE // 2, generator=torch.Generator().manual_seed(0))
    assert not codec.config.film
    assert not [name for name in codec.state_dict() if "film" in name]
    reasoning, reconstruction = (codec.encode(waveform, RATE).groups[name] for name in ("reasoning", "reconstruction"))
    for name, tensor in codec.state_dict().items():
        if name.startswith("reasoning.quantizer.residual.codebooks.") and name.endswith(".weight"):
            tensor.copy_(tensor.flip(0))  # other entries have other numbers
    again = codec.encode(waveform, RATE).groups
    assert not torch.equal(again["reasoning"][0], reasoning[0])
    assert torch.equal(again["reconstruction"][0], reconstruction[0])
    alone = AudioTokenizer.from_pretrained(tmp_path / "run", group="reconstruction")
    assert torch.equal(alone.encode(waveform, RATE)[0], reconstruction[0])
    train(make(output_dir=str(tmp_path / "with"), max_steps=1))
    on = make(codec=str(tmp_path / "with"), output_dir=str(tmp_path / "on"), film=False, sqcodec=None)
    with pytest.raises(ValueError, match=r"reconstruction\.film=False: the codec has been through .* with True"):
        train(on)


def test_given_latents_and_silence_behind_a_clip_are_marked(codec: ReasoningCodec, before: Before):
    cut = segments(codec, before, given_share=1.0)
    one = cut.make_pass(1, range(16))
    assert cut.segment_frames == 20
    for draw, mask_F in zip(one.draws, one.mask, strict=True):
        assert mask_F.tolist() == (
            [GIVEN] * draw.num_given
            + [WANTED] * (draw.num_frames - draw.num_given)
            + [PADDING] * (20 - draw.num_frames)
        )
        assert 2 <= draw.num_given <= min(6, draw.num_frames // 2)
    assert min(one.num_frames) < 20  # clips of 0.3 s
    assert not any(draw.num_given for draw in segments(codec, before, given_share=0.0).draws(1))


def test_silence_behind_a_clip_teaches_codes_nothing(codec: ReasoningCodec, before: Before):
    one = segments(codec, before).make_pass(1, range(8))
    objective, frozen = ReconstructionObjective(codec).train(), FrozenParts(codec)
    for name in ("phone", "structure", "acoustic"):
        codec.reconstruction.quantizer(name).residual.defer_updates()
    made = frozen(one.waveforms)
    losses = objective(made, one)
    [update] = codec.reconstruction.quantizer("phone").residual.apply_update()
    assert update.num_frames == sum(-(-int(count) // 2) for count in one.num_frames) == one.totals.num_codes
    behind = torch.arange(40) >= 2 * one.num_frames[:, None]
    made.heard.wavlm[behind] += 100.0
    again = objective(made, one)
    torch.testing.assert_close(again["phone"], losses["phone"], rtol=0.3, atol=0.0)  # the head looks a little ahead


# --- bad input --------------------------------------------------------------------------------------------------------


def test_a_codec_that_was_never_trained_is_refused_with_what_to_run(make: Make, material: Material, tmp_path):
    codec = make_codec(material.encoders, SIZES)
    codec.save_pretrained(tmp_path / "fresh")
    with pytest.raises(ValueError, match=r"(?s)no stage yet.*train_reasoning_codec\.py --stage supervised"):
        train(make(codec=str(tmp_path / "fresh")))


def test_without_an_sqcodec_it_says_how_to_train_one(make: Make, before: Before, tmp_path):
    with pytest.raises(ValueError, match=r"(?s)needs reconstruction\.sqcodec.*training/train_codec\.py"):
        train(make(sqcodec=None))
    with pytest.raises(ValueError, match=r"(?s)reconstruction\.sqcodec: .*training/train_codec\.py"):
        train(make(sqcodec=str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match="is a ReasoningCodec; give an SQCodec"):
        train(make(sqcodec=str(before.codec)))
    SQCodec(
        SQCodecConfig(
            sample_rate=16000, num_samples=2, downsample_factors=(8, 4), downsample_kernel_sizes=(16, 8),
            upsample_factors=(4, 8), upsample_kernel_sizes=(8, 16), latent_hidden_dim=6, init_channel=2,
        )
    ).save_pretrained(tmp_path / "other")  # fmt: skip
    with pytest.raises(ValueError, match=r"every 64 samples at 16000 Hz; needed are 6 for 960 at 24000 Hz"):
        train(make(sqcodec=str(tmp_path / "other")))


def test_resuming_with_another_codebook_size_or_codec_is_refused(make: Make, before: Before, tmp_path):
    train(make(save_every=2))
    with pytest.raises(ResumeError, match=r"reconstruction\.acoustic_quantizer"):
        train(make(resume="latest", acoustic_quantizer=(2, 4, 8)))
    other = opened(before.codec)
    with torch.no_grad():
        other.reasoning.merge.weight += 1
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ResumeError, match="codec"):
        train(make(resume="latest", codec=str(tmp_path / "other")))


def test_a_clip_shorter_than_a_reasoning_code_is_listed(make: Make, material: Material, tmp_path):
    soundfile.write(tmp_path / "short.wav", np.zeros(RATE // 10), RATE)
    data = write(tmp_path / "some.jsonl", [{"audio": str(tmp_path / "short.wav")}, *material.clips[:3]])
    with pytest.raises(DataError, match=r"(?s)1 of 4 records.*shorter than min_seconds=0\.2"):
        train(make(train_data=str(data)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segment_seconds": 25.6, "dit_positions": 600}, "has 640 latents, and the flow takes 600"),
        ({"segment_seconds": 40.0}, "segment_seconds=40: 30 s are heard at once"),
        ({"global_batch_size": 1}, "phone_quantizer has 8 entries: the 10 codes of an update"),
        ({"film_dropout": 1.5}, "film_dropout=1.5"),
        ({"film_dropout": 1.0}, "film_dropout=1: .*never be learned"),
        ({"given_latents": (6, 2)}, r"given_latents=\[6, 2\]"),
    ],
)
def test_settings_that_cannot_work_are_refused(make: Make, changes, message):
    with pytest.raises(ValueError, match=message):
        train(make(**changes))
