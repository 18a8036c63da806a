"""Commands that listen to recordings: transcribing, describing, answering."""

from __future__ import annotations

import json as jsonlib
import logging
from collections.abc import Sequence
from typing import Literal

from .console import Dtype, load_audio_llm, write_line

logger = logging.getLogger(__name__)


def transcribe(
    audio: list[str],
    *,
    model: str = "mini",
    prompt: str | None = None,
    max_new_tokens: int = 256,
    dtype: Dtype = "float32",
    device: str | None = None,
    mono: Literal["first", "mean"] = "first",
    skip_bad: bool = False,
    json: bool = False,
) -> None:
    """Write down what is said in recordings.

    Args:
        audio: one or more audio files.
        model: Audio-LLM folder or Hub id; the small embedded one if not given.
        prompt: ask this instead of the standard transcription instruction.
        max_new_tokens: longest answer, in tokens.
        dtype: precision of the LLM.
        device: torch device; the first GPU when there is one.
        mono: which waveform of several channels: the first one, or their mean.
        skip_bad: report unreadable or too long recordings and go on, instead of stopping at the first.
        json: one JSON object per recording.
    """
    from audiollm.prompts import instruction

    llm = load_audio_llm(model, dtype, device)
    _ask_about(llm, audio, prompt or instruction("transcribe"), max_new_tokens, mono, skip_bad, json, "transcribed")


def describe(
    audio: list[str],
    *,
    question: str | None = None,
    model: str = "mini",
    max_new_tokens: int = 256,
    dtype: Dtype = "float32",
    device: str | None = None,
    mono: Literal["first", "mean"] = "first",
    skip_bad: bool = False,
    json: bool = False,
) -> None:
    """Say what can be heard in recordings, or answer a question about them.

    Args:
        audio: one or more audio files.
        question: ask this instead of for a description, such as "Is the speaker a man or a woman?".
        model: Audio-LLM folder or Hub id; the small embedded one if not given.
        max_new_tokens: longest answer, in tokens.
        dtype: precision of the LLM.
        device: torch device; the first GPU when there is one.
        mono: which waveform of several channels: the first one, or their mean.
        skip_bad: report unreadable or too long recordings and go on, instead of stopping at the first.
        json: one JSON object per recording.
    """
    from audiollm.prompts import instruction

    llm = load_audio_llm(model, dtype, device)
    _ask_about(llm, audio, question or instruction("describe"), max_new_tokens, mono, skip_bad, json, "described")


def _ask_about(
    llm: object,
    audio: Sequence[str],
    question: str,
    max_new_tokens: int,
    mono: Literal["first", "mean"],
    skip_bad: bool,
    as_json: bool,
    done: str,
) -> None:
    """Asks the same of every recording and writes the answers, one line each.

    Raises:
        AudioError: for an unreadable recording, unless those are skipped.
        ValueError: for one that is too long or that the audio tokenizer refuses, likewise; or if no recording was left.
    """
    from rich.progress import track

    from audiollm.chat.encoded import TooLongError
    from audiollm.generation.request import ContextError
    from audiollm.modeling import AudioLLM, question_about

    assert isinstance(llm, AudioLLM)
    llm.processor.mono = mono
    num_bad, cut = 0, []
    for path in track(audio, description="listening", disable=as_json or len(audio) == 1, transient=True):
        try:
            result = llm.chat(question_about(path, question), max_new_tokens=max_new_tokens)
        except ValueError as error:  # of the file, or an audio tokenizer's word for sound that it does not take
            if not skip_bad:
                if isinstance(error, (ContextError, TooLongError)):
                    raise ValueError(f"{path}: {error}") from error
                raise
            num_bad += 1
            told = f"{path}: skipped: {error}".replace("\n", "\\n")  # names may hold line ends
            write_line(jsonlib.dumps({"audio": path, "error": str(error)}) if as_json else told)
            continue
        answer, reason = result.texts[0], result.finish_reasons[0]
        if reason == "length":
            cut.append(path)
        line = {"audio": path, "text": answer, "finish_reason": reason}
        write_line(
            jsonlib.dumps(line, ensure_ascii=False) if as_json else (f"{path}: {answer}" if audio[1:] else answer)
        )
    if cut:
        others = f" and of {len(cut) - 1} more" if cut[1:] else ""
        logger.warning(
            "the answer about %s%s was cut after %d tokens; --max-new-tokens allows longer ones",
            cut[0],
            others,
            max_new_tokens,
        )
    if num_bad == len(audio):
        raise ValueError(f"none of the {num_bad} recordings could be {done}")
