"""What can be said of a voice: gender, age, emotion, accent, prosody, timbre, speed and pitch.

The first six are the vocal attributes of Semantic-Acoustic Primitives (UniAudio-Token, arXiv:2605.31521), of which
gender, age and emotion have closed sets of values; speed and pitch are ours and closed too.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CLOSED_VALUES: dict[str, tuple[str, ...]] = {
    "gender": ("female", "male"),
    "age": ("child", "adult", "elderly"),
    "emotion": ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
    "speed": ("slow", "moderate", "fast"),
    "pitch": ("low", "medium", "high"),
}

# Other spellings of a value, as labels of data sets have them and as people write.
_SPELLINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "gender": {
        "female": ("f", "woman", "women", "girl", "lady", "feminine", "female_feminine"),
        "male": ("m", "man", "men", "boy", "gentleman", "guy", "masculine", "male_masculine"),
    },
    "age": {
        "child": ("children", "kid", "toddler", "girl", "boy"),
        "adult": ("adults", "grown", "grown-up", "middle-aged", "twenties", "thirties", "fourties", "fifties"),
        "elderly": ("old", "aged", "senior", "advanced age", "elder", "seventies", "eighties", "nineties"),
    },
    "emotion": {
        "anger": ("angry", "angrily", "furious", "furiously", "annoyed", "irritated", "rage"),
        "disgust": ("disgusted", "disgustedly", "revolted", "contempt", "contemptuous"),
        "fear": ("fearful", "fearfully", "afraid", "frightened", "scared", "anxious", "anxiously", "terrified"),
        "happiness": ("happy", "happily", "joy", "joyful", "joyfully", "cheerful", "cheerfully", "delighted", "amused"),
        "neutral": ("neutrally", "calm", "calmly", "matter-of-factly", "without emotion", "unemotional"),
        "sadness": ("sad", "sadly", "sorrow", "sorrowful", "sorrowfully", "gloomy", "mournful", "melancholy"),
        "surprise": ("surprised", "astonished", "astonishment", "amazed", "amazement"),
    },
    "speed": {
        "slow": ("slowly", "unhurried", "unhurriedly", "leisurely"),
        "moderate": ("normal pace", "normal speed", "moderate pace", "moderate speed", "ordinary pace"),
        "fast": ("quick", "quickly", "rapid", "rapidly", "hurried", "hurriedly"),
    },
    "pitch": {
        "low": ("low-pitched", "low pitch", "deep", "deep voice"),
        "medium": ("medium-pitched", "medium pitch", "average pitch"),
        "high": ("high-pitched", "high pitch", "high voice"),
    },
}
# Words that are taken as labels only: in running text, "low", "deep" or "m" may say anything.
_NOT_IN_TEXT = {"low", "medium", "high", "deep", "moderate", "f", "m"}
_UNKNOWN = {"", "null", "none", "unknown", "n/a", "na", "other", "unspecified", "not applicable"}
_NEGATION = re.compile(r"\b(?:not|no|never|neither|nor)\s+(?:\w+\s+)?$", re.IGNORECASE)
_PHRASE = r"[\w-]+(?: [\w-]+){0,2}"  # up to three words
_FREE_FORMS = {
    "accent": rf"accent: *([^;]+)|\bwith an? ({_PHRASE}) accent\b"
    rf"|(?:^|[,;]) *(?!speaking |with )(?:an? )?({_PHRASE}) accent\b",
    "prosody": r"(?:prosody|delivery|rhythm and intonation): *([^;]+)",
    "timbre": rf"(?:timbre|voice quality): *([^;]+)|\b(?:with|of) an? ({_PHRASE}) timbre\b",
}


@dataclass(frozen=True, kw_only=True)
class VocalAttributes:
    """A voice in words; None where nothing is said.

    Attributes:
        gender: one of ``CLOSED_VALUES["gender"]``; as in all closed sets, spellings like "Woman" or "f" are understood.
        age: one of ``CLOSED_VALUES["age"]``.
        emotion: one of ``CLOSED_VALUES["emotion"]``.
        accent: free text, such as "Scottish".
        prosody: free text.
        timbre: free text.
        speed: one of ``CLOSED_VALUES["speed"]``.
        pitch: one of ``CLOSED_VALUES["pitch"]``.

    Raises:
        ValueError: if a closed attribute has a value outside its set, or a value is no string.
    """

    gender: str | None = None
    age: str | None = None
    emotion: str | None = None
    accent: str | None = None
    prosody: str | None = None
    timbre: str | None = None
    speed: str | None = None
    pitch: str | None = None

    def __post_init__(self) -> None:
        for name in FIELDS:
            value = getattr(self, name)
            object.__setattr__(self, name, _canonical(name, value))

    @property
    def given(self) -> dict[str, str]:
        """The attributes that say something, in the order of the fields."""
        return {name: value for name in FIELDS if (value := getattr(self, name)) is not None}

    def only(self, names: set[str] | frozenset[str]) -> VocalAttributes:
        """The same voice with these attributes alone."""
        return VocalAttributes(**{name: value for name, value in self.given.items() if name in names})

    @classmethod
    def from_record(cls, attributes: Mapping[str, Any]) -> tuple[VocalAttributes, dict[str, str]]:
        """Reads what it can of labels from a data set.

        Args:
            attributes: values by name; other names are not looked at. Ages may be years.

        Returns:
            The attributes, and what was left out: values of closed attributes that are in no set, by name.
        """
        known: dict[str, str] = {}
        left_out: dict[str, str] = {}
        for name in FIELDS:
            value = attributes.get(name)
            if name == "age" and value is not None and not isinstance(value, bool):
                value = _age_of_years(value)
            try:
                canonical = _canonical(name, value)
            except ValueError:
                left_out[name] = str(value)
                continue
            if canonical is not None:
                known[name] = canonical
        return cls(**known), left_out

    @classmethod
    def from_text(cls, text: str) -> VocalAttributes:
        """Reads a description in English, such as "an elderly man, slowly".

        Only what is spelt out is taken: words that contradict each other give nothing, nor do negated ones. It is for
        records and checks; a model gets the words as they are.
        """
        found: dict[str, str] = {}
        rest = text
        for name, pattern in _FREE_FORMS.items():
            match = re.search(pattern, text, re.IGNORECASE)
            if match:
                found[name] = next(group for group in match.groups() if group)
                rest = rest.replace(match.group(0), " ")
        for name, values in CLOSED_VALUES.items():
            said = {value for value in values if _is_said(rest, name, value)}
            if len(said) == 1:
                found[name] = said.pop()
        return cls(**found)


FIELDS = tuple(field.name for field in dataclasses.fields(VocalAttributes))


def _canonical(name: str, value: Any) -> str | None:
    """A value as we write it; None for one that says nothing."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{name}={value!r}: give text")
    text = " ".join(value.split()).rstrip(".")
    if text.lower() in _UNKNOWN:
        return None
    if name not in CLOSED_VALUES:
        free = _free_text(name, text)
        return None if free.lower() in _UNKNOWN else free
    for canonical in CLOSED_VALUES[name]:
        if text.lower() in (canonical, *_SPELLINGS[name][canonical]):
            return canonical
    raise ValueError(f"{name}={value!r}: use one of {', '.join(CLOSED_VALUES[name])}")


