"""A chat as a file: JSON of our records, Markdown for people, or the sound of its last answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audiollm.data.audio.writing import OUTPUT_FORMATS, save_audio
from audiollm.data.files.replacing import refuse_existing

from .turns import Recording, Sound, Turn

_TEXTS = (".json", ".md")


def save_chat(path: str, turns: Sequence[Turn], name: str) -> list[str]:
    """Writes a chat; sound that lies in no file yet is written beside it, as ``talk-2-answer.wav``.

    Args:
        path: what its ending says: ``.json`` and ``.md`` hold all of the chat, ``.wav`` and the like the last sound.
        turns: the chat.
        name: of the model.

    Returns:
        The files that were written.

    Raises:
        ValueError: the ending is another, a file exists, or there is nothing to save.
        OSError: a file cannot be written.
    """
    target = Path(path)
    ending = target.suffix.lower()
    if ending not in (*_TEXTS, *OUTPUT_FORMATS):
        raise ValueError(f"/save {path}: name it {', '.join((*_TEXTS, *OUTPUT_FORMATS))}")
    if not turns:
        raise ValueError(f"/save {path}: nothing has been said yet")
    _check_free(target)
    if ending in OUTPUT_FORMATS:
        spoken = [turn.sound for turn in turns if turn.sound is not None]
        if not spoken:
            raise ValueError(f"/save {path}: no answer was spoken yet: /speak on")
        save_audio(target, spoken[-1].waveform, spoken[-1].sample_rate)
        return [path]
    beside = _Beside(target)
    shown = _markdown(turns, name, beside) if ending == ".md" else _json(turns, target.stem, beside)
    beside.write()
    target.write_text(shown, encoding="utf-8")
    return [path, *map(str, beside.files)]


def free_path(folder: str | Path, stem: str) -> Path:
    """The first of ``STEM-1.wav``, ``STEM-2.wav``, … that a folder does not have."""
    number = 1
    while (path := Path(folder) / f"{stem}-{number}.wav").exists():
        number += 1
    return path


def _check_free(path: Path) -> None:
    try:
        refuse_existing(path, False)
    except ValueError as error:
        raise ValueError(f"/save {path}: it exists already; use another name") from error


class _Beside:
    """Files with the sounds of a chat, beside the one with its text."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self.files: dict[Path, Recording | Sound] = {}

    def place(self, sound: Recording | Sound, number: int, what: str) -> str:
        """Where a sound lies, or will lie, seen from the text."""
        if isinstance(sound, Recording) and sound.is_file:
            return str(Path(sound.name).absolute())
        path = self._target.with_name(f"{self._target.stem}-{number}-{what}.wav")
        _check_free(path)
        self.files[path] = sound
        return path.name

    def write(self) -> None:
        for path, sound in self.files.items():
            if isinstance(sound, Sound):
                save_audio(path, sound.waveform, sound.sample_rate)
            else:
                path.write_bytes(sound.content)


def _json(turns: Sequence[Turn], identifier: str, beside: _Beside) -> str:
    messages: list[dict[str, Any]] = []
    for number, turn in enumerate(turns, 1):
        if turn.is_aside:
            continue
        asked: list[dict[str, Any]] = [
            {"type": "audio", "path": beside.place(one, number, _question(index))}
            for index, one in enumerate(turn.recordings, 1)
        ]
        asked += [{"type": "text", "text": turn.question}] if turn.question else []
        said: list[dict[str, Any]] = [{"type": "text", "text": turn.answer}] if turn.answer else []
        if turn.sound is not None:
            said.append({"type": "audio", "path": beside.place(turn.sound, number, "answer")})
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    return json.dumps({"id": identifier, "messages": messages}, ensure_ascii=False, indent=2) + "\n"


def _markdown(turns: Sequence[Turn], name: str, beside: _Beside) -> str:
    lines = [f"# A chat with {name}", ""]
    for number, turn in enumerate(turns, 1):
        links = [beside.place(one, number, _question(index)) for index, one in enumerate(turn.recordings, 1)]
        shown = [f"[{Path(link).name}](<{link}>)" for link in links]
        lines += [f"**You**: {' '.join([*shown, turn.question]).strip()}", "", f"**{name}**: {turn.answer}", ""]
        if turn.sound is not None:
            link = beside.place(turn.sound, number, "answer")
            lines += [f"[{link}](<{link}>)", ""]
    return "\n".join(lines)


def _question(index: int) -> str:
    return "question" if index == 1 else f"question-{index}"
