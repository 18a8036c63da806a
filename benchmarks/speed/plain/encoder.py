"""Waveforms to codes without any care for speed: what the published tokenizer does, on copies of a model's weights."""
# Shapes: B segments, N samples, T tokens, D feature size, V codebook entries, M mel bins, F mel frames.

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

from audiollm.benchmarks.speed.timing import PartTimer
from audiollm.tokenizer.configuration import SAMPLE_RATE
from audiollm.tokenizer.modeling import UniAudioTokenizer


class PlainEncoder(nn.Module):
    """The same arithmetic without any care for speed, on copies of a tokenizer's weights."""

    def __init__(self, model: UniAudioTokenizer) -> None:
        super().__init__()
        config = model.config
        self.config = config
        self.extractor = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
        self.layers = nn.ModuleList(WhisperEncoderLayer(config) for _ in range(config.encoder_layers))
        self.layers.load_state_dict(model.encoder.layers.state_dict())
        self.conv1, self.conv2 = copy.deepcopy(model.encoder.conv1), copy.deepcopy(model.encoder.conv2)
        self.layer_norm = nn.LayerNorm(config.d_model)
        self.positions, self.code_positions = model.encoder.embed_positions, model.code_positions
        self.entries_VD, self.points_VP = model.codebook.weight.detach(), model.codebook.points()
        self.metric_PD = model.codebook.metric
        self.sae = plain_linears(copy.deepcopy(model.sae)) if model.sae is not None else None
        self.timer = PartTimer(model.device)

    @torch.no_grad()
    def encode(self, waveforms: list[Tensor], batch_size: int) -> list[list[int]]:
        """Encodes 16 kHz clips; segments are batched in the given order."""
        length, stride = self.config.segment_samples, self.config.token_stride
        pieces = [(index, piece) for index, clip in enumerate(waveforms) for piece in clip.split(length)]
        codes: list[list[int]] = [[] for _ in waveforms]
        for first in range(0, len(pieces), batch_size):
            batch = pieces[first : first + batch_size]
            with self.timer.part("log-mel"):
                inputs = self.extractor(
                    [piece.numpy() for _, piece in batch],
                    sampling_rate=SAMPLE_RATE,
                    padding="longest",
                    pad_to_multiple_of=stride,
                    truncation=False,
                    return_attention_mask=True,
                    return_tensors="pt",
                )
            codes_BT = self.run(inputs.input_features.to(self.entries_VD), inputs.attention_mask)
            for (index, piece), row in zip(batch, codes_BT.tolist(), strict=True):
                codes[index] += row[: -(-len(piece) // stride)]
        return codes

    def run(self, features_BMF: Tensor, mask_BF: Tensor) -> Tensor:
        """Runs all layers, those behind the quantizer too; returns codes ``[B, T]``."""
        config = self.config
        with self.timer.part("convolutions"):
            hidden = F.gelu(self.conv2(F.gelu(self.conv1(features_BMF)))).transpose(1, 2)
            hidden = hidden + self.positions.weight[: hidden.shape[1]]
            hidden = F.avg_pool1d(hidden.transpose(1, 2), config.pooling_factor).transpose(1, 2)
        mask_BT = mask_BF[:, :: 2 * config.pooling_factor].to(hidden)
        bias = (1 - mask_BT)[:, None, None, :] * torch.finfo(hidden.dtype).min
        codes, shallow = torch.zeros(0), hidden
        for position, layer in enumerate(self.layers, start=1):
            part = "layers up to the quantizer" if position <= config.quantize_position else "layers behind it"
            with self.timer.part(part):
                hidden = layer(hidden, bias)
            if position == config.encoder_residual_source_position:
                shallow = hidden
            if self.sae is not None and position == config.encoder_residual_target_position:
                with self.timer.part("SAE"):
                    hidden, _ = self.sae(hidden, shallow)
            if position == config.quantize_position:
                with self.timer.part("quantizer"):
                    codes = self.quantize(hidden)
                    hidden = F.embedding(codes, self.entries_VD) + self.code_positions.weight[: hidden.shape[1]]
        with self.timer.part("layers behind it"):
            self.layer_norm(hidden)
        return codes

    def quantize(self, hidden_BTD: Tensor) -> Tensor:
        """Spells out |x|² + |e|² - 2 x·e for all entries."""
        rows_NP = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])
        if self.metric_PD is not None:
            rows_NP = F.linear(rows_NP, self.metric_PD)
        distances_NV = (
            rows_NP.square().sum(dim=1, keepdim=True)
            + self.points_VP.square().sum(dim=1)
            - 2 * rows_NP @ self.points_VP.t()
        )
        return distances_NV.argmin(dim=1).view(hidden_BTD.shape[:2])


def plain_linears(module: nn.Module) -> nn.Module:
    """Turns this package's linear layers into torch's own, in place."""
    for child in module.modules():
        if isinstance(child, nn.Linear):
            child.__class__ = nn.Linear
    return module
