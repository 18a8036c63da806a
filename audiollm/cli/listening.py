"""Commands that listen to recordings: transcribing, describing, answering."""

from __future__ import annotations

import json as jsonlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .answers import Answers, Form, open_answers
from .console import Precision, check_model_folder, load_audio_llm, settled
from .recordings import BadRecordingError, Recording, check_recordings, find_recordings, made_of, with_progress

logger = logging.getLogger(__name__)


def transcribe(
    audio: list[str],
    *,
    output: str | None = None,
    format: Literal["txt", "json", "srt", "vtt"] | None = None,
    model: str = "mini",
    prompt: str | None = None,
    max_new_tokens: int = 256,
    longest_seconds: float | None = None,
    pauses: Literal["level", "silero"] = "level",
    batch_size: int = 4,
    dtype: Precision = "fastest",
    device: str | None = None,
    mono: Literal["first", "mean"] = "first",
    skip_bad: bool = False,
    overwrite: bool = False,
    json: bool = False,
    jsonl: bool = False,
) -> None:
    """Write down what is said in recordings of any length.

    Args:
        audio: recordings, folders of them, or - for one that comes through stdin.
        output: where to, also -o: a .jsonl file for all (a stopped run goes on with it), a folder that gets a file for
            each, or a .txt, .json, .srt or .vtt file for a single one; the terminal if not given.
        format: of what a folder gets or the terminal shows; txt if not given.
        model: Audio-LLM folder or Hub id; the small embedded one if not given.
        prompt: ask this instead of the standard transcription instruction.
        max_new_tokens: longest answer about a piece, in tokens.
        longest_seconds: longer recordings are cut at their pauses into pieces of at most this length; 28, or what the
            model's context holds, if not given.
        pauses: what tells them: the level, or Silero's voice activity detector (extra vad).
        batch_size: how many pieces the model gets together.
        dtype: precision of the LLM; by default float32 or bfloat16, whichever this machine writes faster in, as a short
            trial says that is made once. int8 is for processors (see audiollm doctor --bench).
        device: torch device; the first GPU when there is one.
        mono: which waveform of several channels: the first one, or their mean.
        skip_bad: report unreadable recordings and go on, instead of stopping at the first.
        overwrite: replace outputs that exist.
        json: one JSON object per recording, with the times of its pieces.
        jsonl: the same as --json.
    """
    listening = _Listening.checked(audio, model, skip_bad)
    dtype = settled(dtype, model, device)  # a run that goes on elsewhere goes on in the same precision, or says so
    settings = {
        "model": model,
        "prompt": prompt,
        "max_new_tokens": max_new_tokens,
        "longest_seconds": longest_seconds,
        "pauses": pauses,
        "dtype": dtype,
        "mono": mono,
    }
    form = Form(
        line=lambda transcript: transcript.text,
        record=lambda transcript: transcript.to_dict(),
        contents={kind: _written_as(kind) for kind in ("txt", "json", "srt", "vtt")},
    )
    with open_answers(
        output,
        form,
        listening.recordings,
        kind=format,
        as_json=json or jsonl,
        overwrite=overwrite,
        settings=settings,
    ) as answers:
        from audiollm.transcription.transcribing import Transcriber, check_settings
        from audiollm.transcription.transcript import Transcript

        asked: dict[str, Any] = {
            "longest_seconds": longest_seconds,
            "pauses": pauses,
            "batch_size": batch_size,
            "max_new_tokens": max_new_tokens,
        }
        check_settings(**asked)
        transcriber = Transcriber(load_audio_llm(model, dtype, device), prompt=prompt, mono=mono, **asked)
        listening.run(
            lambda source: Transcript(list(transcriber.segments(source))), answers, max_new_tokens, done="transcribed"
        )


def _written_as(kind: Any) -> Callable[[Any], str]:
    return lambda transcript: transcript.to_format(kind)


