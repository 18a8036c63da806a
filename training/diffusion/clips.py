"""Recordings with texts, checked once, and their latents: encoded when needed, and kept."""
# Shapes: N samples, T frames, D latent size.

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from tqdm.auto import tqdm

from audiollm.data.audio.opening import AudioError
from audiollm.data.files.atomic import atomic_write
from audiollm.data.files.text import HALF_A_CHARACTER, is_whole
from audiollm.data.manifest import RecordError, open_manifest
from audiollm.data.records import TEXT_KEYS
from audiollm.data.unread_keys import unread_keys
from audiollm.diffusion.configuration import TASKS
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.checkpoints.tensors import read_safetensors
from audiollm.training.audio_tokenizer.check import Entry, RecordsCheck, report_problems
from audiollm.training.audio_tokenizer.clips import ClipReader
from audiollm.training.loop.batches import share_of_process
from audiollm.training.loop.errors import DataError

from .config import DiffusionTrainingConfig

SPEECH = "text_to_speech"
TASK_OF_SOUND = {"speech": SPEECH, "sound": "text_to_audio", "music": "text_to_music", "mix": "text_to_audio"}
"""What a record is trained for by what is heard in it."""


def task_of(record: Mapping[str, Any], default: str) -> str:
    """What a record is trained for: its ``task``, or else what follows from its ``sound_type``.

    Raises:
        DataError: if it is none that is known.
    """
    stated = record.get("task")
    if isinstance(stated, str) and stated.replace("-", "_") in TASKS:
        return stated.replace("-", "_")
    sound = record.get("sound_type")
    if isinstance(sound, str) and sound in TASK_OF_SOUND:
        return TASK_OF_SOUND[sound]
    if stated is not None or sound is not None:
        raise DataError(
            f"task={stated!r}, sound_type={sound!r}: use a task of {', '.join(TASKS)}, or a sound_type of "
            f"{', '.join(TASK_OF_SOUND)}, or leave both out"
        )
    return default


def text_of(record: Mapping[str, Any], task: str) -> str:
    """The text of a record: of speech what is said; of other sound its caption, text, or label.

    Raises:
        DataError: if it has none, or one that no encoder reads.
    """
    keys = TEXT_KEYS if task == SPEECH else ("caption", *TEXT_KEYS, "label")
    for key in keys:
        value = record.get(key)
        if isinstance(value, str) and value.strip():
            if not is_whole(value):
                raise DataError(f"{key}: {value[:60]!r} {HALF_A_CHARACTER}")
            return (value.replace("_", " ") if key == "label" else value).strip()
    raise DataError(f"has no text for {task}: give it under {', '.join(keys)}")


@dataclass(frozen=True)
class Distribution:
    """The latents of a clip: what they are drawn from."""

    mean: Tensor  # [T, D]
    log_variance: Tensor | None  # the same; None: there is no more than the mean


