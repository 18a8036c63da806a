"""Lets lmms-eval run its tasks with a model under test of ours, such as an Audio-LLM.

Where both are installed, ``lmms_eval --model audiollm --model_args model=FOLDER --tasks …`` finds this class through
the entry point group ``lmms_eval.models``, which `manifest` serves; a program of one's own calls `register` first.
Written for lmms-eval 0.7 (its simple model interface).

An error of the model stops the run. Others turn it into an empty reply, for which lmms-eval guesses a letter.
"""

from __future__ import annotations

import dataclasses
import io
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile as sf
import torch
from lmms_eval.api.model import lmms  # type: ignore[import-not-found]
from tqdm import tqdm

from audiollm.benchmarks.models.base import AnswerSettings, ChatRequest
from audiollm.benchmarks.models.opening import open_audio_chat_model
from audiollm.data.audio.waveforms import waveform_from_array
from audiollm.data.chat.base import ChatError
from audiollm.data.conversation.audio_parts import parse_audio_part
from audiollm.environment import find_device

logger = logging.getLogger(__name__)

MODEL_ID = "audiollm"
# What tasks write into their generation settings and what has no effect with these values.
_UNDERSTOOD = ("until", "max_new_tokens", "temperature", "do_sample")
_WITHOUT_EFFECT: Mapping[str, Any] = {"num_beams": 1, "top_p": 1.0, "use_cache": True}


def manifest() -> Any:
    """What lmms-eval's registry wants to know; the value of the entry point."""
    from lmms_eval.models.registry_v2 import ModelManifest  # type: ignore[import-not-found]

    return ModelManifest(model_id=MODEL_ID, simple_class_path=f"{__name__}.{LmmsEvalModel.__name__}")


def register() -> None:
    """Makes the name ``audiollm`` known to lmms-eval in this process."""
    from lmms_eval.models import MODEL_REGISTRY_V2  # type: ignore[import-not-found]

    MODEL_REGISTRY_V2.register_manifest(manifest(), overwrite=True)


@dataclass(frozen=True)
class _Asked:
    """A request of lmms-eval, read."""

    request: ChatRequest
    settings: AnswerSettings
    until: tuple[str, ...]


class LmmsEvalModel(lmms):
    """A model under test as lmms-eval calls it: questions about one recording each, answered in text.

    Args:
        model: as for `open_audio_chat_model`: folder, Hub id, "mini" or the URL of an endpoint.
        batch_size: questions at a time.
        device: torch device; None: this process's own.
        dtype: of the weights.
        endpoint_model: name of the model at an endpoint.
        key_variable: environment variable that holds the endpoint's key.

    Raises:
        ValueError: see `open_audio_chat_model`.
    """

    def __init__(
        self,
        model: str | None = None,
        batch_size: int | str = 1,
        device: str | None = None,
        dtype: str = "auto",
        endpoint_model: str | None = None,
        key_variable: str | None = None,
        **ignored: Any,
    ) -> None:
        super().__init__()
        given = {name: value for name, value in ignored.items() if value is not None}
        if given:  # the command adds options of its own, such as max_batch_size
            logger.warning("model options without effect here: %s", ", ".join(sorted(given)))
        self._batch_size = int(batch_size)
        self._device = find_device(device)
        self._model = open_audio_chat_model(
            model, device=self._device, dtype=dtype, endpoint_model=endpoint_model, key_variable=key_variable
        )

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return torch.device(self._device)

    @property
    def batch_size(self) -> int:
        """Questions at a time."""
        return self._batch_size

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answers the requests of a task.

        Raises:
            ChatError: if the model does not answer one.
            ValueError: if a question is not about exactly one recording.
        """
        asked = [self._read(*request.args) for request in requests]
        replies = [""] * len(asked)
        batches = list(_batches(asked, self._batch_size))
        for batch in tqdm(batches, unit="batch", disable=self.rank != 0):
            self._model.settings = asked[batch[0]].settings
            for index, answer in zip(batch, self._model.answer([asked[n].request for n in batch]), strict=True):
                if isinstance(answer, ChatError):
                    raise answer
                replies[index] = _cut(answer.text, asked[index].until)
        return replies

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not offered.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("audiollm answers in text: use tasks with output_type generate_until")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("audiollm answers one question at a time: use tasks with output_type generate_until")

    def _read(
        self,
        context: str,
        generation: Mapping[str, Any],
        doc_to_visual: Callable[[Any], Sequence[Any]],
        doc_id: int,
        task: str,
        split: str,
    ) -> _Asked:
        recordings = list(doc_to_visual(self.task_dict[task][split][doc_id]))
        if len(recordings) != 1:
            raise ValueError(f"{task}, question {doc_id}: {len(recordings)} recordings; use tasks with one a question")
        unknown = {
            name: value
            for name, value in generation.items()
            if name not in _UNDERSTOOD and value not in (None, _WITHOUT_EFFECT.get(name))
        }
        if unknown:
            raise ValueError(f"{task}: generation settings {unknown} are not offered; take them out of the task")
        until = generation.get("until") or ()
        return _Asked(
            ChatRequest(_audio(recordings[0], f"{task}, question {doc_id}"), context),
            _settings(generation),
            (until,) if isinstance(until, str) else tuple(until),
        )


def _settings(generation: Mapping[str, Any]) -> AnswerSettings:
    temperature = float(generation.get("temperature") or 0.0) if generation.get("do_sample") is not False else 0.0
    settings = AnswerSettings(temperature=temperature)
    longest = generation.get("max_new_tokens")
    return settings if longest is None else dataclasses.replace(settings, max_new_tokens=int(longest))


def _audio(value: Any, where: str) -> str | bytes:
    """A recording as tasks hold it (path, bytes, samples, a decoder of datasets): as path or bytes of a file.

    Raises:
        ValueError: if it is none.
    """
    if hasattr(value, "get_all_samples"):
        samples = value.get_all_samples()
        value = {"array": samples.data, "sampling_rate": int(samples.sample_rate)}
    elif isinstance(value, Mapping) and "sampling_rate" in value:
        value = {**value, "sampling_rate": int(value["sampling_rate"])}
    part = parse_audio_part(value, where=where)
    if part.codes is not None:
        raise ValueError(f"{where}: holds codes; give a path, bytes or samples")
    if part.path is not None:
        return part.path
    if part.bytes is not None:
        return part.bytes
    assert part.array is not None  # codes are no sound that a task holds, and are refused above
    channels = [waveform_from_array(channel, name=where).numpy() for channel in np.atleast_2d(part.array)]
    buffer = io.BytesIO()
    sf.write(buffer, np.stack(channels, axis=1), part.sampling_rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def _batches(asked: Sequence[_Asked], batch_size: int) -> Iterable[list[int]]:
    """Indices of requests with equal settings, in order."""
    by_settings: dict[AnswerSettings, list[int]] = {}
    for index, one in enumerate(asked):
        by_settings.setdefault(one.settings, []).append(index)
    for indices in by_settings.values():
        for start in range(0, len(indices), batch_size):
            yield indices[start : start + batch_size]


def _cut(reply: str, until: Sequence[str]) -> str:
    """The reply up to the first of the texts that end it."""
    return min((reply.split(end)[0] for end in until if end), key=len, default=reply)
