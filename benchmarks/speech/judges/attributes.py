"""Judges of whose voice it is: a predictor of Semantic-Acoustic Primitives, a chat model, or a measurement.

A judge's words are read, never guessed at: what cannot be read, or says nothing of an attribute, is told apart.
"""
# Shapes: N samples.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from audiollm.benchmarks.sap.scoring import attribute, read_prediction
from audiollm.data.audio.pitch import fundamental_frequency
from audiollm.data.audio.reading import load_audio
from audiollm.data.audio.waveforms import resample
from audiollm.data.audio.writing import wav_bytes
from audiollm.data.chat.base import ChatMessage, ChatModel
from audiollm.data.chat.opening import open_chat_model
from audiollm.data.voices.attributes import CLOSED_VALUES
from audiollm.tokenizer.checkpoints.fingerprint import weights_fingerprint
from audiollm.tokenizer.supervision.model import SupervisedTokenizer

JUDGED = ("gender", "age", "emotion")
JUDGED_SAMPLE_RATE = 16000  # Hz; what models that hear take, and more than pitch needs
HOP_LENGTH = 160  # samples between mel frames
PITCH_FRAME_MS = 10.0
LOWEST_PITCH, HIGHEST_PITCH = 60.0, 600.0  # Hz
QUIETEST_LEVEL = 10 ** (-40 / 20)  # of the loudest 25 ms; what is below, at either end, is no speech
LEVEL_FRAME_SECONDS = 0.025
SAP_PROMPT_ID = "attribute-control-sap-1"


@dataclass(frozen=True)
class JudgeWords:
    """What a judge says of a recording.

    Attributes:
        text: a SAP record, as far as the judge keeps to that.
        is_cut: whether a limit ended it.
    """

    text: str
    is_cut: bool = False


@dataclass(frozen=True)
class ReadAttributes:
    """A judge's words as far as they can be read.

    Attributes:
        values: each judged attribute, None for one that is not told; None if nothing can be read.
        repairs: what had to be changed in the words, or why nothing can be read.
    """

    values: Mapping[str, str | None] | None
    repairs: Sequence[str] = ()


class AttributeJudge(Protocol):
    """Who hears recordings.

    Attributes:
        name: as it stands beside the figures.
    """

    name: str

    def describe(self, path: Path) -> JudgeWords:
        """What the judge says of a recording."""


class SapTokenizerJudge:
    """The text decoder that an audio tokenizer was trained with, which writes SAP records.

    Args:
        folder: a training checkpoint: tokenizer, text decoder and text tokenizer.
        max_new_tokens: longest record.

    Raises:
        ValueError: the checkpoint has no text tokenizer.
    """

    def __init__(self, folder: str, *, max_new_tokens: int = 320) -> None:
        self._model = SupervisedTokenizer.from_pretrained(folder).eval()
        # Checkpoints of different runs have folders of one name.
        self.name = f"SAP decoder of {folder}, weights {weights_fingerprint(self._model.state_dict())[:12]}"
        if self._model.text is None:
            raise ValueError(f"{folder} has no text tokenizer, so that nothing it writes can be read")
        self._max_new_tokens = max_new_tokens

    def describe(self, path: Path) -> JudgeWords:
        """See `AttributeJudge`; of a long recording, the first segment is heard."""
        text = self._model.text
        assert text is not None
        tokenizer = self._model.tokenizer
        waveform = resample(*load_audio(path), tokenizer.sample_rate)
        waveform = waveform[: int(tokenizer.max_segment_seconds * tokenizer.sample_rate)]
        if not len(waveform):
            return JudgeWords("")
        stride = self._model.config.token_stride
        # To whole codes; the mask tells the frames that hold sound from this padding.
        padded = F.pad(waveform, (0, -len(waveform) % stride))[None]
        features = tokenizer.log_mel(padded, [padded.shape[1]])
        mask = (torch.arange(features.shape[-1]) * HOP_LENGTH < len(waveform)).long()[None]
        [written] = self._model.generate(
            features,
            mask,
            torch.tensor([text.start_id("sap")]),
            max_new_tokens=self._max_new_tokens,
            end_id=text.end_id,
        )
        return JudgeWords(text.decode(written), is_cut=len(written) >= self._max_new_tokens)