class TextClips:
    """The usable recordings of a manifest with their texts; all are decoded once when this is made.

    Args:
        source: whatever `open_manifest` takes.
        audio_tokenizer: makes the latents.
        config: the run.
        count_tokens: of a text, for the text encoder.
        process_index: with ``num_processes``, which share of the records this process checks.
        num_processes: how many check together; all of them must make this object.
        gather: joins every process's list to one, such as ``accelerate.utils.gather_object``.
        progress: show a progress bar.

    Raises:
        DataError: listing the records that cannot be used, or if none is left.
        RecordError: no such file, or a format that is not read.
    """

    def __init__(
        self,
        source: str,
        audio_tokenizer: AudioTokenizer,
        config: DiffusionTrainingConfig,
        count_tokens: Callable[[str], int],
        *,
        process_index: int = 0,
        num_processes: int = 1,
        gather: Callable[[list[Any]], list[Any]] = lambda mine: mine,
        progress: bool = False,
    ) -> None:
        self._audio_tokenizer: Any = audio_tokenizer
        self._rate = audio_tokenizer.sample_rate
        self._config = config
        # Latents are kept, and so no waveform is needed twice.
        self._reader = ClipReader(open_manifest(source), mono=config.mono, cache_bytes=0, sample_rate=self._rate)
        self._store = LatentStore(audio_tokenizer, config.cache_dir, config.cache_megabytes * 2**20)
        numbers = list(range(len(self._reader.manifest)))
        mine = RecordsCheck()
        share = share_of_process(numbers, process_index, num_processes)
        for number in tqdm(share, disable=not progress, unit="recording", leave=False):
            self._check(number, count_tokens, mine)
        check = RecordsCheck.merge(gather([mine]))
        report_problems(check, self.name, on_bad=config.on_bad, split=None)
        self.num_skipped = len(check.problems)
        self._entries = list(check.entries.values())

    def _check(self, number: int, count_tokens: Callable[[str], int], found: RecordsCheck) -> None:
        where = self._reader.where(number)
        try:
            record = self._reader.record(number)
            task = task_of(record, self._config.task)
            text = text_of(record, task)
            tokens, most = count_tokens(text), self._config.text.max_tokens
            if tokens > most:
                raise DataError(f"the text has {tokens} tokens, more than text.max_tokens={most}: shorten it")
            num_samples = len(self._reader.waveform(number))
            self._check_length(num_samples / self._rate, task)
            digest = self._reader.audio_digest(number)
        except (AudioError, DataError, RecordError, OSError) as error:
            told = str(error)
            found.problems[number] = [told if told.startswith(where) else f"{where}: {told}"]
            return
        found.unread.update(unread_keys(record))
        named = where if record.get("id") is None else str(record["id"])
        text_digest = hashlib.sha256(f"{digest} {task} {text}".encode()).hexdigest()
        found.entries[number] = Entry(
            number, named, str(record.get("sound_type", "")), (task,), num_samples, text_digest
        )

    def _check_length(self, seconds: float, task: str) -> None:
        shortest, longest = self._config.min_seconds, self._config.max_seconds
        if seconds < shortest:
            raise DataError(f"audio: lasts {seconds:.3f} s, shorter than min_seconds={shortest:g}")
        if task == SPEECH and seconds > longest:
            raise DataError(
                f"audio: lasts {seconds:.2f} s, longer than max_seconds={longest:g}: a part of speech would not be "
                "what its text says"
            )

    @property
    def name(self) -> str:
        """What messages call the source."""
        return self._reader.manifest.name

    @property
    def facts(self) -> dict[str, Any]:
        """What a run writes down of its data."""
        seconds = sum(entry.num_samples for entry in self._entries) / self._rate
        digests = "".join(entry.digest for entry in self._entries)
        return {
            "recordings": hashlib.sha256(digests.encode()).hexdigest(),
            "num_clips": len(self),
            "num_skipped": self.num_skipped,
            "hours": round(seconds / 3600, 4),
        }

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those that the records are for, in the order of `TASKS`."""
        found = {entry.tasks[0] for entry in self._entries}
        return tuple(task for task in TASKS if task in found)

    @property
    def frames_per_character(self) -> float | None:
        """Latents of a character that is said; None without speech."""
        spoken = [index for index in range(len(self)) if self.task(index) == SPEECH]
        if not spoken:
            return None
        return sum(self.num_frames(index) for index in spoken) / sum(len(self.text(index)) for index in spoken)

    def __len__(self) -> int:
        return len(self._entries)

    def id(self, index: int) -> str:
        """The record's own id, or file and line."""
        return self._entries[index].id

    def task(self, index: int) -> str:
        """What it is trained for."""
        return self._entries[index].tasks[0]

    def text(self, index: int) -> str:
        """What is said or heard."""
        return text_of(self._reader.record(self._entries[index].record), self.task(index))

    def num_frames(self, index: int) -> int:
        """T of the whole clip, without encoding it."""
        return self._audio_tokenizer.num_frames(self._entries[index].num_samples, self._rate)

    def waveform(self, index: int) -> Tensor:
        """float32 ``[N]`` at the audio tokenizer's rate.

        Raises:
            DataError: if the recording can no longer be read.
        """
        return self._reader.waveform(self._entries[index].record)

    def latents(self, index: int) -> Distribution:
        """Of the whole clip.

        Raises:
            DataError: if the recording can no longer be read, or its latents are no numbers.
            ValueError: if ``cache_dir`` holds something else than its latents.
        """
        entry = self._entries[index]
        number = entry.record
        try:
            # Beside what is stored also how it is heard: channels, and the rate of samples without a file.
            key = f"{self._reader.audio_digest(number)} {self._config.mono} {entry.num_samples}"
            found = self._store.get(key, lambda: self._reader.waveform(number))
        except OSError as error:
            raise DataError(f"{self._reader.where(number)}: audio: can no longer be read: {error}") from error
        except NoLatentsError as error:
            raise DataError(f"{self._reader.where(number)}: audio: {error}") from error
        if len(found.mean) != self.num_frames(index):
            raise DataError(
                f"{self._reader.where(number)}: {len(found.mean)} latents where {self.num_frames(index)} were "
                "counted: has the recording changed, or is cache_dir damaged? Empty it"
            )
        return found


