"""The text LLM as trl's trainer takes one: a causal LM over token ids, some of which stand for the codes of clips.

Ids behind the vocabulary name a clip and the place of a code in it. The embedding looks them up by hearing the clip:
frozen encoders, reasoning branch, quantizer, projection, with gradients to all that is trained of them. So trl's own
trainer draws, weighs and learns, as for any LLM, and its loss reaches the codes.
"""
# Shapes: B rows, S positions, T reasoning codes, D feature size, H width of the LLM.

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from audiollm.tokenizer.checkpoints.tensors import read_safetensors
from audiollm.tokenizer.quantizer.codebook import Codebook
from audiollm.tokenizer.reasoningcodec.reasoning import ReasoningBranch

from .analyst import Analyst
from .hearing import Heard, features_of

MOST_CODES = 1 << 10
"""Ids that are kept for each clip."""
WEIGHTS = "model.safetensors"


class HeardEmbedding(nn.Module):
    """The embedding of a text LLM, which takes the codes of clips too.

    Args:
        text: the LLM's own.
        branch: of the codec. Its entries stay as they are: rewards say nothing of how sound is spread over them.
        projection: of the analyst.
        hear: what is heard of clips by their numbers, and how many codes each has.
    """

    def __init__(
        self,
        text: nn.Embedding,
        branch: ReasoningBranch,
        projection: nn.Linear,
        hear: Callable[[Sequence[int]], tuple[list[Heard], list[int]]],
    ) -> None:
        super().__init__()
        self.text, self.branch, self.projection = text, branch, projection
        self._hear = hear
        for module in branch.modules():
            if isinstance(module, Codebook):
                module.deferred = module.frozen = True

    @property
    def weight(self) -> Tensor:
        """Of the text's tokens."""
        return self.text.weight

    def code_ids(self, clip: int, num_codes: int) -> list[int]:
        """The ids of a clip's codes."""
        first = self.text.num_embeddings + clip * MOST_CODES
        return list(range(first, first + num_codes))

    def forward(self, token_ids_BS: Tensor) -> Tensor:
        """Vectors of tokens and codes, ``[B, S, H]``."""
        is_code_BS = token_ids_BS >= self.text.num_embeddings
        embedded_BSH: Tensor = self.text(token_ids_BS.masked_fill(is_code_BS, 0))
        if not is_code_BS.any():
            return embedded_BSH
        codes_N = token_ids_BS[is_code_BS] - self.text.num_embeddings
        clips_C, clip_N = (codes_N // MOST_CODES).unique(return_inverse=True)
        said_CTH = self._said(clips_C.tolist())
        made_NH = said_CTH[clip_N, codes_N % MOST_CODES].to(embedded_BSH.dtype)
        return embedded_BSH.masked_scatter(is_code_BS[:, :, None], made_NH)

    def _said(self, clips: Sequence[int]) -> Tensor:
        heard, num_codes = self._hear(clips)
        features_CTD, mask_CT = features_of(self.branch, heard, num_codes)
        projected_CTH: Tensor = self.projection(self.branch.quantizer(features_CTD, mask_CT).quantized)
        return projected_CTH


class TrainedWeightsAlone:
    """In front of a Trainer: its checkpoints hold what is trained, as those of the other trainers do."""

    model: Any
    args: Any

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            tensors = {name: one.detach().cpu().contiguous() for name, one in self._trained().items()}
            save_file(tensors, folder / WEIGHTS)

    @torch.no_grad()
    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        path = Path(resume_from_checkpoint) / WEIGHTS
        stored, trained = read_safetensors(path), self._trained()
        if stored.keys() != trained.keys():
            raise ValueError(f"{path} holds other weights than are trained here: resume the run that wrote it")
        for name, one in trained.items():
            one.copy_(stored[name])

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: one for name, one in self.model.named_parameters() if one.requires_grad}


def plain_llm(analyst: Analyst) -> Any:
    """The causal LM itself, adapters in its layers if there are any."""
    return analyst.llm.get_base_model() if analyst.is_adapted else analyst.llm
