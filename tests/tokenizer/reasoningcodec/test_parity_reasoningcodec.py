"""ReasoningCodec equals the public implementation: codes exactly, values within the folder's tolerances."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from audiollm.tokenizer import AudioTokenizer
from audiollm.tokenizer.quantizer.projected import ProjectedResidualQuantizer
from audiollm.tokenizer.reasoningcodec.configuration import BRANCHES, ReasoningCodecConfig
from audiollm.tokenizer.reasoningcodec.encoders import (
    WAVLM_LAYERS,
    WAVLM_SILENCE,
    FrozenEncoder,
    PluggedEncoder,
    TransformersEncoder,
)
from audiollm.tokenizer.reasoningcodec.model import ReasoningCodec
from audiollm.tokenizer.reasoningcodec.names import as_released, is_kept, sizes_of
from audiollm.tokenizer.reasoningcodec.windows import PUBLISHED_SAMPLES, published_windows
from audiollm.tokenizer.signal.resampling import resample
from tests.tokenizer.zoo.tolerances import assert_near, read_meta, tolerance

VALUES = "features, vq inputs"
LOSS, GRADIENT, STEP = "fm.loss", "fm.grad", "vq_train.*"


class Recorded:
    """What a folder holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.io = load_file(folder / "io.safetensors")
        self.meta = read_meta(folder)

    def near(self, found: Tensor, name: str, about: str = VALUES) -> None:
        """Compares by the tolerance whose key has these words, or is these words."""
        tolerances = self.meta["tolerance"]
        key = about if about in tolerances else next(key for key in tolerances if about in key)
        assert_near(found, self.io[name], tolerance({"tolerance": {key: tolerances[key]}}, key), name)


@pytest.fixture(scope="module")
def recorded(reasoningcodec_folder: Path) -> Recorded:
    return Recorded(reasoningcodec_folder)


@pytest.fixture(scope="module")
def codec(reasoningcodec_folder: Path, recorded: Recorded) -> ReasoningCodec:
    """Opened from the released layout, with encoders that give what is recorded."""
    io = recorded.io
    whisper, music = io["whisper_hidden"], (io["music_acoustic"], io["music_semantic"])
    opened = AudioTokenizer.from_pretrained(
        reasoningcodec_folder,
        whisper=PluggedEncoder(lambda waveforms: whisper, whisper.shape[2], 50),
        wavlm=recorded_wavlm(io["wavlm_hidden_states"]),
        music=PluggedEncoder(
            lambda waveforms: tuple(one.transpose(1, 2) for one in music), music[0].shape[1], 25, 24000
        ),
    )
    assert isinstance(opened, ReasoningCodec)
    return opened


