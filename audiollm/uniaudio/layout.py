"""From texts and codes to the rows of a sequence: which ids are there, and which are learned."""
# Shapes: S steps, K audio streams, T frames or text tokens of a part, B sequences.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .configuration import UniAudioLMConfig
from .special_ids import AUDIO_PARTS, PLAIN_TEXT


@dataclass(frozen=True)
class Task:
    """The parts of a sequence in their order, and which of them are learned."""

    parts: tuple[str, ...]
    """``"reasoning"`` and ``"reconstruction"`` are codes, others texts; ``"text"`` is one without marks. What comes
    more than once has an ending behind a line: ``"reasoning_1"``."""
    learned: tuple[str, ...]
    has_prompt: bool = True
    """Whether the text of an instruction, which is not learned, stands in front."""


_FIRST, _SECOND = ("reasoning_1", "reconstruction_1"), ("reasoning_2", "reconstruction_2")
_CAPTIONED, _FROM_CAPTION = Task((*AUDIO_PARTS, "caption"), ("caption",)), Task(("caption", *AUDIO_PARTS), AUDIO_PARTS)
TASKS: Mapping[str, Task] = {
    "ASR": Task((*AUDIO_PARTS, "transcription"), ("transcription",)),
    "lyric_recognition": Task((*AUDIO_PARTS, "lyric"), ("lyric",)),
    "audio_caption": _CAPTIONED,
    "music_caption": _CAPTIONED,
    "audio_understanding": Task(("text_question", *AUDIO_PARTS, "text_answer"), ("text_answer",)),
    "TTS": Task(("transcription", *AUDIO_PARTS), AUDIO_PARTS),
    "InstructTTS": Task(("caption", "transcription", *AUDIO_PARTS), AUDIO_PARTS),
    "LTS": Task(("lyric", *AUDIO_PARTS), AUDIO_PARTS),
    "TTA": _FROM_CAPTION,
    "TTM": _FROM_CAPTION,
    "speech_s2t": Task((*AUDIO_PARTS, "text"), ("text",)),
    "speech_s2s": Task((*_FIRST, *_SECOND), _SECOND),
    "speech_edit": Task(("text", *_FIRST, *_SECOND), _SECOND),
    "audio_only": Task(AUDIO_PARTS, AUDIO_PARTS, has_prompt=False),
    "text_only": Task((PLAIN_TEXT,), (PLAIN_TEXT,), has_prompt=False),
}
"""Tasks of the published code by their names there: recognition, captions, questions; speech, song, sound and music
from text; answers in speech; and either kind alone."""


@dataclass(frozen=True)
class Layout:
    """A sequence, or several padded on the right."""

    input_ids: Tensor
    """int64 ``[S, K + 1]``, or ``[B, S, K + 1]``; the text token last."""
    stream_mask: Tensor
    """bool, of the same shape: which ids are there."""
    loss_mask: Tensor
    """bool, of the same shape: which are learned."""

    def __len__(self) -> int:
        return self.input_ids.shape[0]


def lay_out(
    task: str | Task,
    parts: Mapping[str, Tensor | Sequence[int]],
    config: UniAudioLMConfig,
    *,
    prompt: Tensor | Sequence[int] | None = None,
    unconditional: bool = False,
) -> Layout:
    """Builds the sequence of one item.

    Args:
        task: name of one of `TASKS`, or parts of one's own.
        parts: of each part, text ids ``[T]`` or codes int64 ``[K, T]``, as an audio tokenizer gives them.
        config: streams, vocabularies and marks.
        prompt: text ids in front, ``[T]``.
        unconditional: puts ``text_pad`` in place of every step that is not learned, for guidance without a prompt.

    Raises:
        ValueError: if a part is missing, unknown, empty or of another shape, codes or ids are out of range, or a mark
            is missing in the configuration.
    """
    task = _task(task)
    _check_parts(task, parts, prompt)
    pieces = [] if prompt is None or not len(prompt) else [_text_rows("prompt", prompt, config, learned=False)]
    for name in task.parts:
        learned = name in task.learned
        if _kind(name, config) in AUDIO_PARTS:
            pieces.append(_audio_rows(name, parts[name], config, learned))
        else:
            pieces.append(_text_rows(name, parts[name], config, learned))
    if not pieces:
        raise ValueError("the sequence is empty: give a part or a prompt")
    whole = Layout(
        torch.cat([one.input_ids for one in pieces]),
        torch.cat([one.stream_mask for one in pieces]),
        torch.cat([one.loss_mask for one in pieces]),
    )
    return _without_condition(whole, config) if unconditional else whole


