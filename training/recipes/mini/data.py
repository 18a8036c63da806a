"""The data of the model `mini`: free recordings from packages, and sentences read by a synthesizer.

Tokenizer and LM learn from English speech, sounds and music; the vocoder, which knows no words, from all languages. The
LM gets more of the synthesizer's sentences, most of them of open vocabulary: what it says of texts that it was not
trained on depends on their number before all else. No training text shares four words in a row with the sentences that
the model is measured with.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from audiollm.data import corpora
from audiollm.data.corpora.build import build_corpus
from audiollm.data.corpora.clips import Clip, CorpusError, load_manifest
from audiollm.data.corpora.sources.synthetic import NAME as SPEECH
from audiollm.data.corpora.sources.synthetic import OPEN_NAME as OPEN_SPEECH
from audiollm.data.corpora.sources.synthetic import VOICES, open_recordings, plain_recordings, recordings
from audiollm.data.files.json_lines import write_json_lines
from audiollm.data.labelling.by_rules import records_by_rules
from audiollm.data.records import SPLITS, RecordReport, Split

from .held_out import held_out_sentences, is_held_out
from .layout import MiniLayout

LANGUAGE = "en"
CORPORA = ("asterisk", "opensfx", "sonic-pi", "immich-music", "asterisk-moh", "flite-speech")
# Recordings are few beside synthetic speech; in an epoch of training each is seen so often.
# Another seed gives other sentences.
MORE_SPEECH, MORE_SPEECH_CLIPS, MORE_SPEECH_SEED = "flite-speech-more", 8000, 1
HELD_OUT = "flite-held-out"
REPEATS = {"asterisk": 3, "opensfx": 6, "sonic-pi": 6, "immich-music": 2, "asterisk-moh": 1, "flite-speech": 1}
# Clips of no corpus are longer than 30 s; the shortest are clicks that make less than five codes.
MIN_SECONDS, MAX_SECONDS = 0.2, 30.0
_FRAME_RATE = 25.0

logger = logging.getLogger(__name__)


def build_corpora(layout: MiniLayout) -> None:
    """Builds the corpora that are not there yet.

    Raises:
        PackageError: if a package cannot be fetched.
        CorpusError: if a package is not what it should be.
    """
    for name in CORPORA:
        folder = layout.corpus(name)
        if not (folder / "manifest.jsonl").exists():
            build_corpus(name, folder)
    if not (layout.corpus(MORE_SPEECH) / "manifest.jsonl").exists():
        read = partial(recordings, MORE_SPEECH_CLIPS, seed=MORE_SPEECH_SEED)
        more = replace(corpora.CORPORA[SPEECH], recordings=read, num_clips=MORE_SPEECH_CLIPS)
        build_corpus(more, layout.corpus(MORE_SPEECH))
    if not (layout.corpus(OPEN_SPEECH) / "manifest.jsonl").exists():
        read = partial(open_recordings, leave_out=is_held_out)
        build_corpus(replace(corpora.CORPORA[OPEN_SPEECH], recordings=read), layout.corpus(OPEN_SPEECH))


def held_out_clips(layout: MiniLayout) -> list[dict[str, Any]]:
    """Records of the held-out sentences, each read by every voice of the synthesizer; they are read on the first call.

    Returns:
        Records like those that the tokenizer is trained with, in the order of the sentences.

    Raises:
        PackageError: if a package of the synthesizer cannot be fetched.
        CorpusError: if this machine cannot run it.
    """
    folder = layout.corpus(HELD_OUT)
    if not (folder / "manifest.jsonl").exists():
        texts = held_out_sentences()
        read = partial(plain_recordings, texts, HELD_OUT)
        num_clips = len(texts) * len(VOICES)
        build_corpus(replace(corpora.CORPORA[SPEECH], name=HELD_OUT, recordings=read, num_clips=num_clips), folder)
    attributes = {clip.id: dict(clip.attributes) for clip in load_manifest(folder)}
    report = RecordReport()
    records = [record | {"attributes": attributes[record["id"]]} for record in records_by_rules(folder, report=report)]
    if len(records) < len(attributes):  # figures of a part of the sentences would be no figures of the list
        raise CorpusError(f"{folder} is unfit, remove it and try again: {report}")
    return records


def clips_of(layout: MiniLayout, split: Split) -> list[Clip]:
    """All clips of a split, in all languages, that are neither too short nor too long; those of training say nothing of
    the held-out sentences."""
    clips = [clip for name in CORPORA for clip in load_manifest(layout.corpus(name)) if clip.split == split]
    return [
        clip
        for clip in clips
        if MIN_SECONDS <= clip.duration_seconds <= MAX_SECONDS
        and not (split == "train" and clip.text is not None and is_held_out(clip.text))
    ]


def write_tokenizer_data(layout: MiniLayout) -> dict[Split, Counter[str]]:
    """Writes the records that training/train_tokenizer.py reads, one file per split.

    Returns:
        Records per corpus, for every split; those of training are repeated, see `REPEATS`.
    """
    counts = {}
    for split in SPLITS:
        records = list(_tokenizer_records(layout, split))
        write_json_lines(layout.tokenizer_data(split), records)
        counts[split] = Counter(_corpus_of(record["id"]) for record in records)
        logger.info("%s: %s", layout.tokenizer_data(split), dict(counts[split]))
    return counts


def write_more_speech(layout: MiniLayout) -> dict[str, int]:
    """Writes the records of the sentences that only the LM learns from; none of them is read in `SPEECH` too.

    Returns:
        How many there are, by corpus.
    """
    known = {clip.text for clip in load_manifest(layout.corpus(SPEECH))}
    records = {
        MORE_SPEECH: list(_more_records(layout, MORE_SPEECH, known)),
        OPEN_SPEECH: list(_more_records(layout, OPEN_SPEECH, known)),
    }
    write_json_lines(layout.more_speech, [record for found in records.values() for record in found])
    return {name: len(found) for name, found in records.items()}


def _more_records(layout: MiniLayout, name: str, known: set[str | None]) -> Iterator[dict[str, Any]]:
    clips = {clip.id: clip for clip in load_manifest(layout.corpus(name)) if clip.text not in known}
    for record in records_by_rules(layout.corpus(name), split="train"):
        is_fitting = record["id"] in clips and MIN_SECONDS <= record["duration_seconds"] <= MAX_SECONDS
        if is_fitting and not is_held_out(record["text"]):
            # Sentences of another seed have the ids that those of the first one have.
            own_id = record["id"] if name == OPEN_SPEECH else record["id"].replace(SPEECH, name, 1)
            yield record | {"id": own_id, "attributes": dict(clips[record["id"]].attributes)}


def write_vocoder_data(layout: MiniLayout) -> None:
    """Writes the records that a vocoder's training reads.

    A vocoder never looks at codes, but a record of train_decoder.py has some: as many zeros as there would be codes, so
    that the vocoder can be trained while there is no tokenizer yet.
    """
    for split in SPLITS:
        records = [
            {
                "id": clip.id,
                "audio": str(clip.audio),
                "text": clip.text or "",
                "codes": [0] * math.ceil(clip.duration_seconds * _FRAME_RATE),
            }
            for clip in clips_of(layout, split)
        ]
        write_json_lines(layout.vocoder_data(split), records)


def _tokenizer_records(layout: MiniLayout, split: Split) -> Iterator[dict[str, Any]]:
    clips = {clip.id: clip for clip in clips_of(layout, split) if clip.language in (LANGUAGE, None)}
    for name in CORPORA:
        for record in records_by_rules(layout.corpus(name), split=split):
            clip = clips.get(record["id"])
            if clip is None:
                continue
            if clip.attributes:
                record = record | {"attributes": dict(clip.attributes)}
            for number in range(REPEATS[name] if split == "train" else 1):
                yield record | ({"id": f"{record['id']}#{number + 1}"} if number else {})


def _corpus_of(record_id: str) -> str:
    return record_id.partition("/")[0]