class RecordedStates(nn.Module):
    """In the place of a WavLM: whatever it hears, it says what is recorded, and keeps what it heard."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = list(states)
        self.config: Any = SimpleNamespace(is_encoder_decoder=False, num_hidden_layers=len(states) - 1, to_dict=dict)
        self.heard: Tensor | None = None

    def forward(self, waveforms: Tensor, output_hidden_states: bool) -> Any:
        self.heard = waveforms
        return SimpleNamespace(hidden_states=self.states, last_hidden_state=self.states[-1])


def recorded_wavlm(states: Tensor) -> FrozenEncoder:
    model: Any = RecordedStates(states)
    facts = (states.shape[3], 50.0, 16000)
    return TransformersEncoder(model, None, (WAVLM_LAYERS,), silence=WAVLM_SILENCE, facts=facts)


def waveforms_of(recorded: Recorded) -> Tensor:
    """float32 ``[B, N]``."""
    return recorded.io["waveform_24k_int16"][:, 0].float() / 32768


# --- codes ------------------------------------------------------------------------------------------------------------


def test_codes_equal_the_reference(codec: ReasoningCodec, recorded: Recorded) -> None:
    reasoning, reconstruction = codec.encode(waveforms_of(recorded), codec.sample_rate)
    assert torch.equal(reasoning.codes.transpose(1, 2), recorded.io["film.reasoning_codes"])
    assert torch.equal(reconstruction.codes.transpose(1, 2), recorded.io["film.reconstruction_codes"])
    again = codec.encode(waveforms_of(recorded), codec.sample_rate)
    assert all(torch.equal(one.codes, two.codes) for one, two in zip(again, (reasoning, reconstruction), strict=True))


@torch.no_grad()
def test_frozen_encoders_hear_and_give_what_the_reference_does(codec: ReasoningCodec, recorded: Recorded) -> None:
    heard = codec.hear(waveforms_of(recorded))
    recorded.near(heard.wavlm.transpose(1, 2), "wavlm_mean_6_9")
    encoder: Any = codec.encoders["wavlm"]
    recorded.near(encoder.encoder.heard, "wavlm_input_16k", "wavlm_input_16k")
    for found, name in ((heard.acoustic, "music_acoustic"), (heard.semantic, "music_semantic")):
        assert torch.equal(found.transpose(1, 2), recorded.io[name])
    assert torch.equal(heard.whisper, recorded.io["whisper_hidden"][:, : heard.whisper.shape[1]])


@pytest.mark.parametrize("case", ["film", "nofilm"])
@torch.no_grad()
def test_features_equal_the_reference(codec: ReasoningCodec, recorded: Recorded, case: str) -> None:
    heard = codec.hear(waveforms_of(recorded))
    reasoning = codec.reasoning(heard.whisper, heard.semantic)
    recorded.near(reasoning, f"{case}.reasoning_vq_input")
    reasoning_codes = codec.reasoning.quantizer.encode(reasoning)
    assert torch.equal(reasoning_codes.transpose(1, 2), recorded.io[f"{case}.reasoning_codes"])
    said = codec.reasoning.quantizer.decode(reasoning_codes)
    recorded.near(said, f"{case}.reasoning_vq_output")

    branch = codec.reconstruction
    features = branch.features(heard)
    if case == "nofilm":  # as a training leaves a fifth of the clips
        influence = branch.influence(said, branch.tokens_of(0, features["phone"].shape[1]))
        moved = branch.moved(features, influence, torch.zeros(len(said), dtype=torch.bool))
        assert all(torch.equal(moved[name], features[name]) for name in BRANCHES)
    else:
        moved = branch.moved(features, branch.influence(said, branch.tokens_of(0, features["phone"].shape[1])))
    codes = branch.encode(moved)
    assert torch.equal(codes.transpose(1, 2), recorded.io[f"{case}.reconstruction_codes"])
    decoded = branch.decoded(codes)
    for name in BRANCHES:
        recorded.near(moved[name], f"{case}.{name}_vq_input")
        recorded.near(decoded[name], f"{case}.{name}_vq_output")
    assert codec.flow is not None
    recorded.near(codec.flow.condition(branch.decode(codes)), f"{case}.merged_features")


@torch.no_grad()
def test_queries_equal_the_reference(codec: ReasoningCodec, recorded: Recorded) -> None:
    branch = codec.reasoning
    with_queries = branch.with_queries(recorded.io["query.frames"])
    recorded.near(with_queries, "query.with_queries")
    made = branch.transformed(with_queries)
    recorded.near(made, "query.transformer_out")
    recorded.near(branch.picked(made), "query.picked")


@torch.no_grad()
def test_reasoning_is_added_to_what_is_decoded_as_in_the_reference(codec: ReasoningCodec, recorded: Recorded) -> None:
    given, branch = recorded.io["combine.reconstruction"], codec.reconstruction
    influence = branch.influence(recorded.io["combine.reasoning"], branch.tokens_of(0, given.shape[1]))
    recorded.near(given + influence, "combine.out")


@torch.no_grad()
def test_the_heads_of_the_training_equal_the_reference(codec: ReasoningCodec, recorded: Recorded) -> None:
    for name in ("structure", "phone"):
        recorded.near(codec.heads[name](recorded.io["decoder.latent"]), f"decoder.{name}")


# --- the flow ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_velocity_equals_the_reference(codec: ReasoningCodec, recorded: Recorded) -> None:
    assert codec.flow is not None
    estimator = codec.flow.estimator
    recorded.near(estimator(recorded.io["dit.input"], recorded.io["dit.timestep"]), "dit.out", "dit.*")
    time, said = estimator.said_of(recorded.io["dit.timestep"])
    recorded.near(time, "dit.time_embedding", "dit.*")
    recorded.near(said.flatten(1), "dit.adaln", "dit.*")


@torch.no_grad()
def test_latents_equal_the_reference(codec: ReasoningCodec, recorded: Recorded) -> None:
    assert codec.flow is not None
    io, branch = recorded.io, codec.reconstruction
    codes = io["film.reconstruction_codes"][:1].transpose(1, 2)
    said = branch.decode(codes)
    reasoning = codec.reasoning.quantizer.decode(io["film.reasoning_codes"][:1].transpose(1, 2))
    both = said + branch.influence(reasoning, branch.tokens_of(0, codes.shape[2]))
    names = [name for name in io if re.fullmatch(r"flow\d+(_\w+)?\.latents", name)]
    assert len(names) >= 4
    for name in names:
        steps = int(re.findall(r"\d+", name)[0])
        given = io["flow.true_latents"][:, : int(io["flow.incontext_length"])] if "incontext" in name else None
        condition = codec.flow.conditions(said if "no_reasoning" in name else both, int(io["flow.latent_length"]))
        made = codec.flow.sample(condition, io["flow.noise"], steps=steps, guidance=1.5, given_BGL=given)
        recorded.near(made, name)


def test_the_loss_of_the_flow_equals_the_reference(codec: ReasoningCodec, recorded: Recorded) -> None:
    assert codec.flow is not None
    io = recorded.io
    given = [io[f"fm.{name}"] for name in ("x1", "z", "t", "incontext", "condition", "latent_masks")]
    codec.flow.zero_grad()
    loss = codec.flow.loss(*given)
    recorded.near(loss[None], "fm.loss", LOSS)
    half = torch.full_like(given[2], 0.5)
    recorded.near(codec.flow.loss(*given[:2], half, *given[3:])[None], "fm.loss_validation", LOSS)
    loss.backward()
    names = codec.released_names()
    found = {
        names[name].removeprefix("cfm_wrapper.estimator."): one.grad
        for name, one in codec.named_parameters()
        if name.startswith("flow.estimator.")
    }
    wanted = {name.removeprefix("fm.grad."): name for name in io if name.startswith("fm.grad.")}
    assert wanted
    for short, name in wanted.items():
        gradient = found[short]
        assert gradient is not None
        recorded.near(gradient, name, GRADIENT)
    codec.flow.zero_grad()


# --- a training step of the quantizers --------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["reasoning", "acoustic"])
def test_a_training_step_of_a_quantizer_equals_the_reference(
    reasoningcodec_folder: Path, recorded: Recorded, which: str
) -> None:
    codec = ReasoningCodec.from_pretrained(reasoningcodec_folder)
    quantizer = codec.reasoning.quantizer if which == "reasoning" else codec.reconstruction.quantizer(which)
    quantizer.train()
    io, prefix = recorded.io, f"vq_train.{which}_"
    features = io[f"{prefix}input"].clone().requires_grad_()
    output = quantizer(features)
    assert output.losses is not None
    assert torch.equal(output.codes.transpose(1, 2), io[f"{prefix}indices"])
    recorded.near(output.quantized, f"{prefix}output", STEP)
    recorded.near(output.losses, f"{prefix}commit_losses", STEP)
    ((output.quantized * io[f"{prefix}weight"]).sum() + output.losses.sum()).backward()
    assert features.grad is not None
    recorded.near(features.grad, f"{prefix}grad_input", "vq_train.*grad*")
    for name, one in quantizer.named_parameters():
        if f"{prefix}grad.{name}" in io:
            assert one.grad is not None
            recorded.near(one.grad, f"{prefix}grad.{name}", "vq_train.*grad*")
    check_entries(quantizer, recorded, f"{prefix}after.layers.")


def check_entries(quantizer: ProjectedResidualQuantizer, recorded: Recorded, prefix: str) -> None:
    """Entries and averages behind the step."""
    names = {"embed": "weight", "embed_avg": "ema_weight", "cluster_size": "ema_count"}
    checked = [name for name in recorded.io if name.startswith(prefix)]
    assert checked
    for name in checked:
        number, released = name.removeprefix(prefix).split(".")
        codebook = quantizer.residual.codebooks[int(number)]
        recorded.near(getattr(codebook, names[released])[None], name, STEP)


# --- files ------------------------------------------------------------------------------------------------------------


def test_published_windows_equal_the_reference(reasoningcodec_folder: Path) -> None:
    path = reasoningcodec_folder / "windows.json"
    if not path.is_file():
        pytest.skip(f"{reasoningcodec_folder.name} says nothing of windows")
    for one in json.loads(path.read_text())["encode"]:
        plan = published_windows(one["num_samples"])
        assert list(plan.first_samples) == one["window_first_sample"]
        assert one["window_samples"] == PUBLISHED_SAMPLES
        assert (plan.reasoning_codes, plan.reconstruction_codes) == (
            one["reasoning_frames"],
            one["reconstruction_frames"],
        )


def test_released_sizes_have_exactly_the_released_names_and_shapes(reasoningcodec_folder: Path) -> None:
    paths = sorted(reasoningcodec_folder.glob("full_size_state_dict_keys*.json"))
    if not paths:
        pytest.skip(f"{reasoningcodec_folder.name} holds no list of released names")
    for path in paths:
        listed = {name: shape for name, (shape, _) in json.loads(path.read_text()).items()}
        kept = {name: shape for name, shape in listed.items() if is_kept(name, encoder_only=False)}
        values: dict[str, Any] = sizes_of(kept, path, encoder_only=False)
        sizes = {name: tuple(one) if isinstance(one, list) else one for name, one in values.items()}
        head_size = recorded_head_size(reasoningcodec_folder)
        width = kept["cfm_wrapper.estimator.pos_embed.pe"][-1]
        with torch.device("meta"):
            full = ReasoningCodec(ReasoningCodecConfig(**sizes, dit_head_size=head_size, dit_heads=width // head_size))
        names = full.released_names()
        found = {names[name]: as_released(names[name], one.shape) for name, one in full.weights().items()}
        assert found == kept
        # What is passed over is computed, not stored, by us.
        assert all(name.endswith((".rope.inv_freq", "._codebook.initted")) for name in listed.keys() - kept.keys())


def recorded_head_size(folder: Path) -> int:
    """Of the released flow."""
    size: int = read_meta(folder)["released_sizes"]["dit"]["head_dim"]
    return size


def test_resampling_is_the_references(recorded: Recorded) -> None:
    low = torch.stack([resample(row, 24000, 16000) for row in waveforms_of(recorded)])
    padded = torch.nn.functional.pad(low, (0, WAVLM_SILENCE))
    recorded.near(padded, "wavlm_input_16k", "wavlm_input_16k")


def test_everything_recorded_is_compared(recorded: Recorded) -> None:
    """A recorded value that no test above reads would be a part that nothing checks."""
    known = re.compile(
        r"(film|nofilm)\.(merged_features|\w+_codes|\w+_vq_(in|out)put)|combine\.\w+|decoder\.\w+|query\.[\w]+"
        r"|dit\.\w+|flow\.\w+|flow\d+(_\w+)?\.latents|fm\.(\w+|grad\..+)|vq_train\..+|music_(acoustic|semantic)"
        r"|wavlm_\w+|whisper_hidden|waveform_24k_int16"
    )
    assert [name for name in recorded.io if not known.fullmatch(name)] == []