def lay_out_prompt(
    task: str | Task,
    parts: Mapping[str, Tensor | Sequence[int]],
    config: UniAudioLMConfig,
    *,
    prompt: Tensor | Sequence[int] | None = None,
) -> Layout:
    """Builds what stands in front of the learned parts of a task, for `UniAudioLM.generate` to go on.

    Args:
        task: as of `lay_out`.
        parts: those that are not learned.
        config: streams, vocabularies and marks.
        prompt: text ids in front, ``[T]``.

    Raises:
        ValueError: as `lay_out`, or if nothing stands in front.
    """
    task = _task(task)
    given = tuple(name for name in task.parts if name not in task.learned)
    if not given and (prompt is None or not len(prompt)):
        raise ValueError(
            "this task has no part in front of those that are learned: give a prompt, of one step at least"
        )
    return lay_out(Task(given, (), task.has_prompt), parts, config, prompt=prompt)


def pad_batch(
    layouts: Sequence[Layout], config: UniAudioLMConfig, *, side: Literal["left", "right"] = "right"
) -> Layout:
    """Pads sequences to the longest one.

    Args:
        layouts: the sequences.
        config: what fills gaps.
        side: where they are padded: on the right for training, on the left for prompts.

    Raises:
        ValueError: if there is none, or a mark for what fills gaps is missing in the configuration.
    """
    if side not in ("left", "right"):
        raise ValueError(f"side={side!r}: use 'right' for training, 'left' for prompts")
    if not layouts:
        raise ValueError("there is no sequence to pad: give at least one")
    longest = max(map(len, layouts))
    filling = _filling(config, needed=any(len(one) < longest for one in layouts))
    ids, present, learned = [], [], []
    for one in layouts:
        missing = longest - len(one)
        gap = filling.expand(missing, -1)
        ids.append(torch.cat((gap, one.input_ids) if side == "left" else (one.input_ids, gap)))
        room = (0, 0, missing, 0) if side == "left" else (0, 0, 0, missing)
        present.append(F.pad(one.stream_mask, room))
        learned.append(F.pad(one.loss_mask, room))
    return Layout(torch.stack(ids), torch.stack(present), torch.stack(learned))


def _kind(name: str, config: UniAudioLMConfig) -> str:
    """What a part is, by its name without an ending."""
    return name if name in config.marks.text_parts else name.partition("_")[0]


def _task(task: str | Task) -> Task:
    if isinstance(task, Task):
        unknown = set(task.learned) - set(task.parts)
        if unknown:
            raise ValueError(f"task learns {', '.join(sorted(unknown))}, which is none of its parts")
        return task
    if task not in TASKS:
        raise ValueError(f"task {task!r} is unknown: use one of {', '.join(TASKS)}, or a Task with parts of your own")
    return TASKS[task]


def _check_parts(task: Task, parts: Mapping[str, object], prompt: object) -> None:
    missing, unknown = set(task.parts) - parts.keys(), parts.keys() - set(task.parts)
    if missing or unknown:
        raise ValueError(
            f"parts of this task are {', '.join(task.parts)}; missing: {', '.join(sorted(missing)) or 'none'}; "
            f"unknown: {', '.join(sorted(unknown)) or 'none'}"
        )
    if prompt is not None and not task.has_prompt:
        raise ValueError("this task takes no prompt: leave it out, or use a task with one")


