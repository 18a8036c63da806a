"""The recordings of a study: read once, chosen evenly, and the same for every tokenizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from audiollm.benchmarks.codes.clips import ESC50_TABLE, LabelledClip, read_esc50
from audiollm.data.conversation.audio_parts import clip_part
from audiollm.data.corpora.build import build_corpus
from audiollm.data.corpora.clips import MANIFEST_NAME
from audiollm.data.corpora.sample_corpus import SAMPLE_FOLDER
from audiollm.data.files.hashing import file_sha256
from audiollm.data.manifest import Manifest, RecordError, open_manifest
from audiollm.data.records import TEXT_KEYS
from audiollm.data.sampling import spread

from .study import CORPUS, SAMPLE, DataSettings

UNLABELLED = ""


@dataclass(frozen=True)
class Recordings:
    """Recordings of one name in a study.

    Attributes:
        name: in the study.
        settings: how they were chosen.
        fingerprint: sha256 of the records that they were chosen from.
        clips: the recordings; the label of one without a class is empty.
        texts: what is said in each; None where the record does not tell.
    """

    name: str
    settings: DataSettings
    fingerprint: str
    clips: list[LabelledClip]
    texts: list[str | None]

    def identity(self) -> dict[str, Any]:
        """What must be the same for figures to be of the same recordings: content and choice, not where they lie."""
        chosen = {name: value for name, value in asdict(self.settings).items() if name != "path"}
        return {"name": self.name, "sha256": self.fingerprint, "num_clips": len(self.clips), **chosen}

    @cached_property
    def labelled(self) -> list[LabelledClip]:
        """Those with a class that has clips enough.

        Raises:
            RecordError: there are none, or all are of one class.
        """
        counts = Counter(clip.label for clip in self.clips if clip.label != UNLABELLED)
        enough = {label for label, count in counts.items() if count >= self.settings.min_clips_per_class}
        if len(enough) < 2:
            raise RecordError(
                self.settings.path,
                f"has {len(enough)} classes ({self.settings.label_key!r}) of at least "
                f"{self.settings.min_clips_per_class} clips; classes are told apart where there are two or more",
            )
        return [clip for clip in self.clips if clip.label in enough]


def read_recordings(name: str, settings: DataSettings, folder: Path) -> Recordings:
    """Reads the records of some data, without their sound.

    Args:
        name: of the data in the study.
        settings: where they are, and which of them are meant.
        folder: of the run; a corpus of package registries is built in it, if it is not there.

    Raises:
        RecordError: a record has no audio, or none is left.
        OSError: there are no such data, or a package cannot be fetched.
    """
    if (Path(settings.path) / ESC50_TABLE).is_file():
        found = read_esc50(Path(settings.path))
        fingerprint = file_sha256(Path(settings.path) / ESC50_TABLE)
        pairs: list[tuple[LabelledClip, str | None]] = [(clip, None) for clip in found]
    else:
        manifest = open_manifest(_manifest_of(settings.path, folder))
        fingerprint = manifest.fingerprint
        pairs = [
            _clip(manifest, index, settings) for index in range(len(manifest)) if _is_meant(manifest, index, settings)
        ]
    if not pairs:
        wanted = ", ".join(
            f"{key} {value!r}"
            for key in ("split", "sound_type", "language")
            if (value := getattr(settings, key)) is not None
        )
        raise RecordError(settings.path, f"holds no recordings{f' of {wanted}' if wanted else ''}")
    if settings.max_clips is not None:
        # Spread evenly, not the first ones: records often stand sorted by source or class.
        pairs = spread(pairs, settings.max_clips)
    return Recordings(name, settings, fingerprint, [clip for clip, _ in pairs], [text for _, text in pairs])


def _manifest_of(path: str, folder: Path) -> str | Path:
    if path == SAMPLE:
        return SAMPLE_FOLDER / MANIFEST_NAME
    if not path.startswith(CORPUS):
        return path
    corpus = path.removeprefix(CORPUS)
    manifest = folder / "corpora" / corpus / MANIFEST_NAME
    return manifest if manifest.is_file() else build_corpus(corpus, manifest.parent)


def chosen_from(recordings: Recordings, split: str | None, max_clips: int | None) -> list[LabelledClip]:
    """Some of the recordings, evenly spread.

    Raises:
        RecordError: none is of the split.
    """
    clips = [clip for clip in recordings.clips if split is None or clip.split == split]
    if not clips:
        raise RecordError(recordings.settings.path, f"holds no recordings of split {split!r} among those of the study")
    return clips if max_clips is None else spread(clips, max_clips)


def shortened(recordings: Recordings, max_clips: int) -> Recordings:
    """The same, but so many at most."""
    numbers = spread(range(len(recordings.clips)), max_clips)
    clips, texts = [recordings.clips[n] for n in numbers], [recordings.texts[n] for n in numbers]
    return replace(recordings, clips=clips, texts=texts)


def _record(manifest: Manifest, index: int) -> Mapping[str, Any]:
    record = manifest[index]
    return record if isinstance(record, Mapping) else {}


def _is_meant(manifest: Manifest, index: int, settings: DataSettings) -> bool:
    record = _record(manifest, index)
    return all(getattr(settings, key) in (None, record.get(key)) for key in ("split", "sound_type", "language"))


def _clip(manifest: Manifest, index: int, settings: DataSettings) -> tuple[LabelledClip, str | None]:
    record, where = _record(manifest, index), manifest.where(index)
    label, fold = record.get(settings.label_key), record.get("fold")
    clip = LabelledClip(
        id=str(record.get("id", where)),
        label=UNLABELLED if label is None else str(label),
        audio=clip_part(manifest[index], where, manifest.base_dir(index)),
        split=record.get("split"),
        fold=None if fold is None else str(fold),
        sound_type=record.get("sound_type"),
    )
    return clip, next((record[key] for key in TEXT_KEYS if isinstance(record.get(key), str)), None)
