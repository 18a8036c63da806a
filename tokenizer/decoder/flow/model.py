"""The flow model: codes to log-mel frames (the decoder of CosyVoice, arXiv:2407.05407).

Embedded codes pass a block-causal transformer, are stretched to the mel's frame rate and then steer a flow that turns
noise into a mel. Names of modules and parameters are those of the released ``flow.pt``.

Shapes: B rows, T codes, P prompt codes, M mel frames, Q prompt frames, C mel channels, S speaker size.
"""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiollm.tokenizer.decoder.configuration import FlowConfig
from audiollm.tokenizer.signal.mel import MelConfig

from .length_regulator import LengthRegulator, nearest_codes
from .masking import FrameMask, Padding
from .matching import ConditionalFlow, FlowDraws
from .solvers import Integration
from .token_encoder import TokenEncoder


class FlowModel(nn.Module):
    """Turns codes into log-mel frames.

    Args:
        config: sizes of the flow model.
        mel: the mel that it makes; gives the frame rate.
    """

    def __init__(self, config: FlowConfig, mel: MelConfig) -> None:
        super().__init__()
        self.config = config
        self.mel_config = mel
        self.input_embedding = nn.Embedding(config.codebook_size, config.embedding_size)
        self.spk_embed_affine_layer = nn.Linear(config.speaker_size, config.num_mels)
        self.encoder = TokenEncoder(config.encoder, config.embedding_size)
        self.encoder_proj = nn.Linear(config.encoder.size, config.num_mels)
        self.length_regulator = LengthRegulator(config.num_mels, config.regulator_convolutions)
        self.decoder = ConditionalFlow(config)

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return self.input_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        """Of the parameters."""
        return self.input_embedding.weight.device

    @property
    def published_integration(self) -> Integration:
        """Euler's method with the configured steps and guidance."""
        return Integration(self.config.steps, self.config.guidance, sway=self.config.sway)

    # ------------------------------------------------------------------ the parts

    @overload
    def num_mel_frames(self, num_codes: int) -> int: ...
    @overload
    def num_mel_frames(self, num_codes: Tensor) -> Tensor: ...
    def num_mel_frames(self, num_codes: int | Tensor) -> int | Tensor:
        """Counts the mel frames of a number of codes: rounded down, in float32 as the released decoder rounds."""
        # A tensor also for a plain number: dividing integers gives float32, while Python would count in float64 and
        # round some lengths the other way. The order of the factors matters for the same reason.
        counts = torch.as_tensor(num_codes)
        frames = (counts / self.config.frame_rate * self.mel_config.sample_rate / self.mel_config.hop_length).long()
        return frames if isinstance(num_codes, Tensor) else int(frames)

    def embed(self, codes: Tensor, lengths: Tensor) -> Tensor:
        """Looks codes up: ``[B, T]`` to ``[B, T, E]``, 0 behind ``lengths``. Negative codes count as 0."""
        index = torch.arange(codes.shape[1], device=codes.device)
        is_valid = index < lengths.to(codes.device)[:, None]
        return self.input_embedding(codes.clamp(min=0)) * is_valid[:, :, None]

    def encode(self, codes: Tensor, lengths: Tensor) -> Tensor:
        """Encodes codes and projects them to mel channels: ``[B, T]`` to ``[B, T, C]``."""
        return self.encoder_proj(self.encoder(self.embed(codes, lengths), lengths))

    def condition(
        self, codes: Tensor, lengths: Tensor, num_frames: Tensor, *, padding: Padding = "hidden"
    ) -> tuple[Tensor, FrameMask | None]:
        """Computes what the codes say about each mel frame.

        Args:
            codes: int64 ``[B, T]``, right-padded with any valid code.
            lengths: valid codes, at least 1, int64 ``[B]``.
            num_frames: mel frames of each row, int64 ``[B]``.
            padding: how rows of different lengths share the batch, see `masking`.

        Returns:
            ``(mu [B, C, M], mask)`` where the mask is None if all rows are M frames long.
        """
        encoded_BTC = self.encode(codes, lengths)
        width = int(num_frames.max())
        mask = FrameMask.make(num_frames, width, encoded_BTC, padding)
        if padding == "reference":  # every row is stretched as the longest is
            lengths, num_frames = torch.full_like(lengths, codes.shape[1]), torch.full_like(num_frames, width)
        codes_of_frames = nearest_codes(lengths, num_frames, width).to(codes.device)
        return self.length_regulator(encoded_BTC, codes_of_frames, mask), mask

    def project_speaker(self, speaker: Tensor | None, rows: int) -> Tensor:
        """Normalizes speaker vectors ``[B, S]`` and projects them to ``[B, C]``; None counts as zeros."""
        if speaker is None:  # what the projection makes of zeros
            return self.spk_embed_affine_layer.bias.expand(rows, -1)
        return self.spk_embed_affine_layer(F.normalize(speaker.to(self.device, torch.float32), dim=1).to(self.dtype))

    # ------------------------------------------------------------------ decoding

    @torch.no_grad()
    def mel(
        self,
        codes: Tensor,
        lengths: Tensor | None = None,
        *,
        speaker: Tensor | None = None,
        prompt_codes: Tensor | None = None,
        prompt_mel: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        integration: Integration | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decodes codes to log-mel frames. A row gives the same in any batch, given its noise.

        Args:
            codes: int64 ``[B, T]``, right-padded with any valid code.
            lengths: valid codes, at least 1, int64 ``[B]``; None: all.
            speaker: speaker vectors ``[B, S]``; None: neutral, as zeros.
            prompt_codes: codes of a recording to go on from, int64 ``[B, P]``.
            prompt_mel: log-mel of that recording ``[B, C, Q]``.
            noise: where the flow starts, ``[B, C, at least M + Q frames]``; frames beyond a row's own are not used.
                None: drawn from ``generator`` in the shape ``[B, C, M + Q]``.
            generator: any device.
            integration: how the flow is integrated; None: as published, with the configured steps and guidance.

        Returns:
            ``(mel, mel_lengths)``: float32 ``[B, C, M]`` without the prompt and 0 behind each row's end, and the valid
            frames, int64 ``[B]``.

        Raises:
            ValueError: if the prompt leaves no frame, is given by halves, or the noise is too short.
        """
        rows = len(codes)
        lengths = torch.full((rows,), codes.shape[1]) if lengths is None else lengths
        codes, prompt_length, given = self._with_prompt(codes, prompt_codes, prompt_mel)
        lengths = (lengths + prompt_length).to(codes.device)
        num_frames = self.num_mel_frames(lengths)
        if int(num_frames.min()) <= given.shape[2]:
            raise ValueError(
                f"{int(lengths.min())} codes with the prompt's make {int(num_frames.min())} mel frames, but the prompt "
                f"mel alone has {given.shape[2]}; cut it to its codes"
            )
        mu, mask = self.condition(codes, lengths, num_frames)
        mel = self.integrate(
            mu,
            mask,
            self.project_speaker(speaker, rows),
            given,
            self._noise(noise, mu, generator),
            integration=integration,
        )
        return mel, num_frames - given.shape[2]

    @torch.no_grad()
    def integrate(
        self,
        mu: Tensor,
        mask: FrameMask | None,
        speaker: Tensor,
        given: Tensor,
        noise: Tensor,
        *,
        integration: Integration | None = None,
    ) -> Tensor:
        """Runs the flow under a known condition.

        Args:
            mu: from `condition`, ``[B, C, M]``.
            mask: valid frames; None: all.
            speaker: from `project_speaker`, ``[B, C]``.
            given: mel frames that are known and come first ``[B, C, Q]``; Q may be 0.
            noise: ``[B, C, M]``.
            integration: how the flow is integrated; None: as published, with the configured steps and guidance.

        Returns:
            The other frames, float32 ``[B, C, M - Q]``, 0 at padded frames.
        """
        condition = F.pad(given.to(mu), (0, mu.shape[2] - given.shape[2]))
        integration = self.published_integration if integration is None else integration
        mel = self.decoder.sample(noise.to(mu.device), mask, mu, speaker, condition, integration)
        mel = mel if mask is None else mel * mask.is_valid.to(mel.dtype)
        return mel[:, :, given.shape[2] :]

    def _with_prompt(
        self, codes: Tensor, prompt_codes: Tensor | None, prompt_mel: Tensor | None
    ) -> tuple[Tensor, int, Tensor]:
        """Puts the prompt's codes in front; returns also their number and the prompt's mel, maybe of 0 frames."""
        rows = len(codes)
        codes = codes.to(self.device)
        if (prompt_codes is None) != (prompt_mel is None):
            raise ValueError("prompt_codes and prompt_mel belong together: give both or neither")
        if prompt_codes is None or prompt_mel is None:
            return codes, 0, torch.zeros(rows, self.config.num_mels, 0, device=self.device)
        if prompt_mel.shape[1] != self.config.num_mels or len(prompt_mel) != rows or len(prompt_codes) != rows:
            raise ValueError(
                f"prompt_codes {list(prompt_codes.shape)} and prompt_mel {list(prompt_mel.shape)} must be "
                f"[{rows}, P] and [{rows}, {self.config.num_mels}, Q]"
            )
        return torch.cat([prompt_codes.to(codes), codes], dim=1), prompt_codes.shape[1], prompt_mel.to(self.device)

    @staticmethod
    def _noise(noise: Tensor | None, mu: Tensor, generator: torch.Generator | None) -> Tensor:
        if noise is None:
            device = mu.device if generator is None else generator.device
            return torch.randn(mu.shape, generator=generator, device=device)
        if noise.shape[:2] != mu.shape[:2] or noise.shape[2] < mu.shape[2]:
            raise ValueError(
                f"noise {list(noise.shape)} does not cover the {list(mu.shape)} of the mel with its prompt"
            )
        return noise[:, :, : mu.shape[2]]

    # ------------------------------------------------------------------ training

    def loss(
        self,
        codes: Tensor,
        lengths: Tensor,
        mel: Tensor,
        mel_lengths: Tensor,
        speaker: Tensor | None = None,
        *,
        draws: FlowDraws | None = None,
        generator: torch.Generator | None = None,
        padding: Padding = "reference",
        mean_weight: float = 0.0,
    ) -> Tensor:
        """Flow-matching loss, a mean over all valid mel values.

        Args:
            codes: int64 ``[B, T]``, right-padded.
            lengths: valid codes, at least 1, int64 ``[B]``.
            mel: target log-mel ``[B, C, M]``, right-padded.
            mel_lengths: its valid frames; the longest row has M.
            speaker: speaker vectors ``[B, S]``; None: zeros.
            draws: recorded random numbers; None: drawn from ``generator``.
            generator: any device.
            padding: ``"reference"`` is the published recipe. ``"hidden"`` trains each row under the conditions in
                which it is decoded, without influence of the rows beside it; better for training anew.
            mean_weight: weight of the absolute distance between the mel and what the codes say before the flow, so that
                the flow starts from a rough mel (as the prior loss of Grad-TTS, arXiv:2105.06337). 0: the published
                recipe, in which nothing but the flow teaches the codes' encoder.

        Returns:
            Scalar, float32.
        """
        if mel.shape[2] != int(mel_lengths.max()):
            raise ValueError(
                f"mel has {mel.shape[2]} frames but the longest of mel_lengths is {int(mel_lengths.max())}"
            )
        mu, mask = self.condition(codes, lengths, mel_lengths, padding=padding)
        draws = self.decoder.draw(mel, mel_lengths, generator) if draws is None else draws
        loss = self.decoder.loss(mel, mel_lengths, mask, mu, self.project_speaker(speaker, len(codes)), draws)
        return loss + mean_weight * mean_distance(mu, mel, mel_lengths) if mean_weight else loss


def mean_distance(mu: Tensor, mel: Tensor, mel_lengths: Tensor) -> Tensor:
    """Mean absolute difference of ``[B, C, M]`` over the valid frames, in nats; scalar, float32."""
    frames = torch.arange(mel.shape[2], device=mel.device)
    is_valid = (frames < mel_lengths.to(mel.device)[:, None])[:, None]
    return ((mu.float() - mel.float()).abs() * is_valid).sum() / (mel_lengths.sum() * mel.shape[1])
