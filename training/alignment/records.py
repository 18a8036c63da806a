"""Records as what preference training takes: prompts to be answered, or prompts with a better and a worse answer.

All of it is ids that our own processor makes: trl's way over texts would let what a text spells become structure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from audiollm.data.collation import IGNORED_LABEL
from audiollm.data.conversation.parsing import parse_conversation
from audiollm.data.conversation.types import Conversation
from audiollm.processing.processor import AudioLLMProcessor
from audiollm.training.audio_llm.evaluation import prompt_token_ids
from audiollm.training.audio_llm.records import LISTED_PROBLEMS, EncodedRecord, EncodedRecords
from audiollm.training.loop.errors import DataError

from .config import GRPOSettings


class Prompts:
    """The prompts of records, each up to its last assistant turn.

    Args:
        records: the records.
        usable: numbers of those to use.
    """

    def __init__(self, records: EncodedRecords, usable: Sequence[int]) -> None:
        self._records = records
        self.usable = list(usable)

    def token_ids(self, numbers: Sequence[int]) -> list[list[int]]:
        """The prompts of records by their numbers."""
        return [prompt_token_ids(record) for record in self._records.encode(list(numbers))]

    def num_reference_tokens(self, number: int) -> int:
        """Tokens of a record's own answer."""
        [record] = self._records.encode([number])
        return len(_answer(record))

    def conversation(self, number: int) -> Conversation:
        """A record."""
        one: Conversation = self._records.conversations[number]
        return one

    def check_room(self, context_length: int, settings: GRPOSettings) -> None:
        """Refuses prompts that leave no room for an answer.

        Raises:
            DataError: listing them.
        """
        room = context_length - settings.max_new_tokens
        lengths = {number: len(self.token_ids([number])[0]) for number in self.usable}
        refuse(
            [
                f"{self.conversation(number).where}: a prompt of {length} tokens and grpo.max_new_tokens="
                f"{settings.max_new_tokens} do not fit into {context_length}"
                for number, length in lengths.items()
                if length > room
            ],
            "leave no room for an answer",
        )


def refuse(problems: Sequence[str], what: str) -> None:
    """Raises a DataError that lists what is wrong with records, the first ones in full; nothing without problems."""
    if not problems:
        return
    more = [f"  … and {len(problems) - LISTED_PROBLEMS} more"] if len(problems) > LISTED_PROBLEMS else []
    listed = [f"  {problem}" for problem in problems[:LISTED_PROBLEMS]]
    raise DataError("\n".join([f"{len(problems)} records {what}:", *listed, *more]))


def preference_pairs(
    records: EncodedRecords, usable: Sequence[int], processor: AudioLLMProcessor
) -> dict[str, list[list[int]]]:
    """The columns that trl's DPO makes of its texts, made of records.

    Args:
        records: the records; their last assistant turn is the better answer.
        usable: numbers of those to use.
        processor: encodes the worse ones.
    Returns:
        ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``.

    Raises:
        DataError: listing the records without a usable ``rejected``.
    """
    columns: dict[str, list[list[int]]] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
    problems = []
    for number in usable:
        conversation = records.conversations[number]
        [chosen] = records.encode([number])
        try:
            other = _with_answer(conversation, records.conversations.manifest.base_dir(number))
            rejected = _encode_other(other, processor, records.max_length)
        except ValueError as error:
            where = conversation.where or conversation.id
            problems.append(str(error) if str(error).startswith(where) else f"{where}: {error}")
            continue
        prompt = prompt_token_ids(chosen)
        if prompt != prompt_token_ids(rejected):
            problems.append(f"{conversation.where}: the two answers do not follow the same prompt")
        elif _answer(chosen) == _answer(rejected):
            problems.append(f"{conversation.where}: rejected equals the answer, so that nothing is better")
        columns["prompt_ids"].append(prompt)
        columns["chosen_ids"].append(_answer(chosen))
        columns["rejected_ids"].append(_answer(rejected))
    refuse(problems, "have no pair of answers")
    return columns


def _answer(record: EncodedRecord) -> list[int]:
    """What the model writes in its last turn, the end of the turn included."""
    start = len(prompt_token_ids(record))
    labels = record.labels[start:]
    return labels[labels != IGNORED_LABEL].tolist()


def _encode_other(conversation: Conversation, processor: AudioLLMProcessor, max_length: int) -> EncodedRecord:
    record = EncodedRecord.of(conversation, processor.encode_conversation(conversation, max_length=max_length))
    if record.num_targets == 0:
        raise ValueError("rejected is empty")
    return record


def _with_answer(conversation: Conversation, base_dir: str | None) -> Conversation:
    """The record with its ``rejected`` as the last turn: the content of a message, or a whole one."""
    rejected: Any = conversation.metadata.get("rejected")
    if rejected is None:
        raise ValueError("no rejected: give a worse answer than the assistant's last one, as content or as a message")
    if conversation.messages[-1].role != "assistant":
        raise ValueError("the last message is not the assistant's, so that rejected stands against nothing")
    message = rejected if isinstance(rejected, Mapping) and "content" in rejected else {"content": rejected}
    # A record of its own, for messages are parsed in records only.
    record = {"messages": [{"role": "user", "content": "."}, {"role": "assistant", **message}]}
    if conversation.metadata.get("audio_tokenizer") is not None:
        record["audio_tokenizer"] = conversation.metadata["audio_tokenizer"]
    where = f"{conversation.where or conversation.id}: rejected"
    answer = parse_conversation(record, where=where, base_dir=base_dir, for_training=True).messages[-1]
    return dataclasses.replace(conversation, messages=[*conversation.messages[:-1], answer])
