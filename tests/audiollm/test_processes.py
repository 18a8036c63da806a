"""Processes beside each other: what two of them write into one folder is of one, and workers give what one would."""

from __future__ import annotations

import functools
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from audiollm import AudioLLM
from audiollm.processing import AudioLLMProcessor
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.vocabulary import extend

pytestmark = pytest.mark.multiprocess
ROUNDS = 8


def write_again_and_again(save: Callable[[Path], object], folder: Path, start: Any) -> None:
    torch.set_num_threads(1)  # the parent's thread pool does not survive the fork
    start.wait()
    for _ in range(ROUNDS):
        save(folder)


def write_in_two_processes(first: Callable[[Path], object], second: Callable[[Path], object], folder: Path) -> None:
    """Both write at the same time; neither may fail, nor leave anything beside what it writes."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    writers = [context.Process(target=write_again_and_again, args=(one, folder, start)) for one in (first, second)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def changed(tokenizer: UniAudioTokenizer, size: int) -> UniAudioTokenizer:
    """Another tokenizer, with another configuration: weights of one do not fit that of the other."""
    config = type(tokenizer.config).from_dict(tokenizer.config.to_dict() | {"quantize_vocab_size": size})
    return UniAudioTokenizer(config).eval()


@pytest.fixture
def pair(codec, make_text_tokenizer, make_llm) -> Callable[[str], list[Any]]:
    """Two of a kind that differ in every part."""

    def make(kind: str) -> list[Any]:
        made = []
        for seed, size in enumerate((64, 32)):
            audio_tokenizer = changed(codec, size)
            llm, text_tokenizer = make_llm(seed=seed), make_text_tokenizer()
            extend(llm, text_tokenizer, size)
            processor = AudioLLMProcessor(text_tokenizer, audio_tokenizer=audio_tokenizer)
            parts = {"tokenizer": audio_tokenizer, "processor": processor, "model": AudioLLM(llm, processor)}
            made.append(parts[kind])
        return made

    return make


@pytest.mark.parametrize("kind", ["tokenizer", "processor", "model"])
@pytest.mark.parametrize("is_new", [True, False])
def test_two_processes_that_save_into_one_folder_leave_what_one_of_them_saved(pair, tmp_path, kind, is_new):
    first, second = pair(kind)
    for number, one in enumerate((first, second)):
        one.save_pretrained(tmp_path / str(number))
    folder = tmp_path / "both"
    if not is_new:
        shutil.copytree(tmp_path / "0", folder)
    write_in_two_processes(first.save_pretrained, second.save_pretrained, folder)
    assert files_in(folder) in (files_in(tmp_path / "0"), files_in(tmp_path / "1"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "both"]  # nothing is left beside them
    loaders = {"tokenizer": UniAudioTokenizer, "processor": AudioLLMProcessor, "model": AudioLLM}
    loaders[kind].from_pretrained(folder)


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_encode_as_one_process_does(text_tokenizer, make_llm, codec, start_method):
    """Both are used before, so that what they made lazily and their locks travel as well."""
    extend(make_llm(), text_tokenizer, codec.codebook_size)
    processor = AudioLLMProcessor(text_tokenizer, audio_tokenizer=codec)
    noise = torch.randn(8, 8000, generator=torch.Generator().manual_seed(0)) * 0.1
    chats = [
        [
            {
                "role": "user",
                "content": [
                    {"type": "audio", "audio": row.numpy(), "sampling_rate": 16000},
                    {"type": "text", "text": f"{number} <|im_end|>?"},
                ],
            },
            {"role": "assistant", "content": f"answer {number}"},
        ]
        for number, row in enumerate(noise)
    ]
    encode = functools.partial(processor.apply_chat_template, max_length=10_000)
    alone = [encode(chat)["input_ids"] for chat in chats]
    loader = DataLoader(
        chats,
        batch_size=None,
        collate_fn=encode,
        num_workers=2 if start_method == "fork" else 1,
        multiprocessing_context=start_method,
    )
    assert [batch["input_ids"].tolist() for batch in loader] == [ids.tolist() for ids in alone]
