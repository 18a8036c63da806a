"""The model card of `mini`: what it is, what it was made of and by whom, how, and what it can do, with figures."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiollm.data.corpora.build import LICENCE_TEXTS
from audiollm.data.corpora.clips import Clip, load_manifest
from audiollm.data.files.atomic import atomic_write

from .data import CORPORA, MORE_SPEECH
from .layout import MiniLayout
from .package import BYTE_BUDGET, folder_size

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
PARTS = {
    "audio tokenizer": "audio_tokenizer/model.safetensors",
    "waveform decoder": "audio_tokenizer/decoder/model.safetensors",
    "LM": "model.safetensors",
    "text tokenizer": "tokenizer.json",
}

_HEAD = """---
license: cc-by-sa-3.0
language: en
library_name: audiollm
tags: [audio-llm, audio-tokenizer, speech]
---

# mini

The default model of audiollm: an Audio-LLM with the full architecture at the smallest useful size, so that every
command works offline. It transcribes English speech, describes sounds and music, answers simple questions about a
recording and speaks short English sentences. **It is for trying things out and for tests, not for work.**

```python
from audiollm import AudioLLM

model = AudioLLM.from_pretrained()          # or from_pretrained("mini")
print(model.ask("recording.wav", "Transcribe the recording."))
```
"""

_LICENCE = """## Licence

