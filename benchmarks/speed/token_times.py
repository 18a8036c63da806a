"""Models of known shapes with random weights, plain generation by transformers, and how fast weights can be read."""
# Shapes: B rows, S token ids so far, W logits.

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from audiollm.mini import audio_tokenizer_or_mini, model_or_mini
from audiollm.modeling import AudioLLM

_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_STREAM_BYTES = 400_000_000  # far beyond any cache


@dataclass(frozen=True)
class Shape:
    """What a decoder-only LLM is made of, by the names of transformers."""

    text_tokens: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int


SHAPES = {
    "SmolLM2-135M": Shape(151_646, 576, 30, 9, 3, 1536),
    "Qwen2.5-0.5B": Shape(151_646, 896, 24, 14, 2, 4864),
    "tiny": Shape(200, 64, 2, 2, 1, 128),
}
"""Those that are made with random weights; text tokens are Qwen2.5's, for the head is what this is about."""


def make_model(name: str, dtype: torch.dtype, seed: int) -> AudioLLM:
    """The embedded model for ``mini``, or one of a known shape.

    Args:
        name: "mini" or one of `SHAPES`.
        dtype: of the weights.
        seed: of random ones.

    Raises:
        ValueError: if there is no such shape.
    """
    if name == "mini":
        return AudioLLM.from_pretrained(model_or_mini("mini"), dtype=dtype)
    if name not in SHAPES:
        raise ValueError(f"shape {name!r}: use mini, {', '.join(SHAPES)}")
    sizes = dict(vars(SHAPES[name]))
    num_text_tokens = sizes.pop("text_tokens")
    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words += [f"w{number}" for number in range(num_text_tokens - len(words))]
    text_tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({word: id for id, word in enumerate(words)}, unk_token=words[0])),
        eos_token=words[2],
        pad_token=words[0],
        chat_template=_CHATML,
    )
    torch.manual_seed(seed)
    config = Qwen2Config(vocab_size=len(words), max_position_embeddings=4096, tie_word_embeddings=True, **sizes)
    with torch.device("cpu"):
        model = Qwen2ForCausalLM(config)
    made = AudioLLM.create(model, text_tokenizer, audio_tokenizer_or_mini("mini"), seed=seed)
    return made.to(dtype=dtype).eval()


class Allowed(LogitsProcessor):
    """The least that plain generation needs to give our tokens: a mask, made once.

    Args:
        allowed: ids that may follow, int64.
        num_logits: W.
    """

    def __init__(self, allowed: Tensor, num_logits: int) -> None:
        self._forbidden = torch.ones(num_logits, dtype=torch.bool).index_fill(0, allowed, False)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Sets the logits ``[B, W]`` of all others to minus infinity."""
        return scores.masked_fill(self._forbidden, -torch.inf)


def plain_generate(
    model: PreTrainedModel, prompts: Tensor, num_tokens: int, eos_token_id: int, allowed: Tensor | None
) -> Tensor:
    """transformers' own greedy generation, as its documentation shows it.

    Args:
        model: the LLM.
        prompts: int64 ``[B, S]``, without padding.
        num_tokens: of each answer.
        eos_token_id: that would end one.
        allowed: ids that may follow; None: any.

    Returns:
        The new ids, int64 ``[B, num_tokens]``.
    """
    width = model.get_output_embeddings().weight.shape[0]
    output = model.generate(
        input_ids=prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=num_tokens,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        eos_token_id=eos_token_id,
        pad_token_id=eos_token_id,
        logits_processor=LogitsProcessorList([] if allowed is None else [Allowed(allowed, width)]),
    )
    assert isinstance(output, Tensor)
    return output[:, prompts.shape[1] :]


def read_rate(dtype: torch.dtype) -> float:
    """Bytes per second that this machine reads now: the better of a long copy and a matrix times a vector.

    Args:
        dtype: of the weights that will be read.
    """
    matrix = torch.zeros(_STREAM_BYTES // dtype.itemsize // 1024, 1024, dtype=dtype)
    vector, copy = torch.zeros(1, 1024, dtype=dtype), torch.empty_like(matrix)
    rates = []
    for _ in range(4):  # the first one allocates
        start = time.perf_counter()
        torch.nn.functional.linear(vector, matrix)
        middle = time.perf_counter()
        copy.copy_(matrix)
        end = time.perf_counter()
        rates += [matrix.nbytes / (middle - start), 2 * matrix.nbytes / (end - middle)]
    return max(rates)


def weights_of(model: PreTrainedModel) -> tuple[int, int, int]:
    """Bytes of the linear layers but for the head, bytes of one row of the head, and weights of those layers."""
    head = model.get_output_embeddings()
    layers = [one.weight for one in model.modules() if isinstance(one, nn.Linear) and one is not head]
    row = head.weight.shape[1] * head.weight.itemsize
    return sum(one.nbytes for one in layers), row, sum(one.numel() for one in layers)
