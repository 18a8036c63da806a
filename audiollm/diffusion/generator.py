"""Sound from texts: a `LatentDiffusion` with the audio tokenizer whose latents it makes."""
# Shapes: N samples, T frames, D latent size.

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audiollm.data.audio.reading import load_audio
from audiollm.data.files.atomic import atomic_folder
from audiollm.environment import find_device
from audiollm.folders import AUDIO_TOKENIZER_FOLDER, save_audio_tokenizer
from audiollm.tokenizer.base import AudioTokenizer, Latents
from audiollm.tokenizer.checkpoints.folders import find_folder
from audiollm.tokenizer.decoder.flow.solvers import Integration, Solver
from audiollm.tokenizer.decoder.inputs import check_seed
from audiollm.tokenizer.encoder.encoding import check_batch_size

from .modeling import LatentDiffusion, check_diffusion_folder

DEFAULT_SECONDS = 5.0
"""Of a sound or music, where nothing is said; no more than the model makes."""


@dataclass(frozen=True)
class GeneratedAudio:
    """A sound that was made.

    Args:
        waveform: float32 ``[N]`` on the CPU.
        sample_rate: Hz.
        latents: of which it was decoded, float32 ``[T, D]``.
    """

    waveform: Tensor
    sample_rate: int
    latents: Tensor

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.waveform) / self.sample_rate


