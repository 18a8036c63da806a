"""Rules that make a SAP record of the metadata of a clip: by tables, without a model that listens.

Only what a corpus states is said; what it does not state stays null. Sounds get their class, type and a sentence from
``sounds.tsv``, music a sentence made of mood, style and tempo, speech its transcript and the voice of its speaker.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from audiollm.data.corpora.clips import ClipMetadata
from audiollm.data.corpora.sources import asterisk, fillets, game_sounds, music, opensfx, sonic_pi, synthetic, tuxpaint
from audiollm.data.sap.record import SAP_ATTRIBUTES, AuditoryScene, SapRecord, SoundEvent
from audiollm.data.sap.sounds import MUSIC, SOUNDS_PATH, NoRuleError, sound_classes, sound_type_of
from audiollm.data.voices.attributes import VocalAttributes

# Who speaks, as the names of the packages' folders have it (language, region, sex): no more is known of them.
VOICES: Mapping[str, VocalAttributes] = {
    f"{asterisk.NAME}/en_US_f_Allison": VocalAttributes(age="adult", gender="female", accent="American"),
    f"{asterisk.NAME}/es_MX_f_Allison": VocalAttributes(age="adult", gender="female", accent="Mexican"),
    f"{asterisk.NAME}/fr_CA_f_June": VocalAttributes(age="adult", gender="female", accent="Canadian"),
    f"{asterisk.NAME}/it_IT_m_Carlo": VocalAttributes(age="adult", gender="male"),
    f"{asterisk.NAME}/ru_RU_f_IvrvoiceRU": VocalAttributes(age="adult", gender="female"),
}

_SLOW_BPM, _FAST_BPM = 80, 120
_ASIDE = re.compile(r"^(toyland|tropical|lumber mill): | \(.*\)$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class SapRules:
    """What the metadata of a corpus mean.

    Attributes:
        name: of the corpus.
        details: more of a sound than its class, from the clip's metadata; None where there is nothing.
    """

    name: str
    details: Callable[[Mapping[str, Any]], str | None] = lambda metadata: None

    def record(self, metadata: ClipMetadata | Mapping[str, Any]) -> SapRecord:
        """The record of a clip.

        Args:
            metadata: a clip of a corpus, or an object with its keys: ``sound_type`` (speech, sound or music; told by
                text and label where it is absent), ``text``, ``label``, ``attributes``, ``speaker``.

        Raises:
            NoRuleError: if nothing is known that a record could say.
        """
        values = dataclasses.asdict(metadata) if isinstance(metadata, ClipMetadata) else metadata
        sound_type = sound_type_of(values)
        if sound_type == "speech":
            return _speech(values)
        if sound_type == "music":
            return SapRecord(auditory_scenes=_music(values))
        if sound_type == "sound":
            return SapRecord(auditory_scenes=_sound(values, self.details(values)))
        raise NoRuleError(f"no rule for clips of type {sound_type}")


def _opensfx_details(metadata: Mapping[str, Any]) -> str | None:
    """The caption without the names of the game's climates and numbers of takes."""
    words = _ASIDE.sub("", _ASIDE.sub("", metadata.get("caption") or "")).strip()
    return words[:1].lower() + words[1:] or None


def _caption(metadata: Mapping[str, Any]) -> str | None:
    return metadata.get("caption") or None


RULES: Mapping[str, SapRules] = {
    rules.name: rules
    for rules in (
        SapRules(name="default", details=_caption),
        SapRules(name=asterisk.NAME),
        SapRules(name=opensfx.NAME, details=_opensfx_details),
        SapRules(name=sonic_pi.NAME),
        SapRules(name=music.IMMICH),
        SapRules(name=music.MOH),
        SapRules(name=game_sounds.NAME),
        SapRules(name=fillets.NAME),
        SapRules(name=tuxpaint.NAME),
        SapRules(name=synthetic.NAME),
        SapRules(name=synthetic.OPEN_NAME),
    )
}


def rules_for(corpus: str) -> SapRules:
    """The rules of a corpus; "default" fits any with the keys of `SapRules.record`.

    Raises:
        ValueError: if there are none.
    """
    if corpus not in RULES:
        raise ValueError(f"there are no rules for {corpus!r}; use one of {', '.join(RULES)}")
    return RULES[corpus]


def _speech(metadata: Mapping[str, Any]) -> SapRecord:
    text = metadata.get("text")
    if not isinstance(text, str) or not text.strip():
        raise NoRuleError("speech without text")
    voice = VOICES.get(str(metadata.get("speaker")), VocalAttributes()).only(frozenset(SAP_ATTRIBUTES))
    # What a record says itself is stronger than what is known of its speaker.
    stated, _ = VocalAttributes.from_record(metadata.get("attributes") or {})
    given = _manner(stated) | voice.given | stated.only(frozenset(SAP_ATTRIBUTES)).given
    return SapRecord(linguistic_content=" ".join(text.split()), vocal_attributes=VocalAttributes(**given))


def _manner(stated: VocalAttributes) -> dict[str, str]:
    """Speed and pitch out of the ordinary, as prosody: SAP has no fields for them."""
    words = [stated.speed] if stated.speed in ("slow", "fast") else []
    words += [f"{stated.pitch}-pitched"] if stated.pitch in ("low", "high") else []
    return {"prosody": ", ".join(words)} if words else {}


def _sound(metadata: Mapping[str, Any], details: str | None) -> AuditoryScene:
    label = metadata.get("label")
    sound = sound_classes().get(str(label))
    if sound is None:
        reason = "sound without label" if label is None else f"label {label!r} is not in {SOUNDS_PATH.name}"
        raise NoRuleError(reason)
    says_more = details is not None and details.casefold() not in (sound.name, sound.label)
    event = SoundEvent(label=sound.name, type=sound.type, attributes=details if says_more else None)
    return AuditoryScene(summary=sound.summary, events=(event,))


def _music(metadata: Mapping[str, Any]) -> AuditoryScene:
    attributes = metadata.get("attributes") or {}
    mood = _word(metadata.get("label") or attributes.get("mood"))
    style = _word(attributes.get("style") or attributes.get("genre"))
    words = " ".join(word for word in (mood, style, "music") if word)
    region = attributes.get("region")
    summary = f"{words[:1].upper()}{words[1:]}{f' from {str(region).title()}' if region else ''} is playing"
    tempo = _tempo(attributes.get("bpm"))
    if tempo:
        summary += f" at a {tempo} tempo"
    event = SoundEvent(label=MUSIC, type="persistent", attributes=mood)
    return AuditoryScene(summary=f"{summary}.", events=(event,))


def _word(value: Any) -> str | None:
    return None if value is None else str(value).replace("_", " ").lower().strip() or None


def _tempo(bpm: Any) -> str | None:
    if not isinstance(bpm, int | float) or isinstance(bpm, bool) or not bpm > 0:
        return None
    return "slow" if bpm < _SLOW_BPM else "fast" if bpm >= _FAST_BPM else "moderate"
