"""The analyst: a text LLM that reads what reasoning codes say and writes what is heard.

It reads ``USER: <codes>``, the request and ``ASSISTANT:``, and writes the answer and its end, as in arXiv 2602.04683.
"""
# Shapes: B clips, T reasoning codes, D feature size, H width of the LLM, S positions.

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer

from audiollm.data.collation import IGNORED_LABEL
from audiollm.data.files.json_document import write_json
from audiollm.loading import load_causal_lm, refuse_quantized, refused_by_transformers
from audiollm.mini import model_or_mini
from audiollm.sources.adapters import without_warnings_of_peft
from audiollm.tokenizer.checkpoints.folders import read_json_object
from audiollm.tokenizer.checkpoints.tensors import check_shapes, read_safetensors
from audiollm.training.audio_llm.adapters import adapted_layers
from audiollm.training.audio_llm.model import recompute_activations
from audiollm.training.uniaudio.config import TextLoRASettings
from audiollm.uniaudio.stacks import check_family

ANALYST_FOLDER = "analyst"
"""Beside the codec of a run: the text LLM or its adapter, and the projection."""
SETTINGS, PROJECTION, LLM, ADAPTER, TEXT_TOKENIZER = (
    "analyst.json", "projection.safetensors", "llm", "adapter", "text_tokenizer",
)  # fmt: skip
BEFORE, BEHIND = "USER: ", "\nASSISTANT:"


