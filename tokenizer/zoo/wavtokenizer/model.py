"""`WavTokenizer`: an EnCodec-type encoder, one codebook, and Vocos with attention as decoder."""
# Shapes: B clips, K codebooks (1 in all releases), T frames, N samples, D feature size.

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiollm.tokenizer.base import Codes
from audiollm.tokenizer.checkpoints.folders import read_json_object
from audiollm.tokenizer.checkpoints.tensors import read_tensors
from audiollm.tokenizer.encoder.encoding import in_evaluation
from audiollm.tokenizer.kinds import CONFIG, WEIGHTS, kind_named
from audiollm.tokenizer.layers.istft import InverseSTFTHead
from audiollm.tokenizer.layers.position import position_net
from audiollm.tokenizer.layers.seanet import SeanetEncoder, old_weight_norm
from audiollm.tokenizer.layers.vocos import VocosBackbone
from audiollm.tokenizer.quantizer.rvq import ResidualQuantizer
from audiollm.tokenizer.zoo.codec import CodecTokenizer, own_settings
from audiollm.tokenizer.zoo.settings import settings_as

from .configuration import CODEC, WavTokenizerConfig, shape_values, yaml_values

KEPT = (CODEC, "backbone.", "head.")
"""How the names of a release's weights begin that belong to the model; others are of its training."""
UNUSED = (f"{CODEC}decoder.", "head.istft.")
"""Of those, EnCodec's own decoder, which nothing runs, and the window, which is a constant."""
TRAINING_BUFFERS = ("inited", "cluster_size", "embed_avg")
"""Last parts of the names of what released codebooks keep beside their entries."""
DECODING = ("backbone.", "head.")


