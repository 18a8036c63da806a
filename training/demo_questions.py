"""Questions whose answers a clip's own labels give: the demo's training and test records."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from audiollm.data.corpora.manifest import Clip

LANGUAGES = {"en": "English", "es": "Spanish", "fr": "French", "it": "Italian", "ru": "Russian"}
INSTRUMENTS = {
    "bass_synth": "synthesizer",
    "drum_cymbal": "cymbal",
    "drum_kick": "kick drum",
    "drum_snare": "snare drum",
    "percussion": "percussion",
    "string_instr": "string instrument",
}
QUESTIONS = {
    "kind": (
        "What do you hear: speech, music, an instrument or a sound effect?",
        "Is this speech, music, an instrument or a sound effect?",
        "Which kind of recording is this: speech, music, an instrument or a sound effect?",
    ),
    "language": ("Which language is spoken?", "What language does the speaker use?", "Name the language you hear."),
    "instrument": ("Which instrument is played?", "What instrument is this?", "Name the instrument you hear."),
}


def answers_of(clip: Clip) -> dict[str, str]:
    """What the clip's labels answer: task name → answer; only tasks that apply to the clip."""
    if clip.task == "speech":
        return {"kind": "speech", "language": LANGUAGES[clip.language or ""]}
    if clip.task == "music":
        return {"kind": "music"}
    if clip.label in INSTRUMENTS:
        return {"kind": "instrument", "instrument": INSTRUMENTS[clip.label]}
    return {"kind": "sound effect"}


def records_of(clips: Iterable[Clip]) -> list[dict[str, Any]]:
    """Conversation records, one per clip and task; a hash of the id chooses among a question's wordings."""
    records = []
    for clip in clips:
        for task, answer in answers_of(clip).items():
            record_id = f"{clip.id}/{task}"
            question = QUESTIONS[task][hashlib.sha256(record_id.encode()).digest()[0] % len(QUESTIONS[task])]
            records.append(
                {
                    "id": record_id,
                    "task": task,
                    "messages": [
                        {
                            "role": "user",
                            "content": [{"type": "audio", "path": str(clip.audio)}, {"type": "text", "text": question}],
                        },
                        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
                    ],
                }
            )
    return records


def answer_text(record: dict[str, Any]) -> str:
    return record["messages"][-1]["content"][0]["text"]


def score_table(
    train: Sequence[dict[str, Any]], held_out: Sequence[dict[str, Any]], accuracy_by_task: dict[str, float]
) -> list[dict[str, Any]]:
    """Sets measured accuracies beside what one gets without listening.

    Returns:
        One row per task: the number of held-out questions, the accuracy, the accuracy of always giving the commonest
        training answer, and of guessing uniformly among the training answers; all in percent.
    """
    rows = []
    for task in sorted({record["task"] for record in held_out}):
        answers = Counter(answer_text(record) for record in train if record["task"] == task)
        truths = [answer_text(record) for record in held_out if record["task"] == task]
        commonest = answers.most_common(1)[0][0]
        rows.append(
            {
                "task": task,
                "questions": len(truths),
                "accuracy %": round(100 * accuracy_by_task[task], 1),
                "majority %": round(100 * truths.count(commonest) / len(truths), 1),
                "random %": round(100 / len(answers), 1),
            }
        )
    return rows
