"""Questions whose answers a clip's own labels give: the demo's training and test records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from audiollm.data.corpora.clips import Clip
from audiollm.prompts import instruction

LANGUAGES = {"en": "English", "es": "Spanish", "fr": "French", "it": "Italian", "ru": "Russian"}


def answers_of(clip: Clip) -> dict[str, str]:
    """What the clip's labels answer: task of `audiollm.prompts` → answer; only tasks that apply to the clip."""
    if clip.sound_type == "speech":
        return {"kind": "speech", "language": LANGUAGES[clip.language or ""]}
    if clip.sound_type == "music":
        return {"kind": "music"}
    return {"kind": "sound", "sound": (clip.label or "").replace("_", " ")}


def records_of(clips: Iterable[Clip], codes: Mapping[str, list[int]]) -> list[dict[str, Any]]:
    """Conversation records, one per clip and task; the id chooses among a question's wordings.

    Args:
        clips: the recordings.
        codes: audio path → what the audio tokenizer made of it.
    """
    records = []
    for clip in clips:
        audio = {"type": "audio", "codes": codes[str(clip.audio)]}
        for task, answer in answers_of(clip).items():
            record_id = f"{clip.id}/{task}"
            question = [audio, {"type": "text", "text": instruction(task, record_id)}]
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            records.append({"id": record_id, "task": task, "messages": messages})
    return records


def answer_text(record: dict[str, Any]) -> str:
    return record["messages"][-1]["content"]


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
