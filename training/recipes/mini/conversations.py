"""Conversations that mini's LM learns from: requests about recordings that their labels answer, and texts to speak.

A clip with codes becomes a few conversations. Speech is transcribed and spoken again; of the other questions each clip
gets few, drawn by its id, so that short answers do not crowd out the long ones that are hard to learn. What is spoken
is also written: each word stands before the codes that say it, so that a small model needs not find its place in the
text.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiollm.data.corpora.sources.synthetic import CLEAR_VOICES
from audiollm.data.files.json_lines import read_json_lines, write_json_lines
from audiollm.data.sampling import choose, draw
from audiollm.data.sap.parsing import parse_sap
from audiollm.data.sap.questions import (
    QUESTION_KINDS,
    Question,
    QuestionKind,
    Vocabulary,
    collect_vocabulary,
    questions,
)
from audiollm.data.sap.record import SapRecord
from audiollm.data.sap.sounds import sound_classes
from audiollm.data.voices.attributes import VocalAttributes
from audiollm.data.voices.speech_records import TASK as SPEAK
from audiollm.data.voices.speech_records import SpeechTaskSettings, speech_records
from audiollm.prompts import instruction

from .alignment import SpokenCodes, WordAligner, turns
from .data import LANGUAGE

# Wordings are only ever appended, as all wordings are.
GENDER_QUESTIONS = (
    "Is the speaker a man or a woman?",
    "Do you hear a man or a woman?",
    "Who is speaking, a woman or a man?",
    "Is this a male or a female voice?",
)
ACCENT_QUESTIONS = (
    "Which accent does the speaker have?",
    "What accent do you hear?",
    "Name the speaker's accent.",
)
GENDER_ANSWERS = {"female": "A woman.", "male": "A man."}
_SPEED_WORDS = {"slow": " slowly", "fast": " quickly"}
_PITCH_WORDS = {"low": " in a low voice", "high": " in a high voice"}
DRAWN_QUESTIONS = 1  # of those about a clip of speech, beside its transcripts
# So often is each clip's transcript asked for, and each text to be spoken, in other words: they are the hardest.
NUM_TRANSCRIPTS = NUM_SPOKEN = 2
# So often is a clip of these asked about, in other words: when one of 18 questions of what kind a clip is was about
# music, mini took the music that it had not heard for sounds. Each time but the first it hears a piece: all music of
# the corpora is 10 s long and hardly a sound is, so that the length would be all that it listens to.
NUM_ASKED: Mapping[str, int] = {"sound": 2, "music": 8}
SHORTEST_PIECE = 25  # codes, 1 s
# Of what SAP records answer, left out: transcripts are asked for anyway, and all speakers are adults.
SAP_FIELDS_LEFT_OUT = ("linguistic_content", "age")

# Who speaks: for one description there is one voice.
SPEAKERS = frozenset(voice.speaker for voice in CLEAR_VOICES)
# Speech is never shorter than a word nor longer than a breath or two: longer texts are beyond a model of this size.
MAX_SPOKEN_SECONDS = 10.0


logger = logging.getLogger(__name__)


def make_aligner(sources: Sequence[Path], codebook_size: int) -> WordAligner:
    """Learns which codes say which word, from all that the clear voices say.

    Args:
        sources: clips with codes.
        codebook_size: of the tokenizer that made them.
    """
    clips = [clip for source in sources for clip in read_json_lines(source)]
    return WordAligner([SpokenCodes(clip["text"], clip["codes"]) for clip in _to_speak(clips)], codebook_size)


def write_conversations(
    source: Path,
    output: Path,
    aligner: WordAligner,
    *,
    drawn_questions: int | None = DRAWN_QUESTIONS,
    num_asked: Mapping[str, int] | None = None,
    num_spoken: int = 1,
    more_speech: Path | None = None,
) -> int:
    """Writes the conversations about clips, and those that ask for speech.

    Args:
        source: clips with codes, as `audiollm.data.tokenizing.corpus.tokenize_corpus` writes them; speech in other
            languages than English is left out.
        output: JSONL.
        aligner: finds the words in the codes.
        drawn_questions: how many of the questions about speech each clip gets, while its SAP record is asked about in
            one of two; None: all, each once, for held-out data.
        num_asked: kind of sound → so often is each clip of it asked about; once if it is not named. Not for speech.
        num_spoken: so often is each text to be spoken asked for.
        more_speech: further clips of speech, each of which is only transcribed and spoken.

    Returns:
        How many conversations there are.
    """
    clips = [clip for clip in read_json_lines(source) if is_for_lm(clip)]
    more = [] if more_speech is None else list(read_json_lines(more_speech))
    vocabulary = collect_vocabulary(parse_sap(clip["sap"]) for clip in clips)
    asked = num_asked or {}
    records = [
        record for clip in clips for record in questions_about(clip, drawn_questions, asked.get(clip["sound_type"], 1))
    ]
    records += [
        _record(clip, "question", question.text, question.answer)
        for clip in clips
        if drawn_questions is None or clip["sound_type"] != "speech" or draw("asked", clip["id"], 2) == 0
        for question in sap_questions(clip, vocabulary, count=1)
    ]
    records += [
        _record(clip, "transcribe", request_of("transcribe", clip["id"]), answers_of(clip)["transcribe"])
        for clip in more
    ]
    records += requests_to_speak([*clips, *more], aligner, num_spoken)
    write_json_lines(output, records)
    return len(records)


def is_for_lm(clip: Mapping[str, Any]) -> bool:
    """Whether the LM learns from a clip: English speech, sounds and music."""
    return clip.get("language") in (LANGUAGE, None)


def questions_about(
    clip: Mapping[str, Any], drawn_questions: int | None = None, num_asked: int = 1
) -> list[dict[str, Any]]:
    """Conversations about one clip.

    Args:
        clip: a training record of the tokenizer, with ``codes``.
        drawn_questions: of speech, see `write_conversations`.
        num_asked: so often is each question asked of a clip that is no speech, or of all where none are drawn; from
            the second time on of a piece of the clip.
    """
    answers = answers_of(clip)
    if clip["sound_type"] != "speech" or drawn_questions is None:
        return [
            _record(_piece(clip, number), task, request_of(task, _numbered(clip["id"], number)), answer, number)
            for number in range(1, num_asked + 1)
            for task, answer in answers.items()
        ]
    transcript = answers.pop("transcribe")
    drawn = sorted(answers, key=lambda task: draw(f"question {task}", clip["id"], 2**32))[:drawn_questions]
    records = [_record(clip, task, request_of(task, clip["id"]), answers[task]) for task in drawn]
    for number in range(1, NUM_TRANSCRIPTS + 1):
        request = request_of("transcribe", _numbered(clip["id"], number))
        records.append(_record(clip, "transcribe", request, transcript, number))
    return records


def sap_questions(
    clip: Mapping[str, Any],
    vocabulary: Vocabulary,
    *,
    count: int,
    kinds: Sequence[QuestionKind] = QUESTION_KINDS,
) -> list[Question]:
    """Some of the questions that a clip's SAP record answers, drawn by its id.

    Args:
        clip: as for `questions_about`.
        vocabulary: values to draw wrong answers from.
        count: how many.
        kinds: in which kinds.
    """
    found = questions(parse_sap(clip["sap"]), clip["id"], kinds=kinds, vocabulary=vocabulary)
    found = [question for question in found if question.field not in SAP_FIELDS_LEFT_OUT]
    found.sort(key=lambda question: draw(f"sap {question.field} {question.kind}", clip["id"], 2**32))
    return found[:count]


def request_of(task: str, key: str | None = None) -> str:
    """The request of a task in words.

    Args:
        task: one of those of `answers_of`.
        key: chooses the wording; None: the standard one.
    """
    wordings = {"gender": GENDER_QUESTIONS, "accent": ACCENT_QUESTIONS}.get(task)
    return instruction(task, key) if wordings is None else choose(task, wordings, key).text


def answers_of(clip: Mapping[str, Any]) -> dict[str, str]:
    """Task → answer, of the tasks that the clip's labels decide."""
    if clip["sound_type"] == "speech":
        voice = voice_of(clip)
        answers = {"transcribe": " ".join(clip["text"].split()), "kind": "speech"}
        if voice.given:
            answers["speaker"] = answers["describe"] = voice_sentence(voice)
        if voice.gender:
            answers["gender"] = GENDER_ANSWERS[voice.gender]
        if voice.accent:
            answers["accent"] = voice.accent
        return answers
    answers = {"kind": clip["sound_type"]}
    if clip.get("caption"):
        answers["describe"] = clip["caption"]
    if clip["sound_type"] == "sound" and clip.get("label"):
        answers["sound"] = sound_classes()[clip["label"]].name
    if clip["sound_type"] == "music" and clip.get("label"):
        answers["music"] = clip["caption"]
    return answers


