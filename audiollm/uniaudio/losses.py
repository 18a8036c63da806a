"""What a sequence is learned by: its text, and the codes of its frames."""
# Shapes: B rows, S steps, V text vocabulary; N frames, K audio streams, A audio vocabulary of a stream.

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def text_loss(logits_BSV: Tensor, labels_BS: Tensor, mask_BS: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of text.

    Args:
        logits_BSV: of the next text token, ``[B, S, V]``.
        labels_BS: that token, int64 ``[B, S]``.
        mask_BS: which of them are learned, bool ``[B, S]``.

    Returns:
        The mean over what is learned, and the share of it that has the largest logit; both 0 where nothing is.
    """
    logits, labels = logits_BSV[mask_BS].float(), labels_BS[mask_BS]
    count = max(len(labels), 1)
    loss = F.cross_entropy(logits, labels, reduction="sum") / count
    return loss, (logits.argmax(-1) == labels).sum() / count


def audio_loss(
    logits_NKA: Tensor, labels_NK: Tensor, mask_NK: Tensor, weights: Sequence[float], ignored_id: int | None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the codes of frames.

    Frames that are not learned count in the divisor of each stream's mean, as in the published code: a batch weighs its
    learned frames by their share of all frames.

    Args:
        logits_NKA: ``[N, K, A]``.
        labels_NK: int64 ``[N, K]``.
        mask_NK: which of them are learned, bool ``[N, K]``.
        weights: of the K streams.
        ignored_id: label that is not learned anywhere; None: every label is.

    Returns:
        The mean over streams of their weighted means, and per stream the share of all frames, learned or not, whose
        code has the largest logit, ``[K]``; zeros where there is no frame.
    """
    learned_NK = mask_NK if ignored_id is None else mask_NK & (labels_NK != ignored_id)
    losses_NK = F.cross_entropy(logits_NKA.float().transpose(1, 2), labels_NK, reduction="none") * learned_NK
    count = max(len(labels_NK), 1)
    scale_K = torch.tensor(weights, device=logits_NKA.device, dtype=torch.float32)
    right_NK = logits_NKA.argmax(-1) == labels_NK
    return (losses_NK.sum(0) / count * scale_K).mean(), right_NK.sum(0) / count