class Analyst(nn.Module):
    """A text LLM with a projection of what codes say into its embeddings.

    Args:
        llm: a causal LM of transformers, or PEFT's around one.
        text_tokenizer: its own.
        size: D.
        source: folder or Hub id that the LLM came from.

    Raises:
        ValueError: if its text tokenizer knows no end of a text.
    """

    def __init__(self, llm: Any, text_tokenizer: Any, size: int, source: str) -> None:
        super().__init__()
        if text_tokenizer.eos_token_id is None:
            raise ValueError(f"{source}: its text tokenizer has no end-of-text token, which must end every answer")
        self.llm = llm
        self.projection = nn.Linear(size, llm.config.hidden_size)
        self.text_tokenizer = text_tokenizer
        self.source = source

    # ------------------------------------------------------------------- text

    @property
    def end_id(self) -> int:
        """Token that ends every answer."""
        return int(self.text_tokenizer.eos_token_id)

    @property
    def context_length(self) -> int:
        """Most positions of the LLM."""
        return int(self.llm.config.max_position_embeddings)

    @property
    def is_adapted(self) -> bool:
        """Whether adapters are trained in place of all weights."""
        return hasattr(self.llm, "peft_config")

    def encode(self, task: str, text: str) -> list[int]:
        """An answer's tokens and its end; ``task`` decides nothing."""
        return [*self._ids(f" {text}"), self.end_id]

    def request_ids(self, request: str) -> tuple[list[int], list[int]]:
        """Tokens in front of the codes, and behind them."""
        start = self.text_tokenizer.bos_token_id
        return [*([] if start is None else [start]), *self._ids(BEFORE)], self._ids(f"\n{request}{BEHIND}")

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self.text_tokenizer.encode(text, add_special_tokens=False)
        return found

    def text_of(self, token_ids: Sequence[int]) -> str:
        """The text of an answer, its end left out."""
        text: str = self.text_tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return text.strip()

    # ------------------------------------------------------------------ passes

    def forward(
        self,
        said_BTD: Tensor,
        num_codes: Sequence[int],
        requests: Sequence[tuple[Sequence[int], Sequence[int]]],
        answers: Sequence[Sequence[int]],
    ) -> Tensor:
        """The cross-entropy of answers, summed over the tokens of each, ``[B]``, float32.

        Args:
            said_BTD: what codes say.
            num_codes: of each clip.
            requests: of each, see `request_ids`.
            answers: of each, see `encode`.
        """
        rows = [
            torch.cat([self.prompt(said_TD[:count], request), self._embedded(answer[:-1])])
            for said_TD, count, request, answer in zip(said_BTD, num_codes, requests, answers, strict=True)
        ]
        inputs_BSH = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        labels_BS = torch.full(inputs_BSH.shape[:2], IGNORED_LABEL, device=inputs_BSH.device)
        mask_BS = torch.zeros_like(labels_BS)
        for place, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            labels_BS[place, len(row) - len(answer) : len(row)] = torch.tensor(answer, device=labels_BS.device)
            mask_BS[place, : len(row)] = 1
        first = min(len(row) - len(answer) for row, answer in zip(rows, answers, strict=True))
        wanted_S = torch.arange(first, inputs_BSH.shape[1], device=labels_BS.device)
        output = self.llm(inputs_embeds=inputs_BSH, attention_mask=mask_BS, logits_to_keep=wanted_S, use_cache=False)
        losses = F.cross_entropy(
            output.logits.float().transpose(1, 2), labels_BS[:, first:], ignore_index=IGNORED_LABEL, reduction="none"
        )
        return losses.sum(dim=1)

    def prompt(self, said_TD: Tensor, request: tuple[Sequence[int], Sequence[int]]) -> Tensor:
        """What the LLM reads of a clip before it writes, ``[S, H]``."""
        before, behind = request
        projected_TH = self.projection(said_TD)
        before_SH = self._embedded(before)
        return torch.cat([before_SH, projected_TH.to(before_SH.dtype), self._embedded(behind)])

    def _embedded(self, token_ids: Sequence[int]) -> Tensor:
        embedding = self.llm.get_input_embeddings()
        ids = torch.tensor(list(token_ids), dtype=torch.int64, device=self.projection.weight.device)
        embedded: Tensor = embedding(ids)
        return embedded

    @torch.no_grad()
    def write(self, said_TD: Tensor, request: str, *, max_new_tokens: int) -> str:
        """What it writes of a clip, the likeliest token each time."""
        prompt_1SH = self.prompt(said_TD, self.request_ids(request))[None]
        token_ids = self.llm.generate(
            inputs_embeds=prompt_1SH,
            attention_mask=torch.ones(prompt_1SH.shape[:2], dtype=torch.int64, device=prompt_1SH.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=self.end_id,
            pad_token_id=self.end_id,
        )
        return self.text_of(token_ids[0].tolist())

    # ------------------------------------------------------------------- files

    def save_pretrained(self, folder: Path) -> None:
        """Writes the projection, and the LLM, or its adapter alone."""
        folder.mkdir(parents=True, exist_ok=True)
        size = self.projection.in_features
        write_json(folder / SETTINGS, {"llm": self.source, "size": size, "is_adapted": self.is_adapted})
        tensors = {name: one.detach().cpu().contiguous() for name, one in self.projection.state_dict().items()}
        save_file(tensors, folder / PROJECTION)
        self.text_tokenizer.save_pretrained(folder / TEXT_TOKENIZER)
        if self.is_adapted:
            # Or else PEFT asks the Hub about the base's vocabulary.
            self.llm.save_pretrained(folder / ADAPTER, save_embedding_layers=False)
        else:
            self.llm.save_pretrained(folder / LLM)

    @classmethod
    def from_pretrained(
        cls,
        folder: Path,
        *,
        dtype: str = "float32",
        is_trainable: bool = False,
        gradient_checkpointing: bool = False,
    ) -> Analyst:
        """Loads what `save_pretrained` wrote; with an adapter, the LLM is loaded from where it was.

        Args:
            folder: the analyst's.
            dtype: of the LLM's frozen weights, with an adapter.
            is_trainable: whether an adapter may be trained on.
            gradient_checkpointing: compute activations again in the backward pass.

        Raises:
            ValueError: if there is none, or the LLM is not where it was.
        """
        if not (folder / SETTINGS).is_file():
            raise ValueError(f"{folder} holds no analyst: expected {SETTINGS}, as the first stage leaves it")
        settings = read_json_object(folder / SETTINGS)
        size, source, is_adapted = int(settings["size"]), str(settings["llm"]), bool(settings["is_adapted"])
        place = model_or_mini(source) if is_adapted else folder / LLM
        llm: Any = load_causal_lm(place, dtype=getattr(torch, dtype))
        if gradient_checkpointing:
            recompute_activations(llm)
        if is_adapted:
            from peft import PeftModel  # takes seconds, and only LoRA needs it

            with without_warnings_of_peft():
                llm = PeftModel.from_pretrained(llm, folder / ADAPTER, is_trainable=is_trainable)
        analyst = cls(
            llm, AutoTokenizer.from_pretrained(folder / TEXT_TOKENIZER, trust_remote_code=False), size, source
        )
        stored = read_safetensors(folder / PROJECTION)
        shapes = {name: list(one.shape) for name, one in stored.items()}
        check_shapes(analyst.projection.state_dict(), shapes, folder / PROJECTION)
        analyst.projection.load_state_dict(stored)
        return analyst


def make_analyst(
    source: str, size: int, *, lora: TextLoRASettings | None, dtype: str, gradient_checkpointing: bool
) -> Analyst:
    """An analyst around a text LLM, its projection untrained.

    Args:
        source: folder or Hub id of the LLM.
        size: D.
        lora: adapters to be trained in place of all its weights.
        dtype: of its weights; what is trained has float32.
        gradient_checkpointing: compute activations again in the backward pass.

    Raises:
        ValueError: if the LLM is of another family than those that are supported, or quantized.
    """
    place = model_or_mini(source)
    with refused_by_transformers(source):
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    check_family(config, f"llm={source}", "the analyst")
    llm: Any = load_causal_lm(place, dtype=getattr(torch, dtype))
    refuse_quantized(llm, source, "trained")
    if gradient_checkpointing:
        recompute_activations(llm)
    if lora is not None:
        llm = with_adapters(llm, lora, source)
    return Analyst(llm, AutoTokenizer.from_pretrained(place, trust_remote_code=False), size, source)


def with_adapters(llm: Any, settings: TextLoRASettings, source: str) -> Any:
    """PEFT's model around an LLM, of which the adapters alone are trained."""
    from peft import LoraConfig, get_peft_model

    adapter = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=adapted_layers(llm, settings.target_modules),
    )
    with without_warnings_of_peft():
        adapted = get_peft_model(llm, adapter)
    # As it was named: PEFT would tell where "mini" lies in this installation.
    adapted.peft_config["default"].base_model_name_or_path = source
    return adapted