def voice_of(clip: Mapping[str, Any]) -> VocalAttributes:
    """What is known of the voice: of the SAP record without its prosody, which repeats speed and pitch, and of the
    clip's own attributes."""
    sap: SapRecord = parse_sap(clip["sap"])
    spoken = sap.vocal_attributes.given if sap.vocal_attributes else {}
    stated, _ = VocalAttributes.from_record(clip.get("attributes") or {})
    return VocalAttributes(**{name: value for name, value in spoken.items() if name != "prosody"} | stated.given)


def voice_sentence(voice: VocalAttributes) -> str:
    """Who speaks and how, in one sentence with always the same words for the same voice."""
    who = {"female": "A woman", "male": "A man"}.get(voice.gender or "", "Someone")
    accent = f" with {'an' if voice.accent[0] in 'AEIOU' else 'a'} {voice.accent} accent" if voice.accent else ""
    speed = _SPEED_WORDS.get(voice.speed or "", "")
    pitch = _PITCH_WORDS.get(voice.pitch or "", "")
    return f"{who}{accent} speaks{speed}{pitch}."


def requests_to_speak(
    clips: Sequence[Mapping[str, Any]], aligner: WordAligner, num_spoken: int = 1
) -> Iterator[dict[str, Any]]:
    """Conversations in which the user asks for a text in a voice and hears it word by word; of clips of `SPEAKERS`.

    Args:
        clips: with codes.
        aligner: finds the words in them; a clip that is too short for its text is left out, with a warning.
        num_spoken: so often is each text asked for, in other words.
    """
    spoken = _to_speak(clips)
    sentences = [SpokenCodes(clip["text"], clip["codes"]) for clip in spoken]
    aligned = [
        (clip, _content_in_turns(sentence, words))
        for clip, sentence, words in zip(spoken, sentences, aligner.words(sentences), strict=True)
        if words is not None
    ]
    if len(aligned) < len(spoken):
        logger.warning("%d clips are too short for their texts and are not spoken", len(spoken) - len(aligned))
    asked, answers = [], {}
    for number in range(1, num_spoken + 1):
        for clip, content in aligned:
            own_id = _numbered(clip["id"], number)
            kept = {key: value for key, value in clip.items() if key not in ("sap", "caption", "audio")}
            asked.append(kept | {"attributes": voice_of(clip).given, "id": own_id})
            answers[f"{own_id}/{SPEAK}"] = content
    for record in speech_records(asked, SpeechTaskSettings(measure=False)) if asked else ():
        user, assistant = record["messages"]
        yield record | {"messages": [user, assistant | {"content": answers[record["id"]]}]}


