"""Sequences hold what they were given, each id in its own vocabulary, and nothing that does not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from audiollm.uniaudio import TASKS, Task, UniAudioLM, UniAudioLMConfig, lay_out, lay_out_prompt, pad_batch


@pytest.fixture
def config(make_lm: Callable[..., UniAudioLM]) -> UniAudioLMConfig:
    return make_lm().config


def parts_for(task: Task) -> dict[str, Tensor]:
    return {
        name: torch.arange(6).reshape(3, 2) % 5 if name.startswith(("reas", "recon")) else torch.tensor([7, 8])
        for name in task.parts
    }


@pytest.mark.parametrize("name", TASKS)
def test_each_task_learns_its_own_parts_and_marks_alone(config: UniAudioLMConfig, name: str) -> None:
    task = TASKS[name]
    prompt = [9, 9] if task.has_prompt else None
    layout = lay_out(name, parts_for(task), config, prompt=prompt)
    assert layout.input_ids.shape == layout.stream_mask.shape == layout.loss_mask.shape
    assert not bool((layout.loss_mask & ~layout.stream_mask).any())
    # A text without marks has 2 rows, every other part its two marks as well.
    rows = {part: 2 if part.startswith("text") else 4 for part in task.parts}
    assert len(layout) == sum(rows.values()) + (2 if prompt else 0)
    assert int(layout.loss_mask.any(-1).sum()) == sum(rows[part] for part in task.learned)
    alone = lay_out(name, parts_for(task), config, prompt=prompt, unconditional=True)
    assert torch.equal(alone.loss_mask, layout.loss_mask)
    assert torch.equal(alone.input_ids[layout.loss_mask.any(-1)], layout.input_ids[layout.loss_mask.any(-1)])
    others = alone.input_ids[~layout.loss_mask.any(-1)]
    assert bool((others == torch.tensor([0, 0, 0, config.marks.text_pad])).all())


def test_codes_come_back_from_the_rows(config: UniAudioLMConfig) -> None:
    codes = {"reasoning": torch.tensor([[0, 4], [1, 3], [2, 2]]), "reconstruction": torch.tensor([[6], [0], [5]])}
    layout = lay_out("audio_only", codes, config)
    frames = layout.input_ids[:, :-1].T
    assert torch.equal(frames[:, 1:3], codes["reasoning"])
    assert torch.equal(frames[:, 5:6] - config.reasoning_vocab_size, codes["reconstruction"])


@pytest.mark.parametrize("name", [name for name in TASKS if TASKS[name].has_prompt])
def test_a_prompt_is_what_stands_before_the_first_learned_part(config: UniAudioLMConfig, name: str) -> None:
    parts = parts_for(TASKS[name])
    whole = lay_out(name, parts, config, prompt=[9])
    given = {part: one for part, one in parts.items() if part not in TASKS[name].learned}
    start = lay_out_prompt(name, given, config, prompt=[9])
    assert len(start) == int(whole.loss_mask.any(-1).nonzero()[0])
    assert torch.equal(start.input_ids, whole.input_ids[: len(start)])
    assert not bool(start.loss_mask.any())


def test_sequences_are_padded_on_either_side(config: UniAudioLMConfig) -> None:
    short, long = (lay_out("text_only", {"text": [7] * length}, config) for length in (1, 3))
    right, left = (pad_batch([short, long], config, side=side) for side in ("right", "left"))
    assert torch.equal(right.input_ids[0].flip(0), left.input_ids[0])
    assert left.stream_mask[0, :, -1].tolist() == [False, False, True]
    assert right.loss_mask[0, :, -1].tolist() == [True, False, False]
    assert torch.equal(left.input_ids[1], long.input_ids)


GOOD: Mapping[str, Any] = {"reasoning": [[1], [2], [3]], "reconstruction": [[1], [2], [3]], "transcription": [5, 6]}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"reasoning": [[1], [2]]}, r"reasoning has shape \[2, 1\]: expected codes \[3, T\]"),
        ({"reasoning": torch.zeros(3, 0, dtype=torch.int64)}, "at least one frame"),
        ({"reasoning": [[1], [2], [8]]}, r"code 8 is not in \[0, 8\)"),
        ({"reconstruction": [[-1], [2], [3]]}, "code -1"),
        ({"reasoning": [[1], [2], [6]]}, "6 is the mark reasoning_eos"),
        ({"transcription": []}, "at least one"),
        ({"transcription": [40]}, r"text id 40 is not in \[0, 40\)"),
        ({"lyric": [1]}, "unknown: lyric"),
        ({"transcription": None}, "missing: transcription"),
    ],
)
def test_parts_that_do_not_fit_are_refused(config: UniAudioLMConfig, parts: dict[str, Any], message: str) -> None:
    assert len(lay_out("ASR", GOOD, config)) == 10
    values = {name: one for name, one in {**GOOD, **parts}.items() if one is not None}
    with pytest.raises(ValueError, match=message):
        lay_out("ASR", values, config)


def test_what_a_task_cannot_take_is_refused(config: UniAudioLMConfig) -> None:
    with pytest.raises(ValueError, match="'sing' is unknown: use one of ASR"):
        lay_out("sing", GOOD, config)
    with pytest.raises(ValueError, match="takes no prompt"):
        lay_out("text_only", {"text": [1]}, config, prompt=[2])
    with pytest.raises(ValueError, match="learns poem"):
        lay_out(Task(("text",), ("poem",)), {"text": [1]}, config)
    with pytest.raises(ValueError, match="the sequence is empty"):
        lay_out(Task((), ()), {}, config)
    with pytest.raises(ValueError, match="no part in front"):
        lay_out_prompt("audio_only", {}, config)
    with pytest.raises(ValueError, match="side='both'"):
        pad_batch([lay_out("text_only", {"text": [1]}, config)], config, side="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no sequence"):
        pad_batch([], config)
    bare = UniAudioLMConfig(**{**config.to_dict(), "special_ids": {}})
    with pytest.raises(ValueError, match=r"special_ids\.reasoning_bos"):
        lay_out("audio_only", {"reasoning": [[1]] * 3, "reconstruction": [[1]] * 3}, bare)
    with pytest.raises(ValueError, match="no marks for 'transcription'"):
        lay_out(Task(("transcription",), ("transcription",)), {"transcription": [1]}, bare)
    short, long = (lay_out("text_only", {"text": [1] * length}, bare) for length in (1, 2))
    with pytest.raises(ValueError, match=r"padding needs special_ids\.reconstruction_pad"):
        pad_batch([short, long], bare)
    assert pad_batch([short, short], bare).input_ids.shape == (2, 1, 4)
