"""What a real LLM is taught to hear: recordings from packages as questions whose answers their labels give.

English speech is transcribed; of speech in five languages the language is asked, of all recordings whether they are
speech, music or another sound, and of sounds what they are. Recordings of English in packages are few, so that the
transcripts of synthetic sentences are learned beside theirs; the two are scored apart.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from audiollm.data.corpora.build import CORPORA, build_corpus
from audiollm.data.corpora.clips import Clip, load_manifest
from audiollm.data.corpora.sample_corpus import load_sample_corpus
from audiollm.data.corpora.sources.sentences import grammar_sentences
from audiollm.data.corpora.sources.synthetic import OPEN_NAME as SYNTHETIC
from audiollm.data.corpora.sources.synthetic import open_recordings
from audiollm.data.corpora.sources.wordnet import wordnet_examples
from audiollm.data.files.atomic import atomic_write
from audiollm.data.files.json_document import write_json
from audiollm.data.files.json_lines import read_json_lines, write_json_lines
from audiollm.data.records import RecordReport
from audiollm.data.sampling import draw, spread
from audiollm.prompts import instruction
from audiollm.training.recipes.demo.questions import answer_text, records_of

from .layout import RealLayout

RECORDED = ("asterisk", "game-sounds", "opensfx", "sonic-pi", "immich-music", "asterisk-moh")
TRANSCRIBE = "transcribe"
# The shortest clips are clicks; longer ones than these would make the passes of all others longer.
MIN_SECONDS, MAX_SECONDS = 0.2, 12.0
# So often is each recording's transcript learned in an epoch, in other words of the request each time.
TRANSCRIPTS_OF_RECORDED = 4
# Of questions with few answers each answer gets so many records at most, or they would crowd out the transcripts.
TRAINED_PER_ANSWER, HELD_OUT_PER_ANSWER = 150, 40
HELD_OUT_TRANSCRIPTS = 120
NUM_TEXTS, MIN_TEXT_WORDS = 300, 8
_TEXTS_LEFT_OUT = 25  # one example of the dictionary in so many is never read aloud
SMALL = {"per_answer": 4, "transcripts": 6, "texts": 12}

Item = TypeVar("Item")


def build_corpora(layout: RealLayout, num_synthetic: int) -> None:
    """Builds the corpora that are not there yet.

    Args:
        layout: the run.
        num_synthetic: synthetic sentences; 0: none.

    Raises:
        PackageError: if a package cannot be fetched.
        CorpusError: if a package is not what it should be, or the synthesizers do not run here.
    """
    corpora = [CORPORA[name] for name in RECORDED]
    if num_synthetic:
        recordings = partial(open_recordings, num_synthetic, leave_out=_is_held_out_text)
        corpora.append(replace(CORPORA[SYNTHETIC], recordings=recordings, num_clips=num_synthetic))
    for corpus in corpora:
        if not (layout.corpus(corpus.name) / "manifest.jsonl").exists():
            build_corpus(corpus, layout.corpus(corpus.name))


def load_clips(layout: RealLayout, num_synthetic: int, small: bool) -> tuple[list[Clip], RecordReport]:
    """The clips that can be used, in a fixed order, and which were left out.

    Args:
        layout: the run, its corpora built; in a small one the sample that ships takes their place.
        num_synthetic: synthetic sentences; 0: none.
        small: whether it is small.
    """
    if small:
        return usable_clips(load_sample_corpus())
    names = (*RECORDED, *((SYNTHETIC,) if num_synthetic else ()))
    return usable_clips(clip for name in names for clip in load_manifest(layout.corpus(name)))


def usable_clips(clips: Iterable[Clip]) -> tuple[list[Clip], RecordReport]:
    """Leaves out clips that are too short or too long, or whose text says more than is heard, and training clips that
    say what a held-out one says, in whatever language and corpus.

    Returns:
        The others, and a count of both.
    """
    clips = list(clips)
    held_out = {spoken_words(clip.text) for clip in clips if clip.text and clip.split != "train"}
    report, kept = RecordReport(), []
    for clip in clips:
        if not MIN_SECONDS <= clip.duration_seconds <= MAX_SECONDS:
            report.leave_out(f"shorter than {MIN_SECONDS} s or longer than {MAX_SECONDS:g} s", clip.id)
        elif clip.text and re.search(r"[()\[\]<>]", clip.text):
            report.leave_out("its text has remarks in brackets", clip.id)
        elif clip.text and clip.split == "train" and spoken_words(clip.text) in held_out:
            report.leave_out("it is trained on and says what a held-out clip says", clip.id)
        else:
            report.records[f"{corpus_of(clip.id)} {clip.split}"] += 1
            kept.append(clip)
    return kept, report


def spoken_words(text: str) -> str:
    """A text without case and marks: two clips of the same one are never on both sides."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def corpus_of(record_id: str) -> str:
    """The corpus that the id of a clip or a record begins with."""
    return record_id.partition("/")[0]