def _to_speak(clips: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [
        clip for clip in clips if clip.get("speaker") in SPEAKERS and clip["duration_seconds"] <= MAX_SPOKEN_SECONDS
    ]


def _content_in_turns(sentence: SpokenCodes, word_of_code: Sequence[int]) -> list[dict[str, Any]]:
    return [
        part
        for words, codes in turns(sentence, word_of_code)
        for part in ({"type": "text", "text": words}, {"type": "audio", "codes": codes})
    ]


def _piece(clip: Mapping[str, Any], number: int) -> Mapping[str, Any]:
    """The clip, or for a repetition a piece of its codes: length and place are drawn by both."""
    codes = clip["codes"]
    if number == 1 or len(codes) <= SHORTEST_PIECE:
        return clip
    length = SHORTEST_PIECE + draw("length of a piece", _numbered(clip["id"], number), len(codes) - SHORTEST_PIECE)
    start = draw("start of a piece", _numbered(clip["id"], number), len(codes) - length + 1)
    return {**clip, "codes": codes[start : start + length]}


def _numbered(name: str, number: int) -> str:
    """The name of a repetition, which other wordings are drawn by."""
    return name if number == 1 else f"{name}#{number}"


def _record(clip: Mapping[str, Any], task: str, request: str, answer: str, number: int = 1) -> dict[str, Any]:
    content = [{"type": "audio", "codes": clip["codes"]}, {"type": "text", "text": request}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return {"id": _numbered(f"{clip['id']}/{task}", number), "task": task, "messages": messages}