def describe(
    audio: list[str],
    *,
    output: str | None = None,
    format: Literal["txt", "json"] | None = None,
    question: str | None = None,
    model: str = "mini",
    max_new_tokens: int = 256,
    dtype: Precision = "fastest",
    device: str | None = None,
    mono: Literal["first", "mean"] = "first",
    skip_bad: bool = False,
    overwrite: bool = False,
    json: bool = False,
    jsonl: bool = False,
) -> None:
    """Say what can be heard in recordings, or answer a question about them.

    Args:
        audio: recordings, folders of them, or - for one that comes through stdin.
        output: where to, also -o: a .jsonl file for all (a stopped run goes on with it), a folder that gets a file for
            each, or a .txt or .json file for a single one; the terminal if not given.
        format: of what a folder gets or the terminal shows; txt if not given.
        question: ask this instead of for a description, such as "Is the speaker a man or a woman?".
        model: Audio-LLM folder or Hub id; the small embedded one if not given.
        max_new_tokens: longest answer, in tokens.
        dtype: precision of the LLM; by default float32 or bfloat16, whichever this machine writes faster in, as a short
            trial says that is made once. int8 is for processors (see audiollm doctor --bench).
        device: torch device; the first GPU when there is one.
        mono: which waveform of several channels: the first one, or their mean.
        skip_bad: report unreadable or too long recordings and go on, instead of stopping at the first.
        overwrite: replace outputs that exist.
        json: one JSON object per recording.
        jsonl: the same as --json.
    """
    listening = _Listening.checked(audio, model, skip_bad)
    dtype = settled(dtype, model, device)  # a run that goes on elsewhere goes on in the same precision, or says so
    settings = {
        "model": model,
        "question": question,
        "max_new_tokens": max_new_tokens,
        "dtype": dtype,
        "mono": mono,
    }
    form = Form(
        line=lambda answer: answer.text,
        record=vars,
        contents={
            "txt": lambda answer: answer.text + "\n",
            "json": lambda answer: jsonlib.dumps(vars(answer), ensure_ascii=False, indent=2) + "\n",
        },
    )
    with open_answers(
        output,
        form,
        listening.recordings,
        kind=format,
        as_json=json or jsonl,
        overwrite=overwrite,
        settings=settings,
    ) as answers:
        from audiollm.generation.settings import GenerationSettings
        from audiollm.modeling import question_about
        from audiollm.prompts import instruction

        GenerationSettings(max_new_tokens=max_new_tokens)
        llm = load_audio_llm(model, dtype, device)
        llm.processor.mono = mono
        asked = question or instruction("describe")

        def answer(source: str | bytes) -> _Description:
            result = llm.chat(question_about(source, asked), max_new_tokens=max_new_tokens)
            return _Description(result.texts[0], result.finish_reasons[0])

        listening.run(answer, answers, max_new_tokens, done="described")


@dataclass(frozen=True)
class _Description:
    text: str
    finish_reason: str


@dataclass(frozen=True)
class _Listening:
    """A run over recordings that have been looked at."""

    recordings: list[Recording]
    skip_bad: bool

    @classmethod
    def checked(cls, audio: list[str], model: str, skip_bad: bool) -> _Listening:
        """Looks at all inputs before a model is loaded, which takes longer.

        Raises:
            ValueError: there is no such model folder, or no such recording.
        """
        check_model_folder(model)
        recordings = find_recordings(audio)
        if not skip_bad:
            check_recordings(recordings)
        return cls(recordings, skip_bad)

    def run(self, answer_of: Callable[[str | bytes], Any], answers: Answers, max_new_tokens: int, done: str) -> None:
        """Answers about every recording that has none yet.

        Raises:
            ValueError: for an unreadable or too long recording, unless those are skipped; or if no recording was left.
        """
        from audiollm.generation.result import cut_notice

        num_bad, cut = 0, []
        for index, recording in with_progress(self.recordings, "listening"):
            if answers.is_done(index, recording):
                continue
            try:
                answer = made_of(recording, answer_of)
            except BadRecordingError as error:
                if not self.skip_bad:
                    raise
                num_bad += 1
                answers.reject(index, recording, str(error))
                continue
            if answer.finish_reason == "silent":
                logger.warning("%s: nothing is heard in it, so the model was not asked", recording.name)
            if answer.finish_reason == "length":
                cut.append(recording.name)
            answers.add(index, recording, answer)
        if cut:
            others = f" and of {len(cut) - 1} more" if cut[1:] else ""
            told = cut_notice(f"the answer about {cut[0]}{others}", f"{max_new_tokens} tokens", "--max-new-tokens")
            logger.warning("%s", told)
        if num_bad == len(self.recordings):
            raise ValueError(f"none of the {num_bad} recordings could be {done}")
