"""LoSATok against recorded outputs of the public implementation; sizes and tolerances are those of each folder."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.losatok.bottleneck import SemanticBottleneck, reconstruction_loss, relation_loss
from audiollm.tokenizer.losatok.configuration import LoSATokConfig
from audiollm.tokenizer.losatok.front_ends import cut_pieces, decibels, extend, within_range
from audiollm.tokenizer.losatok.losses import alignment_loss, kl_loss, kl_per_dimension, log_variance_loss
from audiollm.tokenizer.losatok.model import Encoded, LoSATok
from audiollm.tokenizer.losatok.names import UNUSED, semantic_names, spelling
from audiollm.tokenizer.losatok.semantic import SemanticEncoder
from audiollm.tokenizer.losatok.teacher.dasheng import DashengSizes, DashengTeacher

CASES = ("batch", "odd")


@dataclass(frozen=True)
class Recorded:
    """A folder's tensors, tokenizer and tolerances."""

    folder: Path
    meta: dict[str, Any]
    tensors: dict[str, Tensor]
    tokenizer: LoSATok

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.tensors[name]
        return tensor.float() / 32768 if tensor.dtype == torch.int16 else tensor

    def near(self, made: Tensor, name: str, tolerance: str) -> None:
        """Compares with what was recorded, by the tolerance of this name in the meta file."""
        text = self.meta["tolerance"][tolerance]
        found = {key: float(value) for key, value in re.findall(r"(atol|rtol) ([\d.e-]+\d)", text)}
        expected = self[name].reshape(made.shape)
        torch.testing.assert_close(made, expected, rtol=found.get("rtol", 0.0), atol=found.get("atol", 1e-7))


FEATURES = "embeddings, mu, logvar, z from a waveform"
FROM_STORED = "the same from the stored mel"


@pytest.fixture(scope="session")
def recorded(losatok_folder: Path) -> Recorded:
    meta = json.loads((losatok_folder / "meta.json").read_text())
    tokenizer = AudioTokenizer.from_pretrained(losatok_folder, num_heads=meta["sizes"]["num_heads"])
    assert isinstance(tokenizer, LoSATok)
    return Recorded(losatok_folder, meta, load_file(losatok_folder / "io.safetensors"), tokenizer)


@torch.no_grad()
def test_front_ends(recorded: Recorded, losatok_folder: Path) -> None:
    extended = extend(recorded["batch.waveform_int16"])
    log_mel = recorded.tokenizer.acoustic.log_mel(extended)
    num_frames = recorded["batch.acoustic_log_mel"].shape[-1]
    recorded.near(log_mel[..., :num_frames], "batch.acoustic_log_mel", "batch.acoustic_log_mel")
    teacher = recorded.tokenizer.semantic.teacher
    assert isinstance(teacher, DashengTeacher)
    mel = decibels(teacher.front_end(extended))
    recorded.near(within_range(mel, loudest_of_all(recorded, "batch")), "batch.teacher_mel_db", "batch.teacher_mel_db")


@torch.no_grad()
def loudest_of_all(recorded: Recorded, case: str) -> Tensor:
    """What the reference takes as the ceiling of each clip: that of the batch."""
    loudest = recorded.tokenizer.semantic.teacher.loudest(extend(recorded[f"{case}.waveform_int16"]))
    return loudest.amax().expand(len(loudest))


@torch.no_grad()
def test_both_sides_from_stored_mels(recorded: Recorded, losatok_folder: Path) -> None:
    tokenizer = recorded.tokenizer
    teacher = tokenizer.semantic.teacher
    assert isinstance(teacher, DashengTeacher)
    semantic = teacher.encode(recorded["batch.teacher_mel_db"])
    acoustic = tokenizer.acoustic(recorded["batch.acoustic_log_mel"])
    num_tokens = min(semantic.shape[1], acoustic.shape[1])
    encoded = tokenizer.fuse(semantic[:, :num_tokens], acoustic[:, :num_tokens])
    compare(recorded, "batch", encoded, FROM_STORED)
    restored = tokenizer.semantic.bottleneck.restore(encoded.semantic_low)
    recorded.near(restored, "batch.semantic_restored", FROM_STORED)
    mse, relation = reconstruction_loss(restored, semantic), relation_loss(encoded.semantic_low, semantic)
    recorded.near(mse, "sembo.mse_loss", "losses")
    recorded.near(relation, "sembo.relation_loss", "losses")
    recorded.near(mse + relation, "sembo.total_loss", "losses")


def compare(recorded: Recorded, case: str, encoded: Encoded, tolerance: str) -> None:
    made = encoded.features() | {"mean": encoded.mean, "log_variance": encoded.log_variance}
    names = {f"{side}_{height}": f"{side}_emb{end}" for side in ("semantic", "acoustic", "unified")
             for height, end in (("high", ""), ("low", "_low"))}  # fmt: skip
    names |= {"mean": "mu", "log_variance": "logvar"}
    assert names.keys() == made.keys()
    for own, theirs in names.items():
        recorded.near(made[own], f"{case}.{theirs}", tolerance)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_waveforms_to_latents_and_back(recorded: Recorded, case: str, losatok_folder: Path) -> None:
    tokenizer, waveforms = recorded.tokenizer, recorded[f"{case}.waveform_int16"]
    encoded = tokenizer.analyze(waveforms, loudest_of_all(recorded, case))
    compare(recorded, case, encoded, FEATURES)
    recorded.near(torch.stack(tokenizer.decode(encoded.mean)), f"{case}.audio", "audio from a waveform")
    stored = tokenizer.decode(recorded[f"{case}.mu"])
    recorded.near(torch.stack(stored), f"{case}.audio", "audio from a stored latent")

    # What is for users gives the same, but that a clip knows nothing of its neighbours.
    alone = tokenizer.analyze(waveforms)
    latents = tokenizer.encode(waveforms, 16000, return_features=True)
    assert latents.mean is not None
    assert latents.log_variance is not None
    assert latents.features is not None
    made = alone.features() | {"mean": alone.mean, "log_variance": alone.log_variance}
    found = {name: torch.stack(rows) for name, rows in latents.features.items()}
    found |= {"mean": latents.mean, "log_variance": latents.log_variance}
    assert found.keys() == made.keys()
    for name, rows in made.items():
        torch.testing.assert_close(found[name], rows, rtol=1e-5, atol=1e-5)
    assert torch.equal(latents.latents, latents.mean)
    assert latents.lengths.tolist() == [tokenizer.num_frames(waveforms.shape[1], 16000)] * len(waveforms)