The weights are offered under CC-BY-SA-3.0 (https://creativecommons.org/licenses/by-sa/3.0/), the licence of those
recordings among their training data that ask for the same. The tokenizer's encoder starts from Whisper tiny.en
(© OpenAI, MIT licence). Everyone whose work went into it:
"""

_LIMITS = """## Limits

- English only. The speech it learned from is one telephone voice and four synthetic voices that read a small grammar of
  everyday sentences: it knows few words, and other voices, rooms, noise and topics are beyond it.
- Sounds are short single events of a few dozen classes with few examples each; music is described by mood and tempo at
  best, much of it from machine-made examples.
- Figures on `flite-speech` are for sentences of the grammar that were not trained on, in voices that were: they say
  nothing about other speech. Those on `asterisk` are for prompts that were not trained on, of a voice that was.
- It makes things up rather than say that it does not know. It has no sense of time, of several speakers, or of long
  audio.
- What it speaks is recognisably synthetic, and often cannot be understood: see the word error rates above, which may be
  above 100 % where the recognizer hears words that are not there.
"""


def write_card(layout: MiniLayout, figures: Mapping[str, Any], step_seconds: Mapping[str, float]) -> None:
    """Writes ``README.md`` into the package.

    Args:
        layout: the run; what stands in its ``notes.md`` becomes part of the card.
        figures: what `audiollm.training.recipes.mini.evaluation.evaluate_mini` found.
        step_seconds: how long the steps of the run took.
    """
    corpora = {name: load_manifest(layout.corpus(name)) for name in (*CORPORA, MORE_SPEECH)}
    sections = [
        _HEAD,
        layout.notes.read_text(encoding="utf-8") if layout.notes.exists() else "",
        _sizes(layout.package),
        "## What it can do, on held-out clips\n",
        _listening(figures["transcribe"], figures["judge"]),
        _answering(figures["questions"]),
        _speaking(figures.get("speech"), figures["judge"]),
        _codes(figures["codes"]),
        _data(corpora),
        _making(step_seconds),
        _LIMITS,
        _LICENCE,
        _attributions(itertools.chain.from_iterable(corpora.values())),
    ]
    with atomic_write(layout.package / "README.md") as file:
        file.write("\n".join(section.rstrip("\n") + "\n" for section in sections if section))


def _sizes(package: Path) -> str:
    rows = [
        [name, f"{(package / path).stat().st_size / 1e6:.2f} MB"]
        for name, path in PARTS.items()
        if (package / path).is_file()
    ]
    total = folder_size(package)
    rows.append(["all files", f"{total / 1e6:.2f} MB of {BYTE_BUDGET / 1e6:.0f} MB allowed"])
    return "Weights are stored in float16 and computed with in float32.\n\n" + table(["part", "size"], rows)


def _listening(transcripts: Mapping[str, Any], judge: str) -> str:
    rows = [
        [corpus, str(found["clips"]), percent(found["wer"]), percent(found["judge_wer"])]
        for corpus, found in transcripts.items()
    ]
    text = "**Transcribing**, word error rate (%, lower is better), beside a recognizer of 38 M parameters:\n\n"
    return text + table(["test clips of", "clips", "mini", judge], rows)


def _answering(questions: Mapping[str, Any]) -> str:
    rows = [
        [
            TASK_NAMES.get(task, task),
            str(found["clips"]),
            percent(found["accuracy"]),
            percent(found["majority"]),
            percent(found["balanced_accuracy"]),
            percent(found["guessing"]),
        ]
        for task, found in questions.items()
    ]
    text = (
        "**Answering**, exact answers in %. *Commonest*: always giving the commonest answer of the training clips. "
        "*Balanced*: the mean over the true answers, which no constant answer lifts above *guessing*'s level:\n\n"
    )
    return text + table(["question", "clips", "mini", "commonest", "balanced", "guessing"], rows)


def _speaking(speech: Mapping[str, Any] | None, judge: str) -> str:
    if speech is None:
        return ""
    rows = [
        [name, percent(speech["wer"][key])]
        for key, name in (
            ("original", "original recordings"),
            ("reconstructed", "recordings through codes and decoder"),
            ("spoken", "spoken by mini from the text"),
        )
    ]
    text = f"**Speaking**, word error rate (%) of what {judge} hears, {speech['clips']} sentences:\n\n"
    ended = f"\n{percent(speech['ended_by_itself'])} % of the spoken sentences ended by themselves within the limit.\n"
    return text + table(["", "WER"], rows) + ended


def _codes(codes: Mapping[str, Any]) -> str:
    return (
        f"**Codes**: {codes['different']:,} of {codes['codebook_size']:,} entries occur among the {codes['total']:,} "
        "codes of the test clips.\n"
    )


def _data(corpora: Mapping[str, Sequence[Clip]]) -> str:
    rows = []
    for name, clips in corpora.items():
        splits = Counter(clip.split for clip in clips)
        minutes = sum(clip.duration_seconds for clip in clips) / 60
        licences = ", ".join(sorted({clip.licence for clip in clips}))
        counts = " / ".join(str(splits[split]) for split in ("train", "dev", "test"))
        rows.append([name, counts, f"{minutes:.0f}", licences])
    text = (
        "## Data\n\nRecordings that package registries carry under free licences, and sentences read by a free "
        "synthesizer; `docs/corpora.md` describes them. Of `asterisk`, tokenizer and LM learned from the English "
        "prompts only, the vocoder from all languages. Only the LM learned from the training clips of "
        f"`{MORE_SPEECH}`, to transcribe and to speak. Splits are by prompt, sentence, original sound and track.\n\n"
    )
    return text + table(["corpus", "clips: train / dev / test", "minutes", "licence"], rows)


def _making(step_seconds: Mapping[str, float]) -> str:
    hours = sum(step_seconds.values()) / 3600
    steps = ", ".join(f"{name} {seconds / 60:.0f} min" for name, seconds in step_seconds.items())
    text = "## How it was made\n\n```sh\nmake mini          # python training/mini.py --output runs/mini\n```\n\n"
    if not step_seconds:
        return text
    return text + f"{hours:.1f} h in all: {steps}. An interrupted step counts from where it was taken up.\n"


def _attributions(clips: Iterable[Clip]) -> str:
    authors: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for clip in clips:
        authors[clip.licence][clip.attribution] += 1
    lines = []
    for licence in sorted(authors):
        lines.append(f"\n{licence}:\n")
        lines += [f"- {name} ({count} clip{'s' * (count > 1)})" for name, count in sorted(authors[licence].items())]
    lines.append("\nThe licences:\n")
    lines += [f"- {licence}: {LICENCE_TEXTS[licence]}" for licence in sorted(authors)]
    return "\n".join(lines) + "\n"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [list(headings), ["---"] * len(headings), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def percent(share: float | None) -> str:
    """A share in percent with one decimal."""
    return NO_FIGURE if share is None else f"{100 * share:.1f}"
