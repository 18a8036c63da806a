"""Instructions: what a user asks of a recording, in several wordings per task, each with an id and a hash.

Training varies the wording so that the model follows the request and not one string; scoring names the wording it used,
because wording moves scores.
"""

from __future__ import annotations

import re

from audiollm.data.prompts import TASK_ANSWERS, Prompt, numbered
from audiollm.data.sampling import draw
from audiollm.data.voices.instructions import SPEAK, SPEAK_IN_VOICE

__all__ = ["INSTRUCTIONS", "choose_prompt", "clip_instruction", "instruction", "prompt", "prompts"]

UNANSWERED_BY_CLIPS = ("speak", "speak_in_voice", "continue", "question")  # but by sound, or by more than a clip

# Task → its wordings. Runs record them by number, so new ones go to the end.
INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "transcribe": (
        "Transcribe the recording.",
        "Write down what is said.",
        "What does the speaker say? Give the exact words.",
        "Turn this speech into text.",
        "Please write out the spoken words in this audio.",
        "Listen and give a verbatim transcript.",
        "Convert the audio into written text, word for word.",
        "Type what you hear being said.",
    ),
    "translate": (
        "Translate what is said into English.",
        "What does the speaker say, in English?",
        "Give an English translation of this speech.",
        "Listen and write the meaning in English.",
        "Render the spoken words in English.",
    ),
    "language": (
        "Which language is spoken?",
        "Name the language of the speaker.",
        "What language do you hear?",
        "Identify the spoken language.",
        "In which language is this recording?",
    ),
    "describe": (
        "Describe the recording.",
        "What can be heard?",
        "Describe this audio in one or two sentences.",
        "Listen and say what is going on.",
        "Give a short caption for this sound.",
        "Summarise what you hear.",
    ),
    "sound": (
        "What sound is this?",
        "Name the sound.",
        "Which sound event do you hear?",
        "What makes this sound?",
        "Identify the sound in the recording.",
    ),
    "kind": (
        "Is this speech, music or another sound?",
        "Say whether you hear speech, music or a sound.",
        "What kind of audio is this: speech, music or sound?",
        "Classify the recording as speech, music or sound.",
    ),
    "instrument": (
        "Which instrument is played?",
        "Name the instrument.",
        "What instrument do you hear?",
        "Identify the instrument in the recording.",
    ),
    "music": (
        "Describe the music.",
        "What is the mood of this music?",
        "Say what style of music this is and how it feels.",
        "Describe tempo, mood and instruments of this piece.",
    ),
    "emotion": (
        "How does the speaker feel?",
        "Name the emotion in the voice.",
        "Which emotion do you hear?",
        "Describe the speaker's mood in one word.",
    ),
    "speaker": (
        "Describe the speaker's voice.",
        "What can you say about the person who speaks?",
        "Describe age, gender and manner of the voice.",
        "Who might be speaking? Describe the voice.",
    ),
    "speak": SPEAK,
    "speak_in_voice": SPEAK_IN_VOICE,
    "continue": (
        "Continue the recording.",
        "Go on from where the audio ends.",
        "What comes next? Continue the sound.",
    ),
    "question": (
        "{question}",
        "Answer the question about the recording. {question}",
        "Listen to the audio and answer: {question}",
        "{question} Answer briefly.",
    ),
}


def prompts(task: str) -> tuple[Prompt, ...]:
    """All wordings of a task; the first is the standard one.

    Raises:
        ValueError: if the task is not known.
    """
    if task not in INSTRUCTIONS:
        raise ValueError(f"task {task!r} has no instructions; use one of {', '.join(INSTRUCTIONS)}")
    return numbered(task, INSTRUCTIONS[task])


def prompt(prompt_id: str) -> Prompt:
    """The wording with an id such as ``transcribe/2``.

    Raises:
        ValueError: if there is none.
    """
    task, _, number = prompt_id.partition("/")
    wordings = prompts(task)
    if not number.isdecimal() or int(number) >= len(wordings):
        raise ValueError(f"prompt {prompt_id!r} does not exist; {task} has {task}/0 to {task}/{len(wordings) - 1}")
    return wordings[int(number)]


def choose_prompt(task: str, key: str) -> Prompt:
    """A wording that follows from ``key`` alone (such as a record's id): the same in every run, spread over all."""
    wordings = prompts(task)
    return wordings[draw(task, key, len(wordings))]


def clip_instruction(task: str, text_key: str | None) -> str:
    """What is asked about every clip of a corpus that is to teach a task, in the standard wording.

    Args:
        task: one of `INSTRUCTIONS` that a text answers.
        text_key: the key of the clips that holds the answer; needed where no fact of a clip is one.

    Raises:
        ValueError: if the task is not known or not answered by a text, or nothing says what the answer is.
    """
    if task in UNANSWERED_BY_CLIPS:
        raise ValueError(f"task {task!r} is not answered by a text of a clip; `audiollm speech-data` teaches to speak")
    asked = instruction(task)
    if text_key is None and task not in TASK_ANSWERS:
        raise ValueError(f"task {task!r}: name the key that holds the answers with --text-key")
    return asked


def instruction(task: str, key: str | None = None, *, question: str | None = None, voice: str | None = None) -> str:
    """The text of a request.

    Args:
        task: one of `INSTRUCTIONS`.
        key: chooses the wording, see `choose_prompt`; None: the standard one.
        question: what is asked, for the task "question" and only for it.
        voice: who speaks and how, in words, for the task "speak_in_voice" and only for it.

    Raises:
        ValueError: if the task is not known, or ``question`` or ``voice`` is missing or out of place.
    """
    text = (prompts(task)[0] if key is None else choose_prompt(task, key)).text
    fields = {"question": question, "voice": voice}
    for name, value in fields.items():
        if (f"{{{name}}}" in text) != (value is not None):
            raise ValueError(f"task {task!r} {'needs' if value is None else 'takes no'} {name}=")
    return re.sub(r"\{(question|voice)\}", lambda match: fields[match[1]] or "", text)
