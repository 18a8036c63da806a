"""What a trained model says when it is asked about recordings that are codes already."""
# Shapes: T codes.

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from audiollm.data.conversation.types import AudioPart, Conversation, Message, TextPart
from audiollm.modeling import AudioLLM

BATCH_SIZE = 16
MAX_ANSWER_TOKENS = {"transcribe": 128}


def answer(model: AudioLLM, codes: Sequence[Tensor], requests: Sequence[str], task: str) -> list[str]:
    """The model's greedy answers about recordings, in batches of similar length.

    Args:
        model: whom to ask.
        codes: of each recording, int64 ``[T]``.
        requests: one for each.
        task: what is asked; it decides how long answers may become.
    """
    answers = [""] * len(codes)
    limit = MAX_ANSWER_TOKENS.get(task, 48)
    for group in _batches(codes):
        chats = [
            Conversation(task, [Message("user", [AudioPart(codes=codes[n].tolist()), TextPart(requests[n])])], task)
            for n in group
        ]
        for number, text in zip(group, model.chat(chats, max_new_tokens=limit).texts, strict=True):
            answers[number] = text.strip()
    return answers


def _batches(codes: Sequence[Tensor]) -> Iterator[list[int]]:
    order = sorted(range(len(codes)), key=lambda number: len(codes[number]))
    for start in range(0, len(order), BATCH_SIZE):
        yield order[start : start + BATCH_SIZE]
