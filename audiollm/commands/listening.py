"""Commands that listen to recordings."""

from __future__ import annotations

import json as jsonlib

from .console import Dtype, load_audio_llm, write_line


def transcribe(
    audio: list[str],
    *,
    model: str,
    prompt: str | None = None,
    max_new_tokens: int = 256,
    dtype: Dtype = "float32",
    device: str | None = None,
    skip_bad: bool = False,
    json: bool = False,
) -> None:
    """Write down what is said in recordings.

    Args:
        audio: one or more audio files.
        model: Audio-LLM folder or Hub id.
        prompt: ask this instead of the standard transcription instruction.
        max_new_tokens: longest answer, in tokens.
        dtype: precision of the LLM.
        device: torch device; the first GPU when there is one.
        skip_bad: report unreadable or too long recordings and go on, instead of stopping at the first.
        json: one JSON object per recording.
    """
    from rich.progress import track

    from audiollm.data.audio import AudioError
    from audiollm.modeling import ContextError
    from audiollm.prompts import instruction

    llm = load_audio_llm(model, dtype, device)
    question = prompt or instruction("transcribe")
    num_bad = 0
    for path in track(audio, description="transcribing", disable=json or len(audio) == 1, transient=True):
        try:
            answer = llm.ask(path, question, max_new_tokens=max_new_tokens)
        except (AudioError, ContextError) as error:
            if not skip_bad:
                raise error if isinstance(error, AudioError) else ValueError(f"{path}: {error}") from error
            num_bad += 1
            write_line(jsonlib.dumps({"audio": path, "error": str(error)}) if json else f"{path}: skipped: {error}")
            continue
        line = {"audio": path, "text": answer}
        write_line(jsonlib.dumps(line, ensure_ascii=False) if json else (f"{path}: {answer}" if audio[1:] else answer))
    if num_bad == len(audio):
        raise ValueError(f"none of the {num_bad} recordings could be transcribed")