@torch.no_grad()
def test_long_clips_in_pieces(recorded: Recorded, losatok_folder: Path) -> None:
    tokenizer, waveform = recorded.tokenizer, recorded["long.waveform_int16"]
    encoded = tokenizer.analyze(waveform)
    assert encoded.semantic_high.shape[1] == int(recorded["long.num_frames"])
    some = encoded.semantic_high[:, recorded.meta["long_case_frame_indices"]]
    recorded.near(some, "long.teacher_features", FEATURES)
    teacher = tokenizer.semantic.teacher
    pieces = cut_pieces(extend(waveform), waveform.shape[1], teacher.piece_tokens)
    assert len(pieces) > 1
    latents = tokenizer.encode(waveform, 16000)
    torch.testing.assert_close(latents[0], encoded.mean[0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_limits(recorded: Recorded, losatok_folder: Path) -> None:
    tokenizer = recorded.tokenizer
    _, log_variance = tokenizer.distribution(recorded["clamp.unified_emb_low"])
    recorded.near(log_variance, "clamp.logvar", FROM_STORED)
    recorded.near(torch.stack(tokenizer.decode(recorded["clamp.z"])), "clamp.audio", "audio from a stored latent")


def test_a_training_step_of_the_tokenizer(recorded: Recorded, losatok_folder: Path) -> None:
    tokenizer = LoSATok.from_pretrained(losatok_folder, num_heads=recorded.meta["sizes"]["num_heads"]).train()
    tokenizer.semantic.requires_grad_(False)
    encoded = tokenizer.analyze(recorded["batch.waveform_int16"], loudest_of_all(recorded, "batch"))
    latents = encoded.sampled(recorded["train.eps"])
    recorded.near(latents, "train.z", FEATURES)
    audio = tokenizer.decode_batch(latents)
    recorded.near(audio, "train.audio", "audio from a waveform")
    for mode in ("both", "high_only", "low_only"):
        recorded.near(alignment_loss(encoded, mode), f"train.semantic_loss_{mode}", "losses")
    divergence = kl_per_dimension(encoded)
    recorded.near(kl_loss(divergence), "train.kl_loss", "losses")
    for name in recorded.tensors:
        if clamp := re.fullmatch(r"train\.kl_loss_clamp_([\d.]+)", name):
            recorded.near(kl_loss(divergence, float(clamp[1])), name, "losses")
    recorded.near(log_variance_loss(encoded), "train.logvar_loss", "losses")
    weighted = (audio * recorded["train.audio_weight"]).sum()
    loss = 45 * alignment_loss(encoded) + 0.01 * kl_loss(divergence) + weighted
    recorded.near(loss, "train.loss", "losses")
    loss.backward()
    names = tokenizer.released_names()
    gradients = {f"train.grad.{names[name]}": one.grad for name, one in tokenizer.named_parameters()}
    wanted = {name for name in recorded.tensors if name.startswith("train.grad.")}
    assert wanted <= gradients.keys()
    for name in sorted(wanted):
        made = gradients[name]
        assert made is not None, name
        recorded.near(made, name, "grad")
    assert all(one.grad is None for one in tokenizer.semantic.parameters())


def test_a_training_step_of_the_bottleneck(recorded: Recorded, losatok_folder: Path) -> None:
    bottleneck = SemanticBottleneck(recorded.tokenizer.config.semantic)
    bottleneck.load_state_dict(recorded.tokenizer.semantic.bottleneck.state_dict())
    features = recorded["sembo_train.teacher_features"]
    low, restored = bottleneck(features)
    mse, relation = reconstruction_loss(restored, features), relation_loss(low, features)
    recorded.near(mse, "sembo_train.mse_loss", "sembo_train.*")
    recorded.near(relation, "sembo_train.relation_loss", "sembo_train.*")
    (1000 * mse + relation).backward()
    names = semantic_names(f"bottleneck.{name}" for name, _ in bottleneck.named_parameters())
    gradients = {
        names[f"bottleneck.{name}"].replace("bottleneck.", "sembo_train.grad."): one.grad
        for name, one in bottleneck.named_parameters()
    }
    assert gradients.keys() == {name for name in recorded.tensors if name.startswith("sembo_train.grad.")}
    for name, made in gradients.items():
        assert made is not None
        recorded.near(made, name, "sembo_train.*")


def test_the_released_sizes_have_the_released_names(losatok_folder: Path) -> None:
    expected = json.loads((losatok_folder / "full_size_state_dict_keys.json").read_text())
    with torch.device("meta"):
        config = LoSATokConfig()
        model = LoSATok(config, SemanticEncoder(config.semantic, DashengTeacher(DashengSizes())))
    made = {model.released_names()[name]: list(tensor.shape) for name, tensor in model.weights().items()}
    assert made == {spelling(name): shape for name, (shape, _) in expected.items() if not name.endswith(UNUSED)}
