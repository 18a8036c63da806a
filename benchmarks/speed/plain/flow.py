"""The flow model spelled out without any care for speed, as the published decoder computes it.

Works on the weights of a `FlowModel`: one row at a time, two passes of
the estimator per step for guidance, the block mask built by a loop in every layer, all history computed anew for every
block of a stream. What the fast path is timed and tested against.
"""
# Shapes: C mel bins or channels, M mel frames, T codes, D width, H heads, Q known frames; a batch of one throughout.

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from audiollm.tokenizer.decoder.flow.model import FlowModel


class PlainFlow:
    """Codes to log-mel, on the weights of a flow model."""

    def __init__(self, flow: FlowModel) -> None:
        self.config = flow.config
        self.mel_config = flow.mel_config
        self.weights = flow.state_dict()

    @torch.no_grad()
    def mel(
        self, codes_T: Tensor, noise_CM: Tensor, given_CQ: Tensor | None = None, *, steps: int, guidance: float
    ) -> Tensor:
        """Makes the log-mel of codes for a neutral voice.

        Args:
            codes_T: all codes, those of the known frames included.
            noise_CM: where the flow starts.
            given_CQ: known frames at the start.
            steps: Euler steps.
            guidance: strength of classifier-free guidance.

        Returns:
            The frames behind the known ones, ``[C, M - Q]``.
        """
        mu = self._regulate(self._encode(codes_T), noise_CM.shape[1])
        speaker = self.weights["spk_embed_affine_layer.bias"][None]
        condition = torch.zeros_like(mu)
        num_given = 0
        if given_CQ is not None:
            num_given = given_CQ.shape[1]
            condition[0, :, :num_given] = given_CQ
        x = noise_CM[None]
        times = torch.linspace(0, 1, steps + 1)
        if self.config.cosine_schedule:
            times = 1 - torch.cos(times * 0.5 * torch.pi)
        for now, then in pairwise(times):
            informed = self._estimate(x, mu, speaker, condition, now)
            uninformed = self._estimate(
                x, torch.zeros_like(mu), torch.zeros_like(speaker), torch.zeros_like(condition), now
            )
            x = x + (then - now) * ((1 + guidance) * informed - guidance * uninformed)
        return x[0, :, num_given:]

    def _encode(self, codes_T: Tensor) -> Tensor:
        config = self.config.encoder
        x = F.embedding(codes_T, self.weights["input_embedding.weight"])[None]
        x = self._normalize("encoder.embed.out.1", self._linear("encoder.embed.out.0", x)) * math.sqrt(config.size)
        num_codes = len(codes_T)
        places = torch.arange(num_codes - 1, -num_codes, -1, dtype=torch.float32)[:, None]
        rates = torch.exp(torch.arange(0, config.size, 2).float() * -(math.log(10000.0) / config.size))
        sinusoids = torch.stack([(places * rates).sin(), (places * rates).cos()], dim=-1).flatten(1)
        for layer in range(config.num_blocks):
            name = f"encoder.encoders.{layer}"
            hidden = self._normalize(f"{name}.norm_mha", x)
            x = x + self._attend_relatively(f"{name}.self_attn", hidden, sinusoids)
            hidden = self._normalize(f"{name}.norm_ff", x)
            hidden = F.silu(self._linear(f"{name}.feed_forward.w_1", hidden))
            x = x + self._linear(f"{name}.feed_forward.w_2", hidden)
        return self._linear("encoder_proj", self._normalize("encoder.after_norm", x))

    def _attend_relatively(self, name: str, x: Tensor, sinusoids: Tensor) -> Tensor:
        config = self.config.encoder
        num_codes, heads = x.shape[1], config.num_heads

        def split(features: Tensor) -> Tensor:
            return features.view(features.shape[0], -1, heads, config.size // heads).transpose(1, 2)

        queries, keys, values = (split(self._linear(f"{name}.linear_{part}", x)) for part in "qkv")
        positions = split(F.linear(sinusoids[None], self.weights[f"{name}.linear_pos.weight"]))
        content = (queries + self.weights[f"{name}.pos_bias_u"][:, None]) @ keys.transpose(2, 3)
        distance = (queries + self.weights[f"{name}.pos_bias_v"][:, None]) @ positions.transpose(2, 3)
        scores = (content + shift_rows(distance)) / math.sqrt(config.size // heads)
        visible = torch.zeros(num_codes, num_codes, dtype=torch.bool)
        for row in range(num_codes):
            visible[row, : (row // config.block_size + 1) * config.block_size] = True
        shares = scores.masked_fill(~visible, -math.inf).softmax(dim=-1)
        attended = (shares @ values).transpose(1, 2).reshape(1, num_codes, config.size)
        return self._linear(f"{name}.linear_out", attended)

    def _regulate(self, encoded: Tensor, num_frames: int) -> Tensor:
        x = F.interpolate(encoded.transpose(1, 2), size=num_frames, mode="nearest")
        for index in range(0, 3 * self.config.regulator_convolutions, 3):
            x = self._convolve(f"length_regulator.model.{index}", x, padding=1)
            x = F.mish(self._normalize_groups(f"length_regulator.model.{index + 1}", x, 1))
        return self._convolve(f"length_regulator.model.{3 * self.config.regulator_convolutions}", x)

    def _estimate(self, x: Tensor, mu: Tensor, speaker: Tensor, condition: Tensor, now: Tensor) -> Tensor:
        root = "decoder.estimator"
        half = 2 * self.config.num_mels
        angles = 1000 * now * torch.exp(torch.arange(half).float() * -(math.log(10000) / (half - 1)))
        time = F.silu(self._linear(f"{root}.time_mlp.linear_1", torch.cat([angles.sin(), angles.cos()])[None]))
        time = self._linear(f"{root}.time_mlp.linear_2", time)
        x = torch.cat([x, mu, speaker[:, :, None].expand(-1, -1, x.shape[2]), condition], dim=1)
        skips = []
        num_stages = len(self.config.estimator.channels)
        for stage in range(num_stages):
            name = f"{root}.down_blocks.{stage}"
            x = self._stage(name, x, time)
            skips.append(x)
            if stage < num_stages - 1:
                x = self._convolve(f"{name}.2.conv", x, padding=1, stride=2)
            else:
                x = self._convolve(f"{name}.2", x, padding=1)
        for stage in range(self.config.estimator.num_mid_stages):
            x = self._stage(f"{root}.mid_blocks.{stage}", x, time)
        for stage in range(num_stages):
            name, skip = f"{root}.up_blocks.{stage}", skips.pop()
            x = self._stage(name, torch.cat([x[:, :, : skip.shape[2]], skip], dim=1), time)
            if stage < num_stages - 1:
                weight, bias = self.weights[f"{name}.2.conv.weight"], self.weights[f"{name}.2.conv.bias"]
                x = F.conv_transpose1d(x, weight, bias, stride=2, padding=1)
            else:
                x = self._convolve(f"{name}.2", x, padding=1)
        return self._convolve(f"{root}.final_proj", self._block(f"{root}.final_block", x))

    def _stage(self, name: str, x: Tensor, time: Tensor) -> Tensor:
        hidden = self._block(f"{name}.0.block1", x)
        hidden = hidden + self._linear(f"{name}.0.mlp.1", F.mish(time))[:, :, None]
        x = self._block(f"{name}.0.block2", hidden) + self._convolve(f"{name}.0.res_conv", x)
        x = x.transpose(1, 2)
        for index in range(self.config.estimator.blocks_per_stage):
            inner = f"{name}.1.{index}"
            x = x + self._attend(f"{inner}.attn1", self._normalize(f"{inner}.norm1", x))
            hidden = F.gelu(self._linear(f"{inner}.ff.net.0.proj", self._normalize(f"{inner}.norm3", x)))
            x = x + self._linear(f"{inner}.ff.net.2", hidden)
        return x.transpose(1, 2)

    def _attend(self, name: str, x: Tensor) -> Tensor:
        heads, num_frames = self.config.estimator.num_heads, x.shape[1]
        queries, keys, values = (
            F.linear(x, self.weights[f"{name}.to_{part}.weight"]).view(1, num_frames, heads, -1).transpose(1, 2)
            for part in "qkv"
        )
        # The published mask is added: ones for all frames of a row change nothing but cost memory and time.
        mask = torch.ones(1, heads, num_frames, num_frames)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return self._linear(f"{name}.to_out.0", attended.transpose(1, 2).reshape(1, num_frames, -1))

    def _block(self, name: str, x: Tensor) -> Tensor:
        x = self._convolve(f"{name}.block.0", x, padding=1)
        return F.mish(self._normalize_groups(f"{name}.block.1", x, 8))

    def _convolve(self, name: str, x: Tensor, padding: int = 0, stride: int = 1) -> Tensor:
        return F.conv1d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], stride, padding)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _normalize(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _normalize_groups(self, name: str, x: Tensor, num_groups: int) -> Tensor:
        return F.group_norm(x, num_groups, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])


def shift_rows(scores_HTR: Tensor) -> Tensor:
    """Takes, for every query, its scores by distance to the scores by key (arXiv:1901.02860, appendix B)."""
    rows, heads, num_queries, num_distances = scores_HTR.shape
    padded = F.pad(scores_HTR, (1, 0)).view(rows, heads, num_distances + 1, num_queries)
    return padded[:, :, 1:].view_as(scores_HTR)[..., : num_distances // 2 + 1]
