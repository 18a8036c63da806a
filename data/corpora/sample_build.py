"""Makes the sample corpus that ships with the project: ``python -m audiollm.data.corpora.sample_build``.

It takes from the full corpora what may be redistributed and is balanced enough to learn from in minutes: the same
telephone prompts in five languages, sound classes of at least four clips, every generated track and the on-hold music.
Splits are those of the full corpora, so nothing that is tested here is trained on there. The same packages give the
same bytes with the same version of libsndfile's Opus encoder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from jsonargparse import auto_cli
from torch import Tensor

from audiollm.data.files.atomic import atomic_folder
from audiollm.data.records import Split
from audiollm.tokenizer.configuration import SAMPLE_RATE

from .build import ATTRIBUTION_NAME, CORPORA, list_recordings, write_attribution, write_clips
from .clips import MANIFEST_NAME, ClipMetadata, CorpusError, Recording, assign_splits, save_manifest
from .opus import encode_opus
from .sample_corpus import SAMPLE_FOLDER
from .sources import asterisk, music, opensfx, sonic_pi

logger = logging.getLogger(__name__)

LICENCES = {"CC0-1.0", "CC-BY-3.0", "CC-BY-SA-3.0", "MIT"}
MAX_BYTES = 5_000_000
LANGUAGES = ("en", "es", "fr", "it", "ru")
BITRATES_BPS = {"speech": 14000, "sound": 20000, "music": 18000}
# Prompts per split; each is there in five languages. Test takes all that there are.
NUM_PROMPTS: dict[Split, int] = {"test": 10, "dev": 8, "train": 40}
MIN_SPEECH_SECONDS, MAX_SPEECH_SECONDS = 1.0, 8.0
MIN_CLASS_CLIPS = 4
MAX_SOUND_SECONDS = 5.0
MUSIC_SECONDS = 5.0
MOH_WINDOWS = (1, 2, 4, 6)


def build_sample(output_dir: str = str(SAMPLE_FOLDER)) -> None:
    """Builds the sample corpus anew.

    Args:
        output_dir: folder to write; a sample that is there is replaced.
    """
    folder = Path(output_dir)
    chosen: list[Recording] = []
    splits: dict[str, Split] = {}
    selectors: dict[str, Callable[[list[Recording], dict[str, Split]], list[Recording]]] = {
        asterisk.NAME: _prompts,
        opensfx.NAME: _all,
        sonic_pi.NAME: _all,
        music.IMMICH: _all,
        music.MOH: _spread_windows,
    }
    for name, select in selectors.items():
        recordings = list_recordings(CORPORA[name])
        corpus_splits = assign_splits(recordings)
        chosen += select(recordings, corpus_splits)
        splits |= corpus_splits
    chosen = [_shortened(recording) for recording in _frequent_classes(chosen)]
    refused = sorted({recording.metadata.licence for recording in chosen} - LICENCES)
    if refused:
        raise CorpusError(f"recordings under {', '.join(refused)} may not ship with the project")
    with atomic_folder(folder) as building:
        clips = write_clips(chosen, splits, building, _encode)
        save_manifest(clips, building / MANIFEST_NAME)
        write_attribution(clips, building / ATTRIBUTION_NAME, "Sample corpus of audiollm")
        size = sum(path.stat().st_size for path in building.rglob("*") if path.is_file())
        if size >= MAX_BYTES:
            raise CorpusError(f"the sample takes {size} bytes; it must stay below {MAX_BYTES}")
    logger.info("%d clips, %.1f min, %d bytes", len(clips), sum(clip.duration_seconds for clip in clips) / 60, size)


def _prompts(recordings: list[Recording], splits: dict[str, Split]) -> list[Recording]:
    """Sentences that all five languages have, a fixed number per split, in the order of their hash."""
    prompts: dict[str, dict[str, Recording]] = {}
    for recording in recordings:
        metadata = recording.metadata
        if is_sentence(metadata.text or "") and MIN_SPEECH_SECONDS <= metadata.duration_seconds <= MAX_SPEECH_SECONDS:
            prompts.setdefault(str(metadata.attributes["prompt"]), {})[str(metadata.language)] = recording
    parallel = [key for key, languages in prompts.items() if len(languages) == len(LANGUAGES)]
    taken: Counter[str] = Counter()
    found: list[Recording] = []
    for key in sorted(parallel, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        split = splits[prompts[key]["en"].metadata.group]
        if taken[split] < NUM_PROMPTS[split]:
            taken[split] += 1
            found += prompts[key].values()
    if taken != Counter(NUM_PROMPTS):
        raise CorpusError(f"found {dict(taken)} parallel prompts, expected {NUM_PROMPTS}")
    return found


def is_sentence(text: str) -> bool:
    """Whether a transcript is three words or more, spelled out, and begins where a sentence begins."""
    return len(text.split()) >= 3 and not re.search(r"^\W*\.\.|\d|[A-Z]{2}", text)


def _all(recordings: list[Recording], splits: dict[str, Split]) -> list[Recording]:
    return recordings


def _spread_windows(recordings: list[Recording], splits: dict[str, Split]) -> list[Recording]:
    return [recording for recording in recordings if recording.metadata.attributes["window"] in MOH_WINDOWS]


def _frequent_classes(recordings: Iterable[Recording]) -> list[Recording]:
    """Drops sounds of classes with too few clips."""
    recordings = list(recordings)
    counts = Counter(recording.metadata.label for recording in recordings if recording.metadata.sound_type == "sound")
    return [
        recording
        for recording in recordings
        if recording.metadata.sound_type != "sound" or counts[recording.metadata.label] >= MIN_CLASS_CLIPS
    ]


def _shortened(recording: Recording) -> Recording:
    """Keeps the first seconds of sounds and music."""
    limits = {"sound": MAX_SOUND_SECONDS, "music": MUSIC_SECONDS}
    seconds = min(recording.metadata.duration_seconds, limits.get(recording.metadata.sound_type, MAX_SPEECH_SECONDS))
    metadata = dataclasses.replace(recording.metadata, duration_seconds=seconds)
    num_samples = round(seconds * SAMPLE_RATE)
    return dataclasses.replace(recording, metadata=metadata, load=lambda: recording.load()[:num_samples])


def _encode(waveform: Tensor, metadata: ClipMetadata) -> tuple[bytes, str]:
    return encode_opus(waveform, BITRATES_BPS[metadata.sound_type], metadata.id), "opus"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    auto_cli(build_sample, as_positional=False)
