"""A LoSATok of a few kilobytes, whose weights are large enough to tell sounds apart."""

from __future__ import annotations

from typing import Any

import torch

from audiollm.tokenizer.losatok.configuration import LoSATokConfig
from audiollm.tokenizer.losatok.model import LoSATok
from audiollm.tokenizer.losatok.semantic import SemanticEncoder
from audiollm.tokenizer.losatok.teacher.base import Teacher
from audiollm.tokenizer.losatok.teacher.dasheng import DashengSizes, DashengTeacher

PIECE_TOKENS = 20


def tiny_teacher(**changes: Any) -> DashengTeacher:
    """A teacher of 12 numbers that looks at 20 tokens together."""
    sizes = {"size": 12, "num_layers": 2, "num_heads": 2, "mlp_size": 16, "num_mels": 16}
    return DashengTeacher(DashengSizes(**{**sizes, "piece_tokens": PIECE_TOKENS, **changes}))


def tiny_losatok(teacher: Teacher | None = None, **changes: Any) -> LoSATok:
    """One with latents of 6 numbers; changes are of its config."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        teacher = teacher or tiny_teacher()
        sizes: dict[str, Any] = {
            "feature_size": teacher.feature_size, "bottleneck_size": 10, "latent_size": 6, "num_mels": 16,
            "decoder_size": 8, "decoder_intermediate_size": 12, "decoder_layers": 2,
        }  # fmt: skip
        config = LoSATokConfig(**(sizes | changes))
        return LoSATok(config, SemanticEncoder(config.semantic, teacher)).eval()