class WavTokenizer(CodecTokenizer):
    """One code per frame of 24 kHz sound, of speech, music and all else.

    Args:
        config: its sizes.
        quantizer: how its codebooks are trained, such as ``ema_decay``; see `Codebook`.
    """

    kind_name = "wavtokenizer"
    decoding = DECODING
    fills_last_frame = False  # it reflects a clip at its own end

    def __init__(self, config: WavTokenizerConfig, **quantizer: Any) -> None:
        super().__init__()
        self.config = config
        self.encoder = SeanetEncoder(config.seanet)
        self.quantizer = ResidualQuantizer(config.num_codebooks, config.codebook_size, config.feature_size, **quantizer)
        self.backbone: VocosBackbone | None = None
        self.head: InverseSTFTHead | None = None
        if not config.encoder_only:
            self.backbone = VocosBackbone(
                config.feature_size,
                config.size,
                config.intermediate_size,
                config.num_layers,
                num_conditions=config.num_conditions,
                pos_net=position_net(config.size) if config.has_position_net else None,
            )
            self.head = InverseSTFTHead(config.size, config.n_fft, config.hop_length, config.padding)

    # ------------------------------------------------------------------- facts

    @property
    def sample_rate(self) -> int:
        return self.config.sample_rate

    @property
    def frame_samples(self) -> int:
        return self.config.seanet.frame_samples

    @property
    def num_codebooks(self) -> int:
        return self.config.num_codebooks

    @property
    def codebook_size(self) -> int:
        return self.config.codebook_size

    @property
    def can_decode(self) -> bool:
        return self.backbone is not None

    def settings(self) -> dict[str, Any]:
        return dataclasses.asdict(self.config)

    def deciding_settings(self) -> dict[str, Any]:
        keys = ("sample_rate", "num_filters", "strides", "feature_size", "num_lstm_layers", "codebook_size")
        return {name: getattr(self.config, name) for name in (*keys, "num_codebooks")}

    # ------------------------------------------------------------------ encode

    def encode_batch(self, waveforms_BN: Tensor) -> Tensor:
        return self.encode_batch_with_features(waveforms_BN)[0]

    def encode_batch_with_features(self, waveforms_BN: Tensor) -> tuple[Tensor, Tensor]:
        features_BTD = self.features(waveforms_BN)
        return self.quantizer.encode(features_BTD), features_BTD

    def features(self, waveforms_BN: Tensor) -> Tensor:
        """What the quantizer sees of equally long waveforms, ``[B, T, D]``."""
        features_BDT: Tensor = self.encoder(waveforms_BN[:, None].to(self.dtype))
        return features_BDT.transpose(1, 2)

    # ------------------------------------------------------------------ decode

    def decode(
        self,
        codes: Codes | Tensor | Sequence[Any],
        speaker: Tensor | None = None,
        prompt: Any = None,
        *,
        batch_size: int = 16,
        bandwidth_id: int = 0,
    ) -> list[Tensor]:
        """Turns codes into waveforms, as `CodecTokenizer.decode`.

        Args:
            codes: as there.
            speaker: None.
            prompt: None.
            batch_size: as there.
            bandwidth_id: which of the conditions of the decoder's norms; releases were trained with 0.

        Raises:
            ValueError: as there, or if there is no such condition.
        """
        self._refuse_voice(speaker, prompt)
        most = self.config.num_conditions or 1
        if not 0 <= bandwidth_id < most:
            raise ValueError(f"bandwidth_id={bandwidth_id}: this WavTokenizer knows 0 to {most - 1}")
        return self._decode(codes, batch_size, partial(in_evaluation(self).decode_batch, bandwidth_id=bandwidth_id))

    def decode_batch(self, codes_BKT: Tensor, bandwidth_id: int = 0) -> Tensor:
        return self.synthesize(self.quantizer.decode(codes_BKT), bandwidth_id)

    def synthesize(self, entries_BTD: Tensor, bandwidth_id: int = 0) -> Tensor:
        """Waveforms of sums of entries, float32 ``[B, T * frame_samples]``."""
        assert self.head is not None
        waveforms_BN: Tensor = self.head(self.hidden(entries_BTD, bandwidth_id))
        return waveforms_BN

    def hidden(self, entries_BTD: Tensor, bandwidth_id: int = 0) -> Tensor:
        """What the inverse transform is read out of, ``[B, T, size]``."""
        assert self.backbone is not None
        condition = torch.tensor([bandwidth_id], device=entries_BTD.device)
        hidden_BTC: Tensor = self.backbone(entries_BTD.to(self.dtype).transpose(1, 2), condition)
        return hidden_BTC

    # ------------------------------------------------------------------- files

    def released_names(self) -> dict[str, str]:
        names = {name: name for name in self.weights()}
        names |= {f"encoder.{own}": f"{CODEC}encoder.{name}" for own, name in self.encoder.released_names().items()}
        for number in range(self.num_codebooks):
            names[f"quantizer.codebooks.{number}.weight"] = f"{CODEC}quantizer.vq.layers.{number}._codebook.embed"
        return names

    @classmethod
    def read(cls, folder: Path, *, encoder_only: bool = False) -> WavTokenizer:
        own = read_json_object(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        is_own = own.get("model_type") == kind_named(cls.kind_name).own_model_type
        form: dict[str, Any] = {}
        if is_own:
            config = settings_as(WavTokenizerConfig, own_settings(own), folder / CONFIG)
            path = folder / WEIGHTS
        else:
            path, settings_path = _released_files(folder)
            under = None if path.name == WEIGHTS else "state_dict"
            config = _released_config(path, settings_path, under)
            form = {"spelling": old_weight_norm, "under": under, "released": True}
        if encoder_only:
            config = dataclasses.replace(config, encoder_only=True)
        keep = kept_names(config.encoder_only, is_own)
        return cls.filled(partial(cls, config), path, keep=keep, **form)


def kept_names(encoder_only: bool, is_own: bool) -> Callable[[str], bool]:
    """Which names of a file count."""

    def keep(name: str) -> bool:
        if encoder_only and name.startswith(DECODING):
            return False
        if is_own:
            return True
        used = name.startswith(KEPT) and not name.startswith(UNUSED)
        return used and name.rpartition(".")[2] not in TRAINING_BUFFERS

    return keep


def _released_config(path: Path, settings_path: Path | None, under: str | None) -> WavTokenizerConfig:
    """Sizes by the YAML, and where it is silent by the tensors."""
    keep = kept_names(encoder_only=False, is_own=False)
    tensors = read_tensors(path, under=under, keep=keep)
    shapes = {old_weight_norm(name): list(tensor.shape) for name, tensor in tensors.items()}
    said = {} if settings_path is None else yaml_values(settings_path)
    return settings_as(WavTokenizerConfig, {**shape_values(shapes, path), **said}, settings_path or path)


def _released_files(folder: Path) -> tuple[Path, Path | None]:
    """The weights, and the YAML, without which model.safetensors alone can be.

    Raises:
        ValueError: if one is not there, or there are several.
    """
    settings = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    weights = [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else sorted(folder.glob("*.ckpt"))
    for what, found in (("weights (.ckpt)", weights), ("settings (.yaml)", settings)):
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise ValueError(f"{folder} holds {len(found)} files of {what}: {names}; leave the one that is meant")
    if not weights:
        raise ValueError(f"{folder} holds no weights of a WavTokenizer: put its .ckpt or {WEIGHTS} there")
    if not settings and weights[0].name != WEIGHTS:
        raise ValueError(f"{folder} holds no .yaml: put the one that {weights[0].name} was released with beside it")
    return weights[0], settings[0] if settings else None