class AudioGenerator:
    """Makes sound of texts.

    Args:
        model: makes the latents.
        audio_tokenizer: the one that it was trained for; decodes them.

    Raises:
        ValueError: if it is another audio tokenizer, or cannot decode.
    """

    def __init__(self, model: LatentDiffusion, audio_tokenizer: AudioTokenizer) -> None:
        check_audio_tokenizer(model, audio_tokenizer)
        if not audio_tokenizer.can_decode:
            raise ValueError(f"the audio tokenizer makes no sound: {audio_tokenizer.why_no_sound}")
        self.model = model.eval()
        self.audio_tokenizer: Any = audio_tokenizer

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike[str],
        *,
        audio_tokenizer: str | os.PathLike[str] | None = None,
        device: torch.device | str | None = None,
    ) -> AudioGenerator:
        """Loads what a run of ``training/train_dit.py`` left.

        Args:
            path_or_hub_id: a run, its ``model`` folder, or a Hub id.
            audio_tokenizer: where it is, if not in the model's folder.
            device: torch device; None: the first GPU when there is one.

        Raises:
            ValueError: if it is no such model, there is no audio tokenizer, or another one.
        """
        folder = find_folder(os.fspath(path_or_hub_id), kind="diffusion model")
        folder = folder / "model" if (folder / "model").is_dir() else folder
        check_diffusion_folder(folder)
        place = folder / AUDIO_TOKENIZER_FOLDER if audio_tokenizer is None else Path(audio_tokenizer)
        if audio_tokenizer is None and not place.is_dir():
            raise ValueError(f"{folder} holds no {AUDIO_TOKENIZER_FOLDER}/: name the audio tokenizer")
        found = find_device(None if device is None else str(device))
        model = LatentDiffusion.from_pretrained(folder).to(found)
        return cls(model, AudioTokenizer.from_pretrained(os.fspath(place), device=found))

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes model, text tokenizer and audio tokenizer, all of it or nothing.

        Raises:
            ValueError: if the audio tokenizer is of a kind that cannot be saved, or was rounded since it was loaded,
                which would make another of it.
        """
        self._refuse_rounded()
        with atomic_folder(Path(folder)) as new:
            self.model.save_pretrained(new)
            save_audio_tokenizer(self.audio_tokenizer, new / AUDIO_TOKENIZER_FOLDER)

    def _refuse_rounded(self) -> None:
        weights = self.audio_tokenizer.state_dict().values() if isinstance(self.audio_tokenizer, nn.Module) else ()
        rounded = {one.dtype for one in weights} & {torch.float16, torch.bfloat16}
        if rounded and self.model.config.audio_tokenizer_fingerprint is not None:
            raise ValueError(
                f"the audio tokenizer is in {rounded.pop()}: saved so, it would be another one than the model was "
                "trained for, which then refuses it; save it in float32, as it was loaded"
            )

    @torch.no_grad()
    def generate(
        self,
        texts: str | Sequence[str],
        *,
        seconds: float | Sequence[float | None] | None = None,
        task: str | None = None,
        prompt_audio: Any = None,
        prompt_text: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        solver: Solver = "euler",
        seed: int | Sequence[int] = 0,
        batch_size: int = 8,
    ) -> list[GeneratedAudio]:
        """Makes a sound of each text; each is what it would be alone, up to rounding.

        Args:
            texts: what is heard, or said.
            seconds: how long each lasts; None: `DEFAULT_SECONDS`, or of speech what the text takes at the pace of the
                prompt, or else of the training data.
            task: what the texts are, one of `TASKS`; None: the only one that the model was trained for.
            prompt_audio: a recording that each goes on from, with its voice and manner: whatever `load_audio` takes,
                or the pair of a waveform ``[N]`` and its sample rate. It is not part of what is returned.
            prompt_text: what is said in it; of speech, needed with it.
            steps: evaluations of the network; None: those of the checkpoint.
            guidance: strength of classifier-free guidance, 0 for none; None: that of the checkpoint.
            solver: see `audiollm.tokenizer.decoder.flow.solvers`.
            seed: of all noise, or one for each text. The same seed makes the same sound.
            batch_size: most texts at once.

        Raises:
            ValueError: naming the argument that is wrong, such as a sound that is longer than the model makes.
        """
        texts = _checked_texts(texts)
        config, model = self.model.config, self.model
        task_id = config.task_id(self._task(task))
        check_batch_size(batch_size)
        seeds = _one_for_each(seed, len(texts), "seed")
        for one in seeds:
            check_seed(one)
        integration = Integration(
            config.steps if steps is None else steps, config.guidance if guidance is None else guidance, solver,
            config.sway,
        )  # fmt: skip
        prompt = self._prompt(prompt_audio, prompt_text, config.tasks[task_id - 1])
        wanted = [
            self._seconds(text, given, config.tasks[task_id - 1], prompt, prompt_text)
            for text, given in zip(texts, _one_for_each(seconds, len(texts), "seconds"), strict=True)
        ]
        frames = [self._num_frames(one, len(prompt)) for one in wanted]
        spoken = [text if prompt_text is None else f"{prompt_text} {text}" for text in texts]
        model.tokenize(spoken)  # all of them, so that what is wrong is said before anything is made
        latents: list[Tensor] = []
        for first in range(0, len(texts), batch_size):
            rows = range(first, min(first + batch_size, len(texts)))
            noises = [_noise(len(prompt) + frames[row], config.latent_size, seeds[row]) for row in rows]
            batch = model.tokenize([spoken[row] for row in rows])
            ids = torch.full((len(rows),), task_id)
            latents += model.sample(noises, batch, ids, integration, [prompt] * len(rows))
        return [self._sound(made, prompt, one) for made, one in zip(latents, wanted, strict=True)]

    def _task(self, task: str | None) -> str:
        tasks = self.model.config.tasks
        if task is None and len(tasks) > 1:
            known = ", ".join(tasks).replace("_", "-")  # as the command line takes them too
            raise ValueError(f"this model was trained for {known}: say by task (--task) which it is")
        return tasks[0] if task is None else str(task).replace("-", "_")

    def _prompt(self, audio: Any, text: str | None, task: str) -> Tensor:
        """The prompt's latents, ``[P, D]``; of none, P is 0.

        Raises:
            ValueError: if the recording or its text cannot be used, or leaves no room for anything.
        """
        if not isinstance(text, str | None):
            raise ValueError(f"prompt_text={text!r}: give a text, what is said in prompt_audio")
        if audio is None:
            if text is not None:
                raise ValueError("prompt_text is what is said in prompt_audio, and there is none")
            return torch.zeros(0, self.model.config.latent_size)
        if task == "text_to_speech" and not (text or "").strip():
            raise ValueError("prompt_audio needs prompt_text, what is said in it: the model reads both texts as one")
        if isinstance(audio, list | tuple | Tensor) and not (isinstance(audio, tuple) and len(audio) == 2):
            raise ValueError("prompt_audio: samples need their rate: give the pair (waveform, sample_rate)")
        waveform, rate = audio if isinstance(audio, tuple) else load_audio(audio, mono="mean")
        try:
            prompt: Tensor = self.audio_tokenizer.encode([waveform], rate)[0]
        except ValueError as error:
            raise ValueError(f"prompt_audio: {str(error).removeprefix('clip 0 ')}") from error
        if not len(prompt):
            raise ValueError("prompt_audio is shorter than one frame: give a longer recording")
        config = self.model.config
        if len(prompt) >= config.max_frames:
            raise ValueError(
                f"prompt_audio lasts {len(prompt) / config.frame_rate:.2f} s, and with what follows it there may be "
                f"{config.max_seconds:.2f} s, as in the training of this model: cut it, and prompt_text with it"
            )
        return prompt

    def _seconds(self, text: str, given: float | None, task: str, prompt: Tensor, prompt_text: str | None) -> float:
        config = self.model.config
        longest = config.max_seconds - len(prompt) / config.frame_rate
        if given is not None:
            is_number = isinstance(given, int | float) and not isinstance(given, bool)
            if not (is_number and math.isfinite(given) and given > 0):
                raise ValueError(f"seconds={given!r}: use a positive number, such as 6")
            return float(given)
        pace = config.frames_per_character
        if len(prompt) and prompt_text:
            pace = len(prompt) / len(prompt_text.strip())
        if task == "text_to_speech" and pace is not None:
            return max(1, round(pace * len(text.strip()))) / config.frame_rate
        return min(DEFAULT_SECONDS, longest)

    def _num_frames(self, seconds: float, prompt_frames: int) -> int:
        config = self.model.config
        frames = max(1, math.ceil(round(seconds * config.frame_rate, 6)))
        if prompt_frames + frames > config.max_frames:
            beside = f" with a prompt of {prompt_frames / config.frame_rate:.2f} s" if prompt_frames else ""
            raise ValueError(
                f"{seconds:.2f} s{beside} are longer than the {config.max_seconds:.2f} s that this model was trained "
                "for: ask for fewer seconds, or cut text or prompt"
            )
        return frames

    def decode(self, latents: Tensor) -> Tensor:
        """Sound of latents ``[T, D]``: float32 ``[N]`` on the CPU."""
        batch = Latents(latents[None], torch.tensor([len(latents)]))
        waveform: Tensor = self.audio_tokenizer.decode(batch)[0]
        return waveform

    def _sound(self, made: Tensor, prompt: Tensor, seconds: float) -> GeneratedAudio:
        """Decodes latents behind those of the prompt, which the first of them sound on from."""
        waveform = self.decode(torch.cat([prompt, made]))
        rate = self.audio_tokenizer.output_sample_rate
        start = round(len(prompt) * rate / self.model.config.frame_rate)
        return GeneratedAudio(waveform[start : start + max(1, round(seconds * rate))].clone(), rate, made)


def check_audio_tokenizer(model: LatentDiffusion, audio_tokenizer: AudioTokenizer) -> None:
    """Refuses an audio tokenizer whose latents are not those that a model makes.

    Raises:
        ValueError: naming both.
    """
    config = model.config
    if audio_tokenizer.latent_size is None:
        raise ValueError(f"{type(audio_tokenizer).__name__} has codes and no latents: name one with latents")
    found = (audio_tokenizer.latent_size, audio_tokenizer.frame_rate)
    if found != (config.latent_size, config.frame_rate):
        raise ValueError(
            f"the audio tokenizer makes {found[0]} numbers at {found[1]:g} Hz, but this model {config.latent_size} at "
            f"{config.frame_rate:g} Hz: name the one that it was trained for"
        )
    fingerprint = audio_tokenizer.fingerprint()
    if config.audio_tokenizer_fingerprint not in (None, fingerprint):
        known = f"{config.audio_tokenizer_kind} that the model was trained for"
        raise ValueError(
            f"this is another audio tokenizer (fingerprint {fingerprint[:12]}…) than the {known} "
            f"({config.audio_tokenizer_fingerprint[:12]}…): its latents mean other sounds"
        )


def _checked_texts(texts: Any) -> list[str]:
    if not isinstance(texts, str | Sequence):
        raise ValueError(f"texts are a {type(texts).__name__}: give a text, or a list of them")
    found: list[str] = [texts] if isinstance(texts, str) else list(texts)
    if not found:
        raise ValueError("there are no texts: give one or more")
    for index, text in enumerate(found):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"text {index} is {text!r}: say what is to be heard")
    return found


def _one_for_each(value: Any, count: int, name: str) -> list[Any]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != count:
            raise ValueError(f"{name} has {len(value)} values for {count} texts: give one, or one for each")
        return list(value)
    return [value] * count


def _noise(num_frames: int, latent_size: int, seed: int) -> Tensor:
    # On the CPU, so that every device begins with the same.
    return torch.randn(num_frames, latent_size, generator=torch.Generator().manual_seed(seed))
