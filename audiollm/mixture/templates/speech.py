"""Tasks that are answered by sound: a text is spoken, in a voice asked for in words; speech is answered by speech.

Interleaved answers write what they say while they say it: 13 text tokens, 52 codes (2 s at 25 Hz), and so on, as the
spoken dialogues of UAS (arXiv:2604.12506).
"""

from __future__ import annotations

import itertools
from typing import Any

from transformers import PreTrainedTokenizerBase

from audiollm.data.conversation.types import AudioPart
from audiollm.data.voices.clips import UnusableClipError, read_spoken_clip
from audiollm.data.voices.instructions import speech_request
from audiollm.data.voices.speech_records import SpeechTaskSettings, speech_conversation

from .base import SourceRecord, UnfillableError

TEXT_TOKENS = 13
AUDIO_CODES = 52

_SETTINGS = SpeechTaskSettings()


def speak(record: SourceRecord) -> dict[str, Any]:
    """The user asks for a text, in most records in a voice; the assistant speaks it."""
    try:
        clip = read_spoken_clip(record.fields, record.where, record.base_dir)
    except UnusableClipError as error:
        raise UnfillableError(f"cannot be spoken: {error}") from error
    made, _ = speech_conversation(clip, clip.attributes, record.key, _SETTINGS)
    made_by = record.fields.get("audio_tokenizer")
    return made if made_by is None else made | {"audio_tokenizer": made_by}


def speak_interleaved(record: SourceRecord) -> dict[str, Any]:
    """The user asks for a text; the assistant writes and speaks it in turns."""
    words = record.words()
    request, prompt = speech_request(words, None, record.key)
    answer = interleave(words, record.audio(), record.text_tokenizer)
    return record.conversation("speak_interleaved", [request], answer, prompt=prompt)


def speech_to_speech(record: SourceRecord) -> dict[str, Any]:
    """The user speaks (``codes`` or ``audio``), and the assistant answers (``answer_codes`` or ``answer_audio``)."""
    return record.conversation("speech_to_speech", [record.audio()], [record.audio("answer_")])


def speech_to_speech_interleaved(record: SourceRecord) -> dict[str, Any]:
    """The same, where the assistant also writes what it says (``answer_text``)."""
    answer = interleave(record.text("answer_text"), record.audio("answer_"), record.text_tokenizer)
    return record.conversation("speech_to_speech_interleaved", [record.audio()], answer)


def interleave(text: str, audio: AudioPart, text_tokenizer: PreTrainedTokenizerBase) -> list[str | AudioPart]:
    """Cuts text and codes into pieces and puts them in turn; what is left of the longer one comes at the end.

    Raises:
        UnfillableError: the audio is a recording, which cannot be cut to codes here.
    """
    if audio.codes is None:
        raise UnfillableError("holds a recording, and interleaving cuts codes: run `audiollm tokenize` on it first")
    texts = _pieces_of_text(text, text_tokenizer)
    codes = [audio.codes[start : start + AUDIO_CODES] for start in range(0, len(audio.codes), AUDIO_CODES)]
    if len(codes) < len(texts):  # not one text after the other, which would be one piece
        texts = [*texts[: len(codes) - 1], "".join(texts[len(codes) - 1 :])]
    if len(texts) < len(codes):
        codes = [*codes[: len(texts) - 1], [code for piece in codes[len(texts) - 1 :] for code in piece]]
    answer: list[str | AudioPart] = []
    for piece, some in zip(texts, codes, strict=True):
        answer += [piece, AudioPart(codes=some, audio_tokenizer=audio.audio_tokenizer, where=audio.where)]
    return answer


def _pieces_of_text(text: str, text_tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Pieces of 13 tokens; a token that ends within a character takes the whole of it."""
    offsets = text_tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).offsets
    ends = [offsets[index - 1][1] for index in range(TEXT_TOKENS, len(offsets), TEXT_TOKENS)]
    edges = [0, *ends, len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges) if end > start]
