"""A model with random weights, and records as fine-tuning gets them: as conversations for us, as token ids for TRL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from audiollm.data.conversation.loading import load_conversations
from audiollm.data.files.json_lines import write_json_lines
from audiollm.mini import model_or_mini
from audiollm.modeling import AudioLLM

_WORDS = ("the", "old", "clock", "struck", "one", "and", "nobody", "heard", "it", "for", "rain", "was", "loud")


@dataclass(frozen=True)
class Material:
    """What all contestants train on.

    Attributes:
        model: folder of the Audio-LLM.
        records: JSON lines of conversations.
        encoded: JSON lines of ``input_ids`` and ``labels`` of the same records, in the same order.
        layer_parameters: weights of linear layers but for the output layer.
        head_parameters: weights of the output layer.
    """

    model: Path
    records: Path
    encoded: Path
    layer_parameters: int
    head_parameters: int


def make_material(
    folder: Path, *, layers: int, hidden_size: int, heads: int, num_records: int, answers: str, seed: int
) -> Material:
    """Makes the model and the records.

    Args:
        folder: where to; it exists.
        layers: depth of the model.
        hidden_size: its width; feed-forward layers are four times as wide.
        heads: attention heads.
        num_records: how many.
        answers: ``text`` or ``audio``: what the assistant answers in.
        seed: of weights and records.
    """
    processor = AudioLLM.from_pretrained(model_or_mini("mini")).processor
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(processor.text_tokenizer),
            hidden_size=hidden_size,
            intermediate_size=4 * hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
        )
    )
    audio_llm = AudioLLM(model, processor)
    audio_llm.save_pretrained(folder / "model")
    records = folder / "records.jsonl"
    write_json_lines(records, list(_records(num_records, answers, processor.vocabulary.codebook_size, seed)))
    conversations = load_conversations(records)
    encoded = processor.encode_conversations([conversations[number] for number in range(len(conversations))])
    with (folder / "encoded.jsonl").open("w") as file:
        for one in encoded:
            file.write(json.dumps({"input_ids": one.token_ids, "labels": one.labels}) + "\n")
    head = model.get_output_embeddings()
    linear = [part for part in model.modules() if isinstance(part, torch.nn.Linear) and part is not head]
    return Material(
        model=folder / "model",
        records=records,
        encoded=folder / "encoded.jsonl",
        layer_parameters=sum(part.weight.numel() for part in linear),
        head_parameters=head.weight.numel(),
    )


def _records(num_records: int, answers: str, codebook_size: int, seed: int) -> Iterator[dict[str, Any]]:
    """Clips of 1 to 12 seconds, most of them short, and what was said in them."""
    generator = np.random.default_rng(seed)
    for number in range(num_records):
        seconds = float(np.clip(generator.lognormal(1.2, 0.6), 1, 12))
        codes = generator.integers(codebook_size, size=round(25 * seconds)).tolist()
        text = " ".join(generator.choice(_WORDS, size=max(2, round(2.5 * seconds))))
        audio, words = {"type": "audio", "codes": codes}, {"type": "text", "text": text}
        question, answer = (audio, words) if answers == "text" else (words, audio)
        yield {
            "id": f"record-{number}",
            "messages": [{"role": "user", "content": [question]}, {"role": "assistant", "content": [answer]}],
        }
