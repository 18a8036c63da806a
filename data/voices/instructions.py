"""A voice as an instruction in words: several paraphrases per attribute and per request, with ids that runs can record.

Training varies the words so that the model follows the description and not one string. Each wording follows from a key
(a record's id) alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from audiollm.data.prompts import Prompt
from audiollm.data.sampling import choose, draw

from .attributes import CLOSED_VALUES, FIELDS, VocalAttributes

__all__ = ["CLOSED_VALUES", "FIELDS", "SPEAK", "SPEAK_IN_VOICE", "VocalAttributes", "VoiceWords", "describe_voice",
           "speech_request", "text_of_request"]  # fmt: skip

# Wordings are only ever appended: their numbers are their ids.
SPEAK = (
    "Read this text aloud.",
    "Say the following.",
    "Speak this text.",
    "Convert the following text into speech.",
    "Please read out the text below.",
)
SPEAK_IN_VOICE = (
    "Read this text aloud. Voice: {voice}",
    "Say the following. The voice: {voice}",
    "Speak this text in this voice: {voice}",
    "Convert the following text into speech. How it should sound: {voice}",
    "Please read out the text below. Speaker: {voice}",
    "Text to speech. Description of the voice: {voice}",
    "I want to hear this text. Who speaks, and how: {voice}",
    "Read the following text out loud, please. It should sound like this: {voice}",
)

_ANYONE = "anyone"
PERSONS: dict[str, tuple[str, ...]] = {
    "female": ("a woman", "a female speaker", "a female voice"),
    "male": ("a man", "a male speaker", "a male voice"),
    "child": ("a child", "a young child", "a kid"),
    "adult": ("an adult", "a grown-up", "an adult speaker"),
    "elderly": ("an elderly person", "an old person", "a person of advanced age", "a senior"),
    "female child": ("a girl", "a little girl", "a female child"),
    "male child": ("a boy", "a little boy", "a male child"),
    "female adult": ("an adult woman", "a grown woman", "a female adult"),
    "male adult": ("an adult man", "a grown man", "a male adult"),
    "female elderly": ("an elderly woman", "an old woman", "an old lady", "a woman of advanced age"),
    "male elderly": ("an elderly man", "an old man", "an old gentleman", "a man of advanced age"),
    _ANYONE: ("someone", "a speaker", "a person", "a voice"),
}
MANNERS: dict[str, tuple[str, ...]] = {
    "emotion anger": ("angrily", "in an angry tone", "sounding angry", "furiously"),
    "emotion disgust": ("with disgust", "in a disgusted tone", "sounding disgusted"),
    "emotion fear": ("fearfully", "in a frightened tone", "sounding afraid", "full of fear"),
    "emotion happiness": ("happily", "in a cheerful tone", "sounding happy", "full of joy"),
    "emotion neutral": ("in a neutral tone", "matter-of-factly", "sounding neutral", "without emotion"),
    "emotion sadness": ("sadly", "in a sad tone", "sounding sad", "full of sorrow"),
    "emotion surprise": ("in a surprised tone", "sounding surprised", "with astonishment"),
    "speed slow": ("slowly", "speaking slowly", "at a slow pace", "unhurriedly"),
    "speed moderate": ("at a moderate pace", "at a normal speed", "at an ordinary pace"),
    "speed fast": ("quickly", "speaking fast", "at a fast pace", "rapidly"),
    "pitch low": ("with a deep voice", "low-pitched", "with a low pitch"),
    "pitch medium": ("medium-pitched", "with a medium pitch", "at an average pitch"),
    "pitch high": ("with a high voice", "high-pitched", "with a high pitch"),
}
# Of free text, a short value fits into a phrase; a longer one, which may be a clause, stands behind a colon.
FREE_PHRASES: dict[str, tuple[str, ...]] = {
    "accent": ("with {a} {value} accent", "speaking with {a} {value} accent", "{value} accent"),
    "timbre": ("with {a} {value} timbre", "of {a} {value} timbre"),
}
FREE_LABELS: dict[str, tuple[str, ...]] = {
    "accent": ("accent: {value}",),
    "prosody": ("prosody: {value}", "delivery: {value}", "rhythm and intonation: {value}"),
    "timbre": ("timbre: {value}", "voice quality: {value}"),
}
_SHORT = re.compile(r"[\w-]+(?: [\w-]+){0,2}")
_NO_ADJECTIVE = re.compile(
    r"\b(?:accent|voice|timbre|tone|quality|is|with|and|from|the|speaker)\b|^an?\b", re.IGNORECASE
)
_SOUND_LIKE_CONSONANTS = ("eu", "uk", "uni", "us")  # a European, a Ukrainian accent


@dataclass(frozen=True)
class VoiceWords:
    """A voice in words.

    Attributes:
        text: the description.
        ids: which wordings it is made of, such as ``person male elderly/0`` and ``speed slow/2``, in order.
    """

    text: str
    ids: tuple[str, ...]


def describe_voice(attributes: VocalAttributes, key: str | None = None) -> VoiceWords:
    """Puts a voice into words.

    Args:
        attributes: the voice; `VocalAttributes.from_text` finds all of it again in the words.
        key: chooses wordings and their order; None: the standard wordings in the order of the fields.

    Raises:
        ValueError: if nothing is said of the voice.
    """
    given = attributes.given
    if not given:
        raise ValueError("the voice has no attributes: give at least one, or speak without a voice")
    who = " ".join(value for name in ("gender", "age") if (value := given.get(name)))
    how = [name for name in given if name not in ("gender", "age")]
    if key is not None:
        how.sort(key=lambda name: draw(f"order {name}", key, 2**32))
    phrases = [choose(f"person {who or _ANYONE}", PERSONS[who or _ANYONE], key)]
    phrases += [_manner(name, given[name], key) for name in how]
    # A label's value may hold commas, so that phrases beside it need a stronger mark between them.
    separator = "; " if any(":" in phrase.text or "," in phrase.text for phrase in phrases) else ", "
    return VoiceWords(separator.join(phrase.text for phrase in phrases), tuple(phrase.id for phrase in phrases))


def _manner(name: str, value: str, key: str | None) -> Prompt:
    if name in CLOSED_VALUES:
        return choose(f"{name} {value}", MANNERS[f"{name} {value}"], key)
    is_short = name in FREE_PHRASES and _SHORT.fullmatch(value) is not None and not _NO_ADJECTIVE.search(value)
    templates, kind = (FREE_PHRASES[name], "phrase") if is_short else (FREE_LABELS[name], "label")
    wording = choose(f"{name} {kind}", templates, key)
    starts_with_vowel = value[0].lower() in "aeiou" and not value.lower().startswith(_SOUND_LIKE_CONSONANTS)
    article = "an" if starts_with_vowel else "a"
    return Prompt(wording.id, wording.text.format(a=article, value=value))


def speech_request(text: str, voice: str | None = None, key: str | None = None) -> tuple[str, str]:
    """What a user writes to have a text spoken: the request, an empty line, the text.

    Args:
        text: what to say.
        voice: who says it and how, in words; they are passed on as they are.
        key: chooses the wording; None: the standard one.

    Returns:
        The message and the id of its wording, ``speak/…`` or ``speak_in_voice/…``.

    Raises:
        ValueError: if the text or the voice is empty.
        TypeError: if the voice is no text.
    """
    if not text.strip():
        raise ValueError("the text to speak is empty")
    if voice is not None and not isinstance(voice, str):
        raise TypeError(f"voice={voice!r}: describe the voice in words, as in 'an elderly man, slowly'")
    if voice is not None and not voice.strip():
        raise ValueError("the voice is empty: describe it, as in 'an elderly man, slowly', or leave it out")
    wording = choose("speak", SPEAK, key) if voice is None else choose("speak_in_voice", SPEAK_IN_VOICE, key)
    request = wording.text if voice is None else wording.text.replace("{voice}", voice.strip())
    return f"{request}\n\n{text.strip()}", wording.id


def text_of_request(message: str) -> str | None:
    """The text that a message of `speech_request` asks to speak: what is behind its first empty line; None without."""
    return message.partition("\n\n")[2].strip() or None
