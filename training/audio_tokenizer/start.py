"""Starting model of a tokenizer's training, made of a Whisper or taken from an earlier stage, and what of it trains."""
# Shapes: D feature size, V codebook entries.

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import broadcast
from torch import Tensor, nn
from transformers import WhisperConfig

from audiollm.data.pretrained.whisper import whisper_from_package
from audiollm.tokenizer.configuration import SAMPLE_RATE
from audiollm.tokenizer.encoder.sae import SemanticAcousticEquilibrium
from audiollm.tokenizer.quantizer.codebook import Codebook
from audiollm.tokenizer.supervision.model import SupervisedModel, SupervisedTokenizer
from audiollm.tokenizer.supervision.opening import open_supervised
from audiollm.tokenizer.supervision.stabletoken import SupervisedStableToken
from audiollm.tokenizer.zoo.stabletoken.configuration import StableTokenConfig
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.loop.record import METRICS_NAME

from .config import (
    QUANTIZER_SETTINGS,
    TokenizerKindName,
    TokenizerSettings,
    TokenizerTrainingConfig,
    check_kind,
    check_voting_run,
    settings_given,
)
from .records import TokenizerRecords
from .voting import change_vote, check_noise, voting_from_whisper
from .warm_start import warm_start

logger = get_logger(__name__)

START_CLIPS = 48  # that the norm of a fresh SAE is fitted on
WHISPER_PACKAGES = ("whisper-tiny.en", "whisper-base")
# Settings whose names are those of SupervisedTokenizer.from_whisper.
_SAME_NAMES = (
    "codebook_size", "pooling_kernel_size", "pooling_position", "use_sae", "use_adapter", "use_gate",
    "sae_source_position", "loss_scale", "encoder_layers", "decoder_layers",
)  # fmt: skip


@dataclass(frozen=True)
class Start:
    """What a run starts from.

    Attributes:
        model: on the CPU.
        is_fresh: whether the tokenizer was just made of a Whisper model.
    """

    model: SupervisedModel
    is_fresh: bool


def load_start(config: TokenizerTrainingConfig) -> Start:
    """Loads or makes the model that a run starts from, on the CPU.

    Args:
        config: the run.

    Raises:
        ValueError: if nothing usable is at ``start_from``, or the settings do not fit it.
    """
    source = find_start(config.start_from)
    values, _ = WhisperConfig.get_config_dict(str(source))
    is_fresh = "quantize_position" not in values
    model = _from_whisper(source, config, values) if is_fresh else _from_checkpoint(source, config)
    if isinstance(model, SupervisedStableToken):
        check_voting_run(config)
        check_noise(model, config)
    if model.text is None:
        raise ValueError(f"{source} has no text tokenizer beside its weights: copy that of the Whisper it comes from")
    if config.audio_tokenizer.dropout is not None:
        set_dropout(model, config.audio_tokenizer.dropout)
    return Start(model, is_fresh)


def find_start(start_from: str) -> Path | str:
    """Turns the setting ``start_from`` into a folder or a Hub id.

    Raises:
        ValueError: if it is a run that has not ended, or one of its checkpoints.
    """
    if start_from in WHISPER_PACKAGES and not Path(start_from).exists():
        return whisper_from_package(start_from.removeprefix("whisper-"))
    path = Path(start_from)
    if (path / MODEL_FOLDER / "config.json").exists():
        return path / MODEL_FOLDER
    if (path / "checkpoint.json").exists():
        raise ValueError(
            f"start_from={start_from} is a checkpoint to resume its own run from; let that run end, and name its folder"
        )
    if (path / METRICS_NAME).exists():
        raise ValueError(
            f"start_from={start_from} is a run that has not ended, so it has no {MODEL_FOLDER} folder yet; go on with "
            "it by --resume latest first"
        )
    return path if path.exists() else start_from


def _from_checkpoint(source: Path | str, config: TokenizerTrainingConfig) -> SupervisedModel:
    model = open_supervised(source)
    kind: TokenizerKindName = "stabletoken" if isinstance(model, SupervisedStableToken) else "uniaudio"
    if config.audio_tokenizer.kind not in (None, kind):
        raise ValueError(
            f"audio_tokenizer.kind={config.audio_tokenizer.kind}: {config.start_from} is a training checkpoint of kind "
            f"{kind}; remove it, or start from a Whisper model"
        )
    check_kind(config.audio_tokenizer, kind)
    if isinstance(model, SupervisedStableToken):
        change_vote(model, config)
    else:
        assert isinstance(model, SupervisedTokenizer)
        _change_quantizer(model, config)
    return model


