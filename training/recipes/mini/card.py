"""The model card of `mini`: what it is, what it was made of and by whom, how, and what it can do, with figures."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiollm.benchmarks.harness.page import render
from audiollm.data.corpora.build import LICENCE_TEXTS, single_licences
from audiollm.data.corpora.clips import Clip, load_manifest
from audiollm.data.files.atomic import atomic_write
from audiollm.data.records import SPLITS

from .data import CORPORA, HELD_OUT, OPEN_SPEECH, SHARED_OPEN_SPEECH
from .layout import MiniLayout
from .package import BYTE_BUDGET, folder_size
from .speaking import COPIED, DECODED, ORIGINAL, SPOKEN

NO_FIGURE = "–"
TASK_NAMES = {
    "kind": "speech, music or sound?",
    "sound": "class of the sound",
    "music": "mood, style and tempo of music (whole sentence)",
    "gender": "man or woman?",
    "accent": "accent",
    "describe": "description (whole sentence)",
    "choice": "questions with choices, true or false",
}
ANSWER_FIGURES = ("accuracy", "majority", "balanced_accuracy", "guessing")
SPEECH_SYSTEMS = {
    "original": "original recordings",
    "reconstructed": "recordings through codes and decoder",
    "spoken": "spoken by mini from the text",
}
VOICE_SYSTEMS = {
    ORIGINAL: "as the synthesizer reads them",
    COPIED: "through the vocoder",
    DECODED: "through codes and decoder",
    SPOKEN: "spoken by mini",
}
PARTS = {
    "audio tokenizer": "audio_tokenizer/model.safetensors",
    "waveform decoder": "audio_tokenizer/decoder/model.safetensors",
    "LM": "model.safetensors",
    "text tokenizer": "tokenizer.json",
}


def write_card(layout: MiniLayout, figures: Mapping[str, Any], step_seconds: Mapping[str, float]) -> None:
    """Writes ``README.md`` into the package.

    Args:
        layout: the run; what stands in its ``notes.md`` becomes part of the card.
        figures: what `audiollm.training.recipes.mini.evaluation.evaluate_mini` found.
        step_seconds: how long the steps of the run took.
    """
    corpora = {name: load_manifest(layout.corpus(name)) for name in CORPORA}
    licences = single_licences(clip.licence for clip in itertools.chain.from_iterable(corpora.values()))
    card = render(
        Path(__file__).with_name("card.md.jinja"),
        notes=layout.notes.read_text(encoding="utf-8").rstrip("\n") if layout.notes.exists() else "",
        sizes=_sizes(layout.package),
        judge=figures["judge"],
        transcripts=[
            [corpus, found["clips"], percent(found["wer"]), percent(found["judge_wer"])]
            for corpus, found in figures["transcribe"].items()
        ],
        answers=[
            [TASK_NAMES.get(task, task), found["clips"], *(percent(found[name]) for name in ANSWER_FIGURES)]
            for task, found in figures["questions"].items()
        ],
        speech=figures.get("speech"),
        speech_systems=SPEECH_SYSTEMS,
        speaking=figures.get("speaking"),
        voices=_voices(figures["speaking"]["voices"]) if "speaking" in figures else [],
        voice_systems=list(VOICE_SYSTEMS.values()),
        package=figures.get("package"),
        not_measured=figures.get("not_measured"),
        open_speech=OPEN_SPEECH,
        held_out=HELD_OUT,
        codes=figures["codes"],
        shared_open_speech=SHARED_OPEN_SPEECH,
        corpora=[_corpus(name, clips) for name, clips in corpora.items()],
        making=_making(step_seconds),
        authors_by_licence=_authors(itertools.chain.from_iterable(corpora.values())),
        licence_texts={licence: LICENCE_TEXTS[licence] for licence in licences},
        percent=percent,
    )
    with atomic_write(layout.package / "README.md") as file:
        file.write(card)


def _sizes(package: Path) -> list[list[str]]:
    rows = [
        [name, f"{(package / path).stat().st_size / 1e6:.2f} MB"]
        for name, path in PARTS.items()
        if (package / path).is_file()
    ]
    total = folder_size(package)
    return [*rows, ["all files", f"{total / 1e6:.2f} MB of {BYTE_BUDGET / 1e6:.0f} MB allowed"]]


def _voices(voices: Mapping[str, Any]) -> list[list[str]]:
    """A row for each voice: who was asked for, and the word error rates of all systems, the capped ones in brackets."""
    rows = []
    for name, found in voices.items():
        rates = (found["systems"].get(system) for system in VOICE_SYSTEMS)
        cells = (f"{percent(rate['wer'])} ({percent(rate['wer_capped'])})" if rate else NO_FIGURE for rate in rates)
        rows.append([name, found["asked"], *cells])
    return rows


def _corpus(name: str, clips: Sequence[Clip]) -> list[str]:
    splits = Counter(clip.split for clip in clips)
    minutes = sum(clip.duration_seconds for clip in clips) / 60
    licences = ", ".join(sorted({clip.licence for clip in clips}))
    return [name, " / ".join(str(splits[split]) for split in SPLITS), f"{minutes:.0f}", licences]


def _making(step_seconds: Mapping[str, float]) -> str:
    if not step_seconds:
        return ""
    hours = sum(step_seconds.values()) / 3600
    steps = ", ".join(f"{name} {seconds / 60:.0f} min" for name, seconds in step_seconds.items())
    return f"{hours:.1f} h in all: {steps}. An interrupted step counts from where it was taken up."


def _authors(clips: Iterable[Clip]) -> dict[str, dict[str, int]]:
    """Licence → author → number of clips, all in alphabetical order."""
    authors: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for clip in clips:
        authors[clip.licence][clip.attribution] += 1
    return {licence: dict(sorted(authors[licence].items())) for licence in sorted(authors)}


def percent(share: float | None) -> str:
    """A share in percent with one decimal."""
    return NO_FIGURE if share is None else f"{100 * share:.1f}"