def _text_rows(name: str, ids: Tensor | Sequence[int], config: UniAudioLMConfig, learned: bool) -> Layout:
    text = torch.as_tensor(ids, dtype=torch.int64)
    if text.ndim != 1 or not len(text):
        raise ValueError(f"{name} has shape {list(text.shape)}: expected text ids [T], at least one")
    size = config.text_config.vocab_size
    wrong = text[(text < 0) | (text >= size)]
    if len(wrong):
        raise ValueError(f"{name}: text id {int(wrong[0])} is not in [0, {size}), the vocabulary of the text LLM")
    kind = _kind(name, config)
    if kind not in ("prompt", PLAIN_TEXT):
        start, end = config.marks.text_marks(kind)
        text = F.pad(F.pad(text, (1, 0), value=start), (0, 1), value=end)
    rows = F.pad(text[:, None], (config.num_audio_streams, 0))
    mask = torch.zeros_like(rows, dtype=torch.bool)
    mask[:, -1] = True
    return Layout(rows, mask, mask & learned)


def _audio_rows(name: str, codes: Tensor | Sequence[int], config: UniAudioLMConfig, learned: bool) -> Layout:
    codes_KT = torch.as_tensor(codes, dtype=torch.int64)
    num_streams = config.num_audio_streams
    if codes_KT.ndim != 2 or codes_KT.shape[0] != num_streams or not codes_KT.shape[1]:
        raise ValueError(
            f"{name} has shape {list(codes_KT.shape)}: expected codes [{num_streams}, T], a row per stream, at least "
            "one frame"
        )
    part = _kind(name, config)
    _check_codes(name, part, codes_KT, config)
    bos, eos = (config.marks.required(f"{part}_{mark}", f"laying out {name}") for mark in ("bos", "eos"))
    marked = F.pad(F.pad(codes_KT, (1, 0), value=bos), (0, 1), value=eos) + config.offset_of(part)
    rows = F.pad(marked.T, (0, 1))
    mask = torch.ones_like(rows, dtype=torch.bool)
    mask[:, -1] = False
    return Layout(rows, mask, mask & learned)


def _check_codes(name: str, part: str, codes_KT: Tensor, config: UniAudioLMConfig) -> None:
    size = config.size_of(part)
    wrong = codes_KT[(codes_KT < 0) | (codes_KT >= size)]
    if len(wrong):
        raise ValueError(
            f"{name}: code {int(wrong[0])} is not in [0, {size}), see {part}_vocab_size: these are codes of another "
            "audio tokenizer"
        )
    for mark, one in config.marks.of_part(part).items():
        if bool((codes_KT == one).any()):
            raise ValueError(f"{name}: {one} is the mark {part}_{mark} and no code of a frame")


def _without_condition(layout: Layout, config: UniAudioLMConfig) -> Layout:
    pad = config.marks.required("text_pad", "leaving out the condition")
    hidden = ~layout.loss_mask.any(-1, keepdim=True)
    row = F.pad(torch.tensor([pad]), (config.num_audio_streams, 0))
    is_text = torch.zeros(config.num_audio_streams + 1, dtype=torch.bool)
    is_text[-1] = True
    return Layout(
        torch.where(hidden, row, layout.input_ids), torch.where(hidden, is_text, layout.stream_mask), layout.loss_mask
    )


def _filling(config: UniAudioLMConfig, needed: bool) -> Tensor:
    """What stands where nothing is, ``[K + 1]``."""
    if not needed:
        return torch.zeros(config.num_audio_streams + 1, dtype=torch.int64)
    code = config.marks.required("reconstruction_pad", "padding") + config.offset_of("reconstruction")
    text = config.marks.required("text_pad", "padding")
    return torch.tensor([code] * config.num_audio_streams + [text])