class NoLatentsError(Exception):
    """The audio tokenizer makes no latents of a recording."""


class LatentStore:
    """Latents by their recordings' digests: in memory within a budget, in a folder if there is one, or made anew.

    What is in memory stays there: epochs visit every clip in a new order.

    Args:
        audio_tokenizer: makes them.
        folder: None: none are written.
        max_bytes: of memory.
    """

    def __init__(self, audio_tokenizer: AudioTokenizer, folder: str | None, max_bytes: int) -> None:
        self._audio_tokenizer: Any = audio_tokenizer
        self._folder = None if folder is None else Path(folder) / audio_tokenizer.fingerprint()[:16]
        self._room = max_bytes
        self._kept: dict[str, Distribution] = {}
        self._lock = threading.Lock()

    def get(self, digest: str, waveform: Callable[[], Tensor]) -> Distribution:
        """The latents of a recording, the same wherever they come from.

        Args:
            digest: of the recording, and of all else that decides its waveform.
            waveform: reads it, float32 ``[N]`` at the audio tokenizer's rate.

        Raises:
            NoLatentsError: the audio tokenizer makes none of it.
            ValueError: naming a file in the folder that holds something else.
        """
        kept = self._kept.get(digest)
        if kept is not None:
            return kept
        path = None
        if self._folder is not None:
            path = self._folder / f"{hashlib.sha256(digest.encode()).hexdigest()}.safetensors"
        if path is not None and path.is_file():
            found = _read(path, self._audio_tokenizer.latent_size)
        else:
            found = self._encode(waveform())
            if path is not None:
                _write(path, found)
        with self._lock:
            size = sum(part.numel() * 4 for part in (found.mean, found.log_variance) if part is not None)
            if size <= self._room and digest not in self._kept:
                self._kept[digest] = found
                self._room -= size
        return found

    def _encode(self, waveform: Tensor) -> Distribution:
        try:
            made = self._audio_tokenizer.encode([waveform], self._audio_tokenizer.sample_rate)
        except ValueError as error:  # the batch is this recording
            raise NoLatentsError(str(error).replace("clip 0 ", "", 1)) from error
        mean = made.latents if made.mean is None else made.mean
        return Distribution(mean[0].float(), None if made.log_variance is None else made.log_variance[0].float())


def _read(path: Path, latent_size: int) -> Distribution:
    """What `_write` wrote.

    Raises:
        ValueError: naming the file, if it is damaged or holds something else.
    """
    stored = read_safetensors(path)
    mean, log_variance = stored.get("mean"), stored.get("log_variance")
    parts = [mean] if log_variance is None else [mean, log_variance]
    if (
        mean is None
        or mean.dim() != 2
        or mean.shape[1] != latent_size
        or any(part.shape != mean.shape or not torch.isfinite(part).all() for part in parts if part is not None)
    ):
        raise ValueError(
            f"{path} does not hold the latents of a recording, [T, {latent_size}] of numbers: delete it, and it is "
            "made anew"
        )
    return Distribution(mean, log_variance)


def _write(path: Path, latents: Distribution) -> None:
    tensors = {"mean": latents.mean} | ({} if latents.log_variance is None else {"log_variance": latents.log_variance})
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "wb") as file:
        file.write(save({name: one.contiguous() for name, one in tensors.items()}))


def statistics(clips: TextClips, num_clips: int, *, progress: bool = False) -> tuple[Tensor, Tensor]:
    """Means and deviations of the latents of the first clips, float32 ``[D]`` each.

    Args:
        clips: most of which are encoded here for the first time.
        num_clips: most clips that count.
        progress: show a progress bar.
    """
    first = tqdm(range(min(len(clips), num_clips)), disable=not progress, unit="clip", desc="latents", leave=False)
    rows = torch.cat([clips.latents(index).mean for index in first]).double()
    return rows.mean(dim=0).float(), rows.std(dim=0, unbiased=False).float()