def codes_of(layout: RealLayout) -> dict[str, list[int]]:
    """Path of the recording → its codes."""
    return {line["audio"]: line["codes"] for line in read_json_lines(layout.codes)}


def write_records(layout: RealLayout, clips: Sequence[Clip], *, small: bool) -> dict[str, Any]:
    """Writes the conversations of both sides, and the facts about them.

    Args:
        layout: the run, with codes.
        clips: all usable ones.
        small: fewer held-out records.

    Returns:
        The facts: clips, minutes and records by task of each side.
    """
    codes = codes_of(layout)
    sides = {
        "train": [clip for clip in clips if clip.split == "train"],
        "held_out": [clip for clip in clips if clip.split != "train"],
    }
    per_answer = SMALL["per_answer"] if small else HELD_OUT_PER_ANSWER
    transcripts = SMALL["transcripts"] if small else HELD_OUT_TRANSCRIPTS
    records = {
        "train": [*questions_about(sides["train"], codes, TRAINED_PER_ANSWER), *all_transcripts(sides["train"], codes)],
        "held_out": [
            *questions_about(sides["held_out"], codes, per_answer),
            *of_each(all_transcripts(sides["held_out"], codes, 1), lambda record: corpus_of(record["id"]), transcripts),
        ],
    }
    made_by = {"audio_tokenizer": next(read_json_lines(layout.codes))["audio_tokenizer"]}  # one for all of them
    write_json_lines(layout.train, (record | made_by for record in records["train"]))
    write_json_lines(layout.held_out, (record | made_by for record in records["held_out"]))
    facts = {
        side: {
            "clips": len(own),
            "minutes": round(sum(clip.duration_seconds for clip in own) / 60, 1),
            "clips_by_corpus": dict(Counter(corpus_of(clip.id) for clip in own)),
            "records_by_task": dict(Counter(record["task"] for record in records[side])),
        }
        for side, own in sides.items()
    }
    write_json(layout.data_facts, facts)
    return facts


def questions_about(clips: Sequence[Clip], codes: Mapping[str, list[int]], per_answer: int) -> list[dict[str, Any]]:
    """Questions with short answers about recordings, of each answer to each question so many at most.

    Synthetic speech is not asked about: it would be told apart by how it is made.
    """
    records = records_of([clip for clip in clips if corpus_of(clip.id) != SYNTHETIC], codes)
    return of_each(records, lambda record: (record["task"], answer_text(record)), per_answer)


def all_transcripts(
    clips: Sequence[Clip], codes: Mapping[str, list[int]], of_recorded: int = TRANSCRIPTS_OF_RECORDED
) -> list[dict[str, Any]]:
    """The transcript of every clip of English speech, of recordings so often."""
    records = []
    for clip in clips:
        if clip.sound_type != "speech" or clip.language != "en":
            continue
        for number in range(1 if corpus_of(clip.id) == SYNTHETIC else of_recorded):
            record_id = f"{clip.id}/{TRANSCRIBE}" + (f"#{number + 1}" if number else "")
            request = {"type": "text", "text": instruction(TRANSCRIBE, record_id)}
            question = [{"type": "audio", "codes": codes[str(clip.audio)]}, request]
            answer = " ".join((clip.text or "").split())
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            records.append({"id": record_id, "task": TRANSCRIBE, "messages": messages})
    return records


def of_each(items: Sequence[Item], key: Callable[[Item], Any], count: int) -> list[Item]:
    """At most so many items of each key, evenly spread over those that have it, in the order of the keys."""
    by_key: defaultdict[Any, list[Item]] = defaultdict(list)
    for item in items:
        by_key[key(item)].append(item)
    return [item for group in by_key.values() for item in spread(group, count)]


def write_texts(layout: RealLayout, *, small: bool) -> int:
    """Writes texts that no training clip says, to measure perplexity on.

    They are examples of use from WordNet, of eight words or more; in a small run, which needs no package, sentences of
    the project's own grammar.

    Returns:
        How many.

    Raises:
        PackageError: if WordNet's package cannot be fetched.
    """
    if small:
        texts = grammar_sentences(SMALL["texts"])
    else:
        texts = [text for text in wordnet_examples() if _is_held_out_text(text) and len(text.split()) >= MIN_TEXT_WORDS]
        texts = spread(texts, NUM_TEXTS)
    layout.texts.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(layout.texts) as file:
        file.writelines(f"{text}\n" for text in texts)
    return len(texts)


def _is_held_out_text(text: str) -> bool:
    return draw("held-out text", spoken_words(text), _TEXTS_LEFT_OUT) == 0
