"""The data of the model `mini`: free recordings from packages, and sentences read by synthesizers.

Tokenizer and decoder learn from speech in five languages, sounds and music; the LM from the English of it, and from
more of the synthesizers' sentences of open vocabulary: what it says of texts that it was not trained on depends on
their number before all else. No training text shares four words in a row with the sentences that the model is measured
with.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from audiollm.data import corpora
from audiollm.data.corpora.build import build_corpus
from audiollm.data.corpora.clips import Clip, CorpusError, load_manifest
from audiollm.data.corpora.sources.synthetic import CLEAR_VOICES, open_recordings, plain_recordings
from audiollm.data.corpora.sources.synthetic import NAME as SPEECH
from audiollm.data.corpora.sources.synthetic import OPEN_NAME as OPEN_SPEECH
from audiollm.data.files.json_lines import read_json_lines, write_json_lines
from audiollm.data.labelling.by_rules import records_by_rules
from audiollm.data.records import SPLITS, RecordReport, Split
from audiollm.data.sampling import draw

from .held_out import held_out_sentences, is_held_out
from .layout import MiniLayout

LANGUAGE = "en"
CORPORA = ("asterisk", "opensfx", "sonic-pi", "immich-music", "asterisk-moh", SPEECH, OPEN_SPEECH)
HELD_OUT = "held-out-speech"
# Recordings are few beside synthetic speech; in an epoch of training each is seen so often. Prompts in other languages
# than English, of which there are enough, are seen once.
REPEATS = {"asterisk": 4, "opensfx": 6, "sonic-pi": 6, "immich-music": 2}
# Of the sentences of open vocabulary, one of so many is for tokenizer, decoder and LM, and the others for the LM alone.
SHARED_OPEN_SPEECH = 4
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
            corpus = corpora.CORPORA[name]
            if name == OPEN_SPEECH:
                corpus = replace(corpus, recordings=partial(open_recordings, leave_out=is_held_out))
            build_corpus(corpus, folder)


def held_out_clips(layout: MiniLayout) -> list[dict[str, Any]]:
    """Records of the held-out sentences, each read by all voices that mini speaks in; they are read on the first call.

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
        num_clips = len(texts) * len(CLEAR_VOICES)
        build_corpus(replace(corpora.CORPORA[SPEECH], name=HELD_OUT, recordings=read, num_clips=num_clips), folder)
    attributes = {clip.id: dict(clip.attributes) for clip in load_manifest(folder)}
    report = RecordReport()
    records = [record | {"attributes": attributes[record["id"]]} for record in records_by_rules(folder, report=report)]
    if len(records) < len(attributes):  # figures of a part of the sentences would be no figures of the list
        raise CorpusError(f"{folder} is unfit, remove it and try again: {report}")
    return records


def clips_of(layout: MiniLayout, split: Split) -> list[Clip]:
    """All clips of a split that tokenizer and decoder learn from, in all languages, neither too short nor too long;
    those of training say nothing of the held-out sentences."""
    return _clips_by_split(layout)[split]


def _clips_by_split(layout: MiniLayout) -> dict[Split, list[Clip]]:
    """The same for all splits; each manifest is read once."""
    found: dict[Split, list[Clip]] = {split: [] for split in SPLITS}
    for name in CORPORA:
        for clip in load_manifest(layout.corpus(name)):
            if _is_fitting(clip.duration_seconds, clip.text, clip.split) and (
                _corpus_of(clip.id) != OPEN_SPEECH or _is_shared(clip.id)
            ):
                found[clip.split].append(clip)
    return found


def _is_fitting(seconds: float, text: str | None, split: Split) -> bool:
    says_held_out = split == "train" and text is not None and is_held_out(text)
    return MIN_SECONDS <= seconds <= MAX_SECONDS and not says_held_out


def _is_shared(clip_id: str) -> bool:
    return draw("shared", clip_id, SHARED_OPEN_SPEECH) == 0


def write_tokenizer_data(layout: MiniLayout) -> dict[Split, Counter[str]]:
    """Writes the records that training/train_tokenizer.py reads, one file per split.

    Returns:
        Records per corpus, for every split; those of training are repeated, see `REPEATS`.
    """
    clips = _clips_by_split(layout)
    records: dict[Split, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for split, record in _tokenizer_records(layout, clips):
        records[split].append(record)
    counts = {}
    for split in SPLITS:
        write_json_lines(layout.tokenizer_data(split), records[split])
        counts[split] = Counter(_corpus_of(record["id"]) for record in records[split])
        logger.info("%s: %s", layout.tokenizer_data(split), dict(counts[split]))
    return counts


def write_more_speech(layout: MiniLayout) -> int:
    """Writes the records of the sentences that only the LM learns from; returns how many there are."""
    records = [
        record
        for record in _with_attributes(layout, OPEN_SPEECH, load_manifest(layout.corpus(OPEN_SPEECH)), "train")
        if not _is_shared(record["id"]) and _is_fitting(record["duration_seconds"], record["text"], "train")
    ]
    write_json_lines(layout.more_speech, records)
    return len(records)


def write_flow_data(layout: MiniLayout) -> int:
    """Writes the records that the flow model learns from, once there are codes; returns how many there are.

    Every recording once, and all sentences of the voices that mini speaks in: these are four fifths of it. With the
    tokenizer's repeated prompts and a quarter of the sentences nothing could be understood after 2,000 updates.
    """
    own = (record for record in read_json_lines(layout.codes("train")) if "#" not in record["id"])
    records = [*own, *read_json_lines(layout.more_codes)]
    write_json_lines(layout.flow_data, records)
    return len(records)


def write_vocoder_data(layout: MiniLayout) -> None:
    """Writes the records that a vocoder's training reads.

    A vocoder never looks at codes, but a record of train_decoder.py has some: as many zeros as there would be codes, so
    that the vocoder can be trained while there is no tokenizer yet.
    """
    for split, clips in _clips_by_split(layout).items():
        records = [
            {
                "id": clip.id,
                "audio": str(clip.audio),
                "text": clip.text or "",
                "codes": [0] * math.ceil(clip.duration_seconds * _FRAME_RATE),
            }
            for clip in clips
        ]
        write_json_lines(layout.vocoder_data(split), records)


def _tokenizer_records(
    layout: MiniLayout, clips: Mapping[Split, Sequence[Clip]]
) -> Iterator[tuple[Split, dict[str, Any]]]:
    """Records of clips with their split, in the order of the corpora."""
    known = {clip.id: clip for of_split in clips.values() for clip in of_split}
    for name in CORPORA:
        for record in _with_attributes(layout, name, known.values()):
            if record["id"] in known:
                split = known[record["id"]].split
                is_repeated = split == "train" and record.get("language") in (LANGUAGE, None)
                for number in range(REPEATS.get(name, 1) if is_repeated else 1):
                    yield split, record | ({"id": f"{record['id']}#{number + 1}"} if number else {})


def _with_attributes(
    layout: MiniLayout, name: str, clips: Iterable[Clip], split: Split | None = None
) -> Iterator[dict[str, Any]]:
    """Records of a corpus, or of a split of it, with the attributes that its clips have."""
    attributes = {clip.id: dict(clip.attributes) for clip in clips if clip.attributes}
    for record in records_by_rules(layout.corpus(name), split=split):
        own = attributes.get(record["id"])
        yield record | ({"attributes": own} if own else {})


def _corpus_of(record_id: str) -> str:
    return record_id.partition("/")[0]