def _from_whisper(source: Path | str, config: TokenizerTrainingConfig, values: Mapping[str, Any]) -> SupervisedModel:
    num_layers = config.audio_tokenizer.encoder_layers or WhisperConfig.from_dict(dict(values)).encoder_layers
    position = config.audio_tokenizer.quantize_position or max(1, num_layers // 2)
    check_kind(config.audio_tokenizer, config.audio_tokenizer.kind or "uniaudio")
    if config.audio_tokenizer.kind == "stabletoken":
        return voting_from_whisper(source, config, position)
    return _averaging_from_whisper(source, config, position)


def _averaging_from_whisper(
    source: Path | str, config: TokenizerTrainingConfig, quantize_position: int
) -> SupervisedTokenizer:
    given = settings_given(config.audio_tokenizer)
    settings = {name: given[name] for name in _SAME_NAMES if name in given}
    if "ema_decay" in given:
        settings["ema_decay"] = given["ema_decay"] or None
    if "restart_interval" in given:
        settings["restart_interval"] = given["restart_interval"] or None
    if "metric_size" in given:
        settings["metric_size"] = given["metric_size"] or None
    if "commit_coefficient" in given:
        settings["quantize_commit_coefficient"] = given["commit_coefficient"]
    if "sae_target_position" in given:
        if given.get("use_sae") is False:
            raise ValueError("audio_tokenizer.sae_target_position has no effect with use_sae: false; remove it")
        settings["encoder_residual_target_position"] = given["sae_target_position"]
    return SupervisedTokenizer.from_whisper(source, quantize_position=quantize_position, seed=config.seed, **settings)


def _change_quantizer(model: SupervisedTokenizer, config: TokenizerTrainingConfig) -> None:
    """Gives a checkpoint's quantizer the settings of this run; anything else of it cannot be changed."""
    given = settings_given(config.audio_tokenizer)
    fixed = [
        f"audio_tokenizer.{name}={given[name]}"
        for name in given
        if name not in (*QUANTIZER_SETTINGS, "dropout", "kind")
    ]
    if fixed:
        raise ValueError(
            f"{', '.join(fixed)}: {config.start_from} is a training checkpoint, which brings its own; remove them, or "
            "start from a Whisper model"
        )
    tokenizer, values = model.tokenizer, model.tokenizer.config
    size = given.get("codebook_size", values.quantize_vocab_size)
    if size != values.quantize_vocab_size and config.initialise_codebook == "keep":
        raise ValueError(
            f"audio_tokenizer.codebook_size={size}, but {config.start_from} has {values.quantize_vocab_size} entries; "
            "remove it, or set initialise_codebook: kmeans"
        )
    metric_size = given.get("metric_size", values.quantize_metric_size) or None
    if metric_size is not None and not 1 <= metric_size <= values.d_model:
        raise ValueError(
            f"audio_tokenizer.metric_size={metric_size}: the features have {values.d_model} dimensions, use 1 to "
            f"{values.d_model}, or 0 for the features as they are"
        )
    if metric_size != values.quantize_metric_size and config.initialise_codebook == "keep":
        raise ValueError(
            f"audio_tokenizer.metric_size={metric_size}, but {config.start_from} has {values.quantize_metric_size}: "
            "remove it, or set initialise_codebook: kmeans, which fits it"
        )
    values.quantize_vocab_size, values.quantize_metric_size = size, metric_size
    if "ema_decay" in given:
        values.quantize_ema_decay = given["ema_decay"] or None
    if "restart_interval" in given:
        values.quantize_restart_interval = given["restart_interval"] or None
    values.quantize_loss_scale = given.get("loss_scale", values.quantize_loss_scale)
    values.quantize_commit_coefficient = given.get("commit_coefficient", values.quantize_commit_coefficient)
    with torch.random.fork_rng(devices=[]):  # the same entries everywhere, and the run's random state as it was
        torch.manual_seed(config.seed)
        codebook = Codebook(
            size,
            values.d_model,
            ema_decay=values.quantize_ema_decay,
            restart_interval=values.quantize_restart_interval,
            commit_coefficient=values.quantize_commit_coefficient,
            loss_scale=values.quantize_loss_scale,
            metric_size=metric_size,
        )
    before = tokenizer.codebook.state_dict()
    fresh = codebook.state_dict()
    kept = {name: old for name, old in before.items() if name in fresh and fresh[name].shape == old.shape}
    codebook.load_state_dict(kept, strict=False)
    if codebook.ema_decay is not None and "ema_weight" not in kept:
        codebook.reset_statistics()
    tokenizer.codebook = codebook


def set_dropout(model: nn.Module, probability: float) -> None:
    """Sets every dropout of a model; attention, activations and residuals alike."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        for name in ("dropout", "activation_dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float | int):
                setattr(module, name, probability)
            if hasattr(module, "config") and isinstance(getattr(module.config, name, None), float | int):
                setattr(module.config, name, probability)


def make_ready(model: SupervisedModel, config: TokenizerTrainingConfig, token_ids: Iterable[int]) -> None:
    """Sets the stage, and what of the model is trained; the optimizer can be built afterwards.

    Args:
        model: from `load_start`, on the device that it is trained on.
        config: the run.
        token_ids: all tokens in targets, held-out ones included.

    Raises:
        ValueError: if nothing is left to train, or the codebook has a metric that was never fitted.
    """
    model.quantize = config.quantized
    model.tokenizer.codebook.deferred = True
    if isinstance(model, SupervisedTokenizer):
        _make_entries_ready(model, config)
    model.decoder.restrict_output(token_ids if config.output_vocabulary == "seen" else None)
    if config.gradient_checkpointing:
        model.checkpoint_gradients()
    for module in _without_effect(model):
        module.requires_grad_(False)
    for part in config.freeze:
        for module in modules_of(model, part):
            module.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"freeze={', '.join(config.freeze)} leaves nothing to train: remove a part")


def _make_entries_ready(model: SupervisedTokenizer, config: TokenizerTrainingConfig) -> None:
    codebook = model.tokenizer.codebook
    codebook.frozen = "codebook" in config.freeze
    if config.quantized and config.initialise_codebook == "keep" and codebook.lacks_fit:
        raise ValueError(
            f"audio_tokenizer.metric_size={model.tokenizer.config.quantize_metric_size}: no features have been fitted "
            "yet that distances could be measured by; set initialise_codebook: kmeans, which fits them"
        )


def modules_of(model: SupervisedModel, part: str) -> list[nn.Module]:
    """The modules that a name in ``freeze`` stands for."""
    tokenizer, encoder = model.tokenizer, model.tokenizer.encoder
    conv: list[nn.Module] = [encoder.conv1, encoder.conv2]
    found: dict[str, list[nn.Module]] = {
        "encoder": [encoder],
        "conv": conv,
        "layers_before_quantizer": [*encoder.layers[: tokenizer.config.quantize_position]],
        "sae": [] if (sae := _sae_of(model)) is None else [sae],
        "codebook": [tokenizer.codebook],
        "code_positions": [tokenizer.code_positions],
        "decoder": [model.decoder],
        "embeddings": [model.decoder.embed_tokens],
    }
    return found[part]


def _sae_of(model: SupervisedModel) -> SemanticAcousticEquilibrium | None:
    return model.tokenizer.sae if isinstance(model, SupervisedTokenizer) else None


def _without_effect(model: SupervisedModel) -> list[nn.Module]:
    """Modules with weights that no output depends on; data parallelism would wait for their gradients."""
    idle: list[nn.Module] = [] if model.quantize else [model.tokenizer.codebook]
    if isinstance(model, SupervisedStableToken) and not model.tokenizer.config.layernorm_after_quantize:
        assert model.tokenizer.encoder.layer_norm is not None
        idle.append(model.tokenizer.encoder.layer_norm)
    sae = _sae_of(model)
    if sae is not None and not sae.use_adapter:
        idle.append(sae.adapter)
    if sae is not None and not sae.use_gate:
        idle.append(sae.gate)
    return idle


def parts_of(model: SupervisedModel) -> dict[str, list[nn.Parameter]]:
    """Parameters by the learning rate that they get. By module: the decoder's cross-attention is the decoder's."""
    parts = {
        "encoder": list(model.tokenizer.encoder.parameters()),
        "decoder": list(model.decoder.parameters()),
    }
    # By identity: names do not tell which weights are shared.
    taken = {id(parameter) for parameters in parts.values() for parameter in parameters}
    return parts | {"rest": [parameter for parameter in model.parameters() if id(parameter) not in taken]}


def learning_rates_of(config: TokenizerTrainingConfig) -> dict[str, float]:
    """Peak learning rate of each part."""
    return {
        "encoder": config.encoder_learning_rate,
        "decoder": config.decoder_learning_rate,
        "rest": config.learning_rate,
    }


def warm_start_on(model: SupervisedModel, records: TokenizerRecords, seed: int) -> None:
    """Lets a tokenizer just made of Whisper begin as Whisper, see `warm_start`; all processes do the same.

    Args:
        model: from `load_start`.
        records: training clips, some of which show what features are like.
        seed: chooses them, and how voters differ.
    """
    chosen = np.random.default_rng(seed).permutation(len(records))[:START_CLIPS].tolist()
    warm_start(model, [records.waveform(index) for index in chosen], seed=seed)


@torch.no_grad()
def initialise_codebook(
    accelerator: Accelerator, model: SupervisedTokenizer, records: TokenizerRecords, config: TokenizerTrainingConfig
) -> None:
    """Puts the codebook's entries at centres of the frames of some training clips; all processes must call it.

    One process fits and the others copy: on GPUs, two would not find the same entries to the last bit.

    Raises:
        ValueError: if the data have fewer frames than the codebook has entries.
    """
    codebook = model.tokenizer.codebook
    num_frames = sum(model.tokenizer.num_tokens(records.num_samples(n), SAMPLE_RATE) for n in range(len(records)))
    if num_frames < codebook.codebook_size:  # on every process, so that none waits for the fit
        raise ValueError(
            f"{records.name} has {num_frames} frames, too few for k-means with {codebook.codebook_size} entries: use a "
            "smaller audio_tokenizer.codebook_size, more data, or initialise_codebook: keep"
        )
    if accelerator.is_main_process:
        fit = model.tokenizer.fit_codebook(_sample(records, model, config), SAMPLE_RATE, seed=config.seed)
        logger.info(
            "codebook fitted to %d frames: %.1f%% of %d entries used, relative error %.3f",
            fit.num_frames, 100 * fit.usage, codebook.codebook_size, fit.quantization_error,
        )  # fmt: skip
    codebook.weight.copy_(broadcast(codebook.weight.detach().clone()))
    if codebook.metric is not None:
        codebook.metric.copy_(broadcast(codebook.metric.clone()))
    codebook.reset_statistics()


def _sample(records: TokenizerRecords, model: SupervisedTokenizer, config: TokenizerTrainingConfig) -> list[Tensor]:
    """Clips drawn at random until they have the frames that k-means shall look at, or all."""
    wanted = config.codebook_frames_per_entry * model.tokenizer.codebook_size
    clips: list[Tensor] = []
    num_frames = 0
    # Not the first ones: manifests are often in the order of their sources, and k-means would see one of them.
    for index in np.random.default_rng(config.seed).permutation(len(records)).tolist():
        if num_frames >= wanted:
            break
        clips.append(records.waveform(index))
        num_frames += model.tokenizer.num_tokens(len(clips[-1]), SAMPLE_RATE)
    return clips


def settings_of(model: SupervisedModel) -> TokenizerSettings:
    """The settings that a model has, however it came by them; for the run's record."""
    values = model.tokenizer.config
    common = TokenizerSettings(
        quantize_position=values.quantize_position,
        codebook_size=values.quantize_vocab_size,
        pooling_kernel_size=values.pooling_kernel_size,
        pooling_position=values.pooling_position,
        encoder_layers=values.encoder_layers,
        decoder_layers=values.decoder_layers,
        commit_coefficient=values.quantize_commit_coefficient,
    )
    if isinstance(values, StableTokenConfig):
        return dataclasses.replace(
            common,
            kind="stabletoken",
            num_voters=values.num_voters,
            num_clean_voters=values.num_clean_input,
            sample_entropy_weight=values.sample_minimization_weight,
            codebook_entropy_weight=values.batch_maximization_weight,
            consensus_weight=values.quantize_consensus_coefficient,
            norm_after_quantizer=values.layernorm_after_quantize,
        )
    return dataclasses.replace(
        common,
        kind="uniaudio",
        use_sae=values.has_sae,
        use_adapter=values.use_residual_adapter,
        use_gate=values.use_residual_gate,
        sae_source_position=values.encoder_residual_source_position,
        sae_target_position=values.encoder_residual_target_position,
        ema_decay=values.quantize_ema_decay,
        restart_interval=values.quantize_restart_interval,
        loss_scale=values.quantize_loss_scale,
        metric_size=values.quantize_metric_size,
    )
