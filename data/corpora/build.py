"""Builds a corpus folder from the packages that carry it: audio files, ``manifest.jsonl`` and ``ATTRIBUTION.md``."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Literal

import soundfile
from torch import Tensor
from tqdm import tqdm

from audiollm.data.files.atomic import atomic_folder, atomic_write
from audiollm.data.packages import Package
from audiollm.data.records import Split
from audiollm.tokenizer.configuration import SAMPLE_RATE

from .clips import MANIFEST_NAME, Clip, ClipMetadata, CorpusError, Recording, assign_splits, save_manifest
from .opus import encode_opus
from .sources import asterisk, fillets, game_sounds, music, opensfx, sonic_pi, synthetic, tuxpaint

logger = logging.getLogger(__name__)

AudioFormat = Literal["flac", "wav", "opus"]
_OPUS_BITRATE_BPS = {"speech": 24000, "sound": 32000, "music": 32000}
ATTRIBUTION_NAME = "ATTRIBUTION.md"


LICENCE_TEXTS = {
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY-3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC-BY-SA-3.0": "https://creativecommons.org/licenses/by-sa/3.0/",
    "GPL-2.0-only": "https://www.gnu.org/licenses/old-licenses/gpl-2.0.html",
    "GPL-2.0-or-later": "https://www.gnu.org/licenses/old-licenses/gpl-2.0.html",
    "MIT-Festival": "https://spdx.org/licenses/MIT-Festival.html",
    "LicenseRef-WordNet-3.0": "“Permission to use, copy, modify and distribute this software and database and its "
    "documentation for any purpose and without fee or royalty is hereby granted, provided that you agree to comply "
    "with the following copyright notice and statements, including the disclaimer, and that the same appear on ALL "
    "copies of the software, database and documentation, including modifications that you make for internal use or "
    "for distribution. WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved. THIS SOFTWARE AND "
    "DATABASE IS PROVIDED “AS IS” AND PRINCETON UNIVERSITY MAKES NO REPRESENTATIONS OR WARRANTIES, EXPRESS OR "
    "IMPLIED. BY WAY OF EXAMPLE, BUT NOT LIMITATION, PRINCETON UNIVERSITY MAKES NO REPRESENTATIONS OR WARRANTIES OF "
    "MERCHANTABILITY OR FITNESS FOR ANY PARTICULAR PURPOSE OR THAT THE USE OF THE LICENSED SOFTWARE, DATABASE OR "
    "DOCUMENTATION WILL NOT INFRINGE ANY THIRD PARTY PATENTS, COPYRIGHTS, TRADEMARKS OR OTHER RIGHTS. The name of "
    "Princeton University or Princeton may not be used in advertising or publicity pertaining to distribution of "
    "the software and/or database. Title to copyright in this software, database and any associated documentation "
    "shall at all times remain with Princeton University and LICENSEE agrees to preserve same.”",
    "MIT": "Permission is hereby granted, free of charge, to any person obtaining a copy of this software and "
    "associated documentation files (the “Software”), to deal in the Software without restriction, including without "
    "limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of "
    "the Software, and to permit persons to whom the Software is furnished to do so, subject to the following "
    "conditions: The above copyright notice and this permission notice shall be included in all copies or "
    "substantial portions of the Software. THE SOFTWARE IS PROVIDED “AS IS”, WITHOUT WARRANTY OF ANY KIND, "
    "EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR "
    "PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, "
    "DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN "
    "CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.",
}


@dataclass(frozen=True)
class Corpus:
    """A corpus that can be built."""

    name: str
    title: str
    packages: tuple[Package, ...]
    recordings: Callable[[], list[Recording]]
    """Fetches the packages and lists what is in them; nothing is decoded (or read aloud) yet."""
    num_clips: int
    """How many clips the pinned packages give."""


CORPORA: Mapping[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            asterisk.NAME,
            "Telephone prompts, read speech with transcripts in 5 languages",
            asterisk.PACKAGES,
            asterisk.recordings,
            2596,
        ),
        Corpus(opensfx.NAME, "Vehicles, machines, animals and nature", opensfx.PACKAGES, opensfx.recordings, 54),
        Corpus(
            game_sounds.NAME,
            "Weapons, animals, machines, weather, footsteps, instruments",
            game_sounds.PACKAGES,
            game_sounds.recordings,
            438,
        ),
        Corpus(sonic_pi.NAME, "Drums, percussion, basses, electronic", sonic_pi.PACKAGES, sonic_pi.recordings, 149),
        Corpus(
            music.IMMICH,
            "Generated music with mood, style, bpm and key",
            (music.IMMICH_PACKAGE,),
            music.immich_recordings,
            84,
        ),
        Corpus(
            fillets.NAME,
            "Acted dialogues in Czech and Dutch with English translations",
            fillets.PACKAGES,
            fillets.recordings,
            3250,
        ),
        Corpus(
            tuxpaint.NAME,
            "Spoken phrases in 12 languages with English translations",
            tuxpaint.PACKAGES,
            tuxpaint.recordings,
            7153,
        ),
        Corpus(music.MOH, "On-hold music, five tracks", (music.MOH_PACKAGE,), music.moh_recordings, 108),
        Corpus(
            synthetic.NAME,
            "Everyday English sentences read by the four voices of Flite",
            synthetic.PACKAGES,
            synthetic.recordings,
            synthetic.NUM_CLIPS,
        ),
        Corpus(
            synthetic.OPEN_NAME,
            "English sentences of open vocabulary read by the three clearest synthetic voices",
            synthetic.OPEN_PACKAGES,
            synthetic.open_recordings,
            synthetic.OPEN_NUM_CLIPS,
        ),
    )
}


def build_corpus(corpus: str | Corpus, output_dir: str | Path, *, audio_format: AudioFormat = "flac") -> Path:
    """Builds one corpus.

    The packages are fetched (or taken from the cache), checked, decoded to 16 kHz mono and split. The folder appears
    whole, or not at all.

    Args:
        corpus: name of one of `CORPORA`, or a corpus.
        output_dir: folder to create; it must not exist.
        audio_format: ``flac`` or ``wav`` (16 bit), or ``opus`` (24 kbit/s for speech, else 32).

    Returns:
        The manifest.

    Raises:
        ValueError: if the name or the format is unknown.
        FileExistsError: if ``output_dir`` exists.
        PackageError: if a package cannot be fetched.
        CorpusError: if the packages give another number of clips than they should, or a decoder is missing.
    """
    if isinstance(corpus, str):
        if corpus not in CORPORA:
            raise ValueError(f"there is no corpus {corpus!r}; available are {', '.join(CORPORA)}")
        corpus = CORPORA[corpus]
    if audio_format not in ("flac", "wav", "opus"):
        raise ValueError(f"audio_format={audio_format!r}: use flac, wav or opus")
    folder = Path(output_dir)
    with atomic_folder(folder, existing="refuse") as temporary:
        recordings = list_recordings(corpus)
        splits = assign_splits(recordings)
        clips = write_clips(recordings, splits, temporary, partial(_encode, audio_format=audio_format))
        save_manifest(clips, temporary / MANIFEST_NAME)
        write_attribution(clips, temporary / ATTRIBUTION_NAME, corpus.title)
    logger.info("%s: %d clips in %s", corpus.name, len(clips), folder)
    return folder / MANIFEST_NAME


def list_recordings(corpus: Corpus) -> list[Recording]:
    """What the packages of a corpus hold, checked against the number they should.

    Raises:
        CorpusError: if there are more or fewer.
    """
    recordings = corpus.recordings()
    if len(recordings) != corpus.num_clips:
        raise CorpusError(f"{corpus.name} gave {len(recordings)} clips, expected {corpus.num_clips}")
    return recordings


def write_clips(
    recordings: Sequence[Recording],
    splits: Mapping[str, Split],
    folder: Path,
    encode: Callable[[Tensor, ClipMetadata], tuple[bytes, str]],
) -> list[Clip]:
    """Decodes recordings and writes them as audio files.

    Args:
        recordings: what to write.
        splits: group → split.
        folder: existing folder; files go to ``<folder>/<id>.<suffix>``.
        encode: waveform and metadata → content and suffix of the file.

    Returns:
        One clip per recording; `duration_seconds` is that of the samples written.
    """
    clips = []
    for recording in tqdm(recordings, desc="decoding", unit="clip", disable=None):
        waveform = recording.load()
        metadata = recording.metadata
        content, suffix = encode(waveform, metadata)
        path = folder / f"{metadata.id}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        values = {item.name: getattr(metadata, item.name) for item in fields(ClipMetadata)}
        values["duration_seconds"] = round(len(waveform) / SAMPLE_RATE, 4)
        digest = hashlib.sha256(content).hexdigest()
        clips.append(Clip(**values, split=splits[metadata.group], audio=path, sha256=digest))
    return clips


def write_attribution(clips: Iterable[Clip], path: Path, title: str) -> None:
    """Writes who made what under which licence, one line per package, licence and author.

    Args:
        clips: the clips.
        path: the file to write.
        title: what the collection is.
    """
    lines: dict[str, dict[tuple[str, str], int]] = {}
    for clip in clips:
        package = clip.source.partition(":")[0]
        authors = lines.setdefault(package, {})
        authors[clip.licence, clip.attribution] = authors.get((clip.licence, clip.attribution), 0) + 1
    with atomic_write(path) as file:
        file.write(f"# Attribution\n\n{title}. Recordings were converted to 16 kHz mono; some are excerpts.\n")
        for package, authors in sorted(lines.items()):
            file.write(f"\n## {package}\n\n")
            for (licence, attribution), count in sorted(authors.items()):
                file.write(f"- {licence}: {attribution} ({count} {'clip' if count == 1 else 'clips'})\n")
        file.write("\n## Licences\n\n")
        for licence in single_licences(licence for authors in lines.values() for licence, _ in authors):
            file.write(f"- {licence}: {LICENCE_TEXTS[licence]}\n")


def single_licences(expressions: Iterable[str]) -> list[str]:
    """The licences in SPDX expressions such as ``MIT AND Apache-2.0``, sorted."""
    return sorted({licence for expression in expressions for licence in expression.split(" AND ")})


def _encode(waveform: Tensor, metadata: ClipMetadata, audio_format: AudioFormat) -> tuple[bytes, str]:
    if audio_format == "opus":
        return encode_opus(waveform, _OPUS_BITRATE_BPS[metadata.sound_type], metadata.id), "opus"
    file = io.BytesIO()
    # Clipped rather than wrapped: resampling may overshoot full scale by a little.
    soundfile.write(file, waveform.clamp(-1, 1).numpy(), SAMPLE_RATE, format=audio_format.upper(), subtype="PCM_16")
    return file.getvalue(), audio_format
