"""The losses of text and of each audio stream, without logits where nothing is learned."""
# Shapes: B rows, S steps, K audio streams, N learned text tokens or frames, A audio vocabulary of a stream, D width.

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from audiollm.training.audio_llm.objective import chunked_cross_entropy
from audiollm.uniaudio import UniAudioLM, UniAudioLMConfig

from .passes import StreamCounts

_LOGITS_PER_CHUNK = 2**26  # float32 numbers that are held at once: 256 MiB


class StreamLosses(nn.Module):
    """Sums of the cross-entropy over the learned text tokens and over the codes of learned frames.

    It wraps the model, so that data parallelism sees one forward pass that ends in the losses. All parts of the model
    take part in every pass, also where there is no text or no frame to learn.

    Args:
        model: the LM.
    """

    def __init__(self, model: UniAudioLM) -> None:
        super().__init__()
        self.model = model

    @property
    def num_streams(self) -> int:
        """K."""
        return int(self.model.config.num_audio_streams)

    def forward(
        self,
        input_ids: Tensor,
        stream_mask: Tensor,
        loss_mask: Tensor,
        position_ids: Tensor | None = None,
        num_chunks: int = 1,
    ) -> Tensor:
        """Computes the losses of one pass.

        Args:
            input_ids: int64 ``[B, S, K + 1]``, padded on the right, or a packed row.
            stream_mask: bool of the same shape: which ids are there.
            loss_mask: bool of the same shape: which are learned.
            position_ids: int64 ``[1, S]`` of a packed row.
            num_chunks: pieces that logits of text are made in.

        Returns:
            float32 ``[1 + 2 K]``: the loss of text, those of the streams, each a sum in nats; then how many codes of
            each stream are right.
        """
        hidden_BSD = self.model.hidden_states(input_ids, stream_mask, None, None, position_ids)[:, :-1]
        targets, learned = input_ids[:, 1:], loss_mask[:, 1:]
        is_text, is_frame = learned[..., -1], learned[..., :-1].any(-1)
        head = self.model.get_output_embeddings()
        text = chunked_cross_entropy(head, hidden_BSD[is_text], targets[is_text][:, -1], num_chunks)
        frames = self._of_frames(hidden_BSD[is_frame], targets[is_frame][:, :-1])
        return torch.cat([text[None], frames.flatten()])

    def _of_frames(self, hidden_ND: Tensor, codes_NK: Tensor) -> Tensor:
        """Summed losses and right codes of each stream, float32 ``[2, K]``."""
        logits = len(codes_NK) * self.num_streams * self.model.config.audio_vocab_size
        num_chunks = max(1, math.ceil(logits / _LOGITS_PER_CHUNK))
        total = hidden_ND.new_zeros(2, self.num_streams, dtype=torch.float32)
        for hidden, codes in zip(hidden_ND.tensor_split(num_chunks), codes_NK.tensor_split(num_chunks), strict=True):
            if num_chunks > 1 and torch.is_grad_enabled():
                total = total + checkpoint(self._of_some, hidden, codes, use_reentrant=False)
            else:
                total = total + self._of_some(hidden, codes)
        return total

    def _of_some(self, hidden_ND: Tensor, codes_NK: Tensor) -> Tensor:
        logits_NKA = self.model.frame_logits(hidden_ND, codes_NK).float()
        losses_NK = F.cross_entropy(logits_NKA.transpose(1, 2), codes_NK, reduction="none")
        right_NK = (logits_NKA.detach().argmax(-1) == codes_NK).float()
        ignored = self.model.config.ignored_audio_id
        if ignored is not None:
            losses_NK = losses_NK * (codes_NK != ignored)
        return torch.stack([losses_NK.sum(0), right_NK.sum(0)])


@dataclass(frozen=True)
class LossWeights:
    """How the sums of an update become its loss, the same as `UniAudioLM.forward` gives of all its records together.

    Attributes:
        factors: of the sums, ``[1 + K]``.
        counts: what the update holds.
    """

    factors: Tensor
    counts: StreamCounts

    @classmethod
    def of(cls, counts: StreamCounts, config: UniAudioLMConfig, device: torch.device) -> LossWeights:
        """The weights of an update.

        Args:
            counts: what it holds.
            config: of the LM.
            device: where sums are.
        """
        text = config.text_loss_weight / max(counts.text_targets, 1)
        divisor = max(counts.frames, 1) * config.num_audio_streams
        streams = [weight / divisor for weight in config.stream_loss_weights]
        return cls(torch.tensor([text, *streams], dtype=torch.float32, device=device), counts)

    def loss(self, sums: Tensor) -> Tensor:
        """The loss, a scalar, of what `StreamLosses` gave."""
        return (self.factors * sums[: len(self.factors)]).sum()

    def figures(self, sums: Tensor) -> dict[str, Any]:
        """What a line of the metrics says of the parts: nats per text token and per code, and the share of right codes.

        Where there is nothing of a kind, it is left out.
        """
        num_streams = len(self.factors) - 1
        found: dict[str, Any] = {"text_targets": self.counts.text_targets, "audio_frames": self.counts.learned_frames}
        if self.counts.text_targets:
            found["text_nll"] = float(sums[0]) / self.counts.text_targets
        if self.counts.learned_frames:
            by_stream = (sums[1:] / self.counts.learned_frames).tolist()
            found["audio_nll"] = sum(by_stream[:num_streams]) / num_streams
            found["stream_nll"] = [round(one, 5) for one in by_stream[:num_streams]]
            found["stream_accuracy"] = [round(one, 5) for one in by_stream[num_streams:]]
        return found
