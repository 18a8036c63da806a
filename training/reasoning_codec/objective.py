"""The losses of the first stage as one forward pass, and what they are summed up to."""
# Shapes: B clips, T reasoning codes, K codebooks, D feature size.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from audiollm.tokenizer.quantizer.codebook import Codebook
from audiollm.tokenizer.reasoningcodec.model import ReasoningCodec

from .analyst import Analyst
from .hearing import Heard, features_of
from .records import ANALYSES

Request = tuple[list[int], list[int]]


@dataclass
class AnalysisOutput:
    """A pass."""

    text_losses: Tensor  # [B] float32: of each answer, summed over its tokens
    codes: Tensor  # [B, K, T] int64
    mask: Tensor  # [B, T] bool: codes that belong to the clip
    commitments: Tensor | None = None  # [K] float32, in training only: means over the codes of the pass


class AnalysisObjective(nn.Module):
    """Reasoning branch, quantizer and analyst, which is what data parallelism and mixed precision wrap.

    Args:
        codec: its reasoning branch is trained, the entries of its codebooks move by averages.
        analyst: writes what is heard.
    """

    def __init__(self, codec: ReasoningCodec, analyst: Analyst) -> None:
        super().__init__()
        self.branch = codec.reasoning
        self.analyst = analyst

    def forward(
        self,
        heard: Sequence[Heard],
        num_codes: Sequence[int],
        requests: Sequence[Request],
        answers: Sequence[Sequence[int]],
        positions_B: Tensor,
    ) -> AnalysisOutput:
        """Losses of clips.

        Args:
            heard: of each clip.
            num_codes: of each clip.
            requests: tokens in front of the codes and behind them.
            answers: tokens of the answers.
            positions_B: place of each clip in the update.
        """
        features_BTD, mask_BT = features_of(self.branch, heard, num_codes)
        output = self.branch.quantizer(features_BTD, mask_BT, positions_B)
        losses_B = self.analyst(output.quantized, num_codes, requests, answers)
        return AnalysisOutput(losses_B, output.codes, mask_BT, output.losses)


def train_only_reasoning(codec: ReasoningCodec) -> None:
    """Makes the reasoning branch trainable, and nothing else; see `train_only`."""
    train_only(codec, codec.reasoning)


def train_only(codec: ReasoningCodec, *parts: nn.Module) -> None:
    """Makes parts of a codec trainable, but for their entries, which move by averages, and nothing else."""
    codec.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)
        for module in part.modules():
            if isinstance(module, Codebook):
                module.requires_grad_(False)


def counted(codes_BKT: Tensor, mask_BT: Tensor, codebook_size: int) -> Tensor:
    """How often each entry of each codebook is used, ``[K, V]``."""
    return torch.stack([torch.bincount(codes[mask_BT], minlength=codebook_size) for codes in codes_BKT.transpose(0, 1)])


def losses_of(sums: Tensor, num_targets: int) -> dict[str, Any]:
    """``text_loss``, in nats per token, and that of each task, ``text_losses``.

    Args:
        sums: loss and tokens of each of `ANALYSES`, ``[5, 2]``.
        num_targets: tokens of all.
    """
    rows = zip(ANALYSES, sums.tolist(), strict=True)
    return {
        "text_loss": float(sums[:, 0].sum()) / num_targets,
        "text_losses": {task: total / count for task, (total, count) in rows if count},
    }