def _free_text(name: str, text: str) -> str:
    """Free text without the attribute's own name, "a Scottish accent", so that reading it again changes nothing."""
    named = rf"\s+{name}$"
    without = text.replace(";", ",")
    is_named = re.search(named, without, re.IGNORECASE) is not None
    while (shorter := re.sub(named, "", without, flags=re.IGNORECASE).rstrip(". ")) != without:
        without = shorter
    return re.sub(r"^an?\s+", "", without, flags=re.IGNORECASE) if is_named else without


def _age_of_years(value: Any) -> Any:
    """The age group of a number of years; between the groups (13 to 17, 60 to 64) none is certain."""
    is_number = isinstance(value, (int, float)) or (isinstance(value, str) and value.strip().isdecimal())
    if not is_number:
        return value
    years = float(value)
    if not math.isfinite(years) or years < 0:
        return value
    if years < 13:
        return "child"
    if 18 <= years < 60:
        return "adult"
    return "elderly" if years >= 65 else str(value)


def _is_said(text: str, name: str, value: str) -> bool:
    """Whether a description says a value of a closed attribute."""
    words = {value, *_SPELLINGS[name][value]} - _NOT_IN_TEXT
    pattern = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    matches = re.finditer(rf"(?<![\w-])(?:{pattern})(?![\w-])", text, re.IGNORECASE)
    return any(not _NEGATION.search(text[: match.start()]) for match in matches)