class ChatJudge:
    """A chat model that hears, asked for a SAP record of the voice.

    Args:
        model: the chat model.
        max_tokens: of its answer.
    """

    def __init__(self, model: ChatModel, *, max_tokens: int = 200) -> None:
        self.name = f"{model.name}, {SAP_PROMPT_ID}"
        self._model = model
        self._max_tokens = max_tokens

    def describe(self, path: Path) -> JudgeWords:
        """See `AttributeJudge`."""
        waveform = resample(*load_audio(path), JUDGED_SAMPLE_RATE)
        message = ChatMessage("user", sap_question(), audio=wav_bytes(waveform, JUDGED_SAMPLE_RATE))
        reply = self._model.ask([message], max_tokens=self._max_tokens)
        return JudgeWords(reply.text, reply.is_cut)


def sap_question() -> str:
    """What a chat model is asked: the voice, and nothing of what is said."""
    fields = ", ".join(f'"{name}": one of {", ".join(CLOSED_VALUES[name])} or null' for name in JUDGED)
    return (
        "Listen to how the speaker sounds and pay no attention to what the words mean. Answer with one JSON object and "
        f'nothing else: {{"linguistic_content": the words you hear, "vocal_attributes": {{{fields}}}}}. Use null for '
        "what you cannot tell."
    )


def open_judge(source: str, device: str) -> AttributeJudge:
    """Opens a judge.

    Args:
        source: a training checkpoint of an audio tokenizer; ``http://…/v1#model`` or ``hf:`` and a folder or Hub id for
            a chat model that hears.
        device: where a chat model of this machine computes.
    """
    if source.startswith(("http://", "https://", "hf:")):
        url, _, model = source.partition("#")
        return ChatJudge(open_chat_model(url, model or None, hears=True, device=device))
    return SapTokenizerJudge(source)


def read_attributes(text: str) -> ReadAttributes:
    """The closed attributes in a judge's words, and what had to be repaired to read them."""
    read = read_prediction(text)
    values = None if read.record is None else {name: attribute(read.record, name) for name in JUDGED}
    return ReadAttributes(values, read.repairs)


def median_pitch(path: Path) -> float | None:
    """Median fundamental frequency of the voiced frames, in Hz; None if none is voiced.

    Raises:
        ValueError: pyworld is not installed.
    """
    waveform = resample(*load_audio(path), JUDGED_SAMPLE_RATE)
    if not len(waveform):
        return None
    frequency = fundamental_frequency(
        waveform, JUDGED_SAMPLE_RATE, frame_ms=PITCH_FRAME_MS, min_frequency=LOWEST_PITCH, max_frequency=HIGHEST_PITCH
    ).numpy()
    voiced = frequency[frequency > 0]
    return float(np.median(voiced)) if len(voiced) else None


def speech_seconds(path: Path) -> float:
    """How long a recording speaks: from the first to the last 25 ms that are not silent; 0 for silence."""
    waveform, sample_rate = load_audio(path)
    levels = frame_levels(waveform, round(LEVEL_FRAME_SECONDS * sample_rate))
    loud = (levels > QUIETEST_LEVEL * levels.max()).nonzero() if len(levels) else levels
    return float(loud[-1] - loud[0] + 1) * LEVEL_FRAME_SECONDS if len(loud) else 0.0


def frame_levels(waveform: Tensor, frame_samples: int) -> Tensor:
    """Root mean square of each whole frame of a recording ``[N]``."""
    num_frames = len(waveform) // frame_samples
    return waveform[: num_frames * frame_samples].reshape(num_frames, frame_samples).square().mean(dim=1).sqrt()
