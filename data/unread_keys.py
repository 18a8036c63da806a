"""Keys of records that nothing reads: typing errors and leftovers, listed once for a whole source.

Records may hold more than what is read, so such keys are no error; but a ``transcirpt`` should not vanish in silence.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from .records import TEXT_KEYS

logger = logging.getLogger(__name__)

_MOST_LISTED = 20
_LONGEST_SHOWN = 60  # characters of a key
# What corpora, `tokenize`, `label`, `speech-data` and the makers of questions write, to tell where a record comes from.
_METADATA_KEYS = frozenset(
    (
        *("id", "task", "split", "source", "group", "licence", "attribution", "sha256", "speaker", "language"),
        *("sound_type", "label", "text", "translation", "caption", "emotion", "attributes", "sap"),
        *("audio_seconds", "audio_tokenizer", "num_samples", "sample_rate", "duration_seconds", "f0_median_hz"),
        *("prompt", "voice", "voice_wordings", "field", "kind", "template", "num_segments", "sources"),
    )
)
CONVERSATION_KEYS = _METADATA_KEYS | {"messages", "tools", "audios", "choices", "rejected"}
"""Of a conversation record: what is read, and what our own tools write beside it."""
CLIP_KEYS = _METADATA_KEYS.union(
    TEXT_KEYS,
    ("audio", "audio_filepath", "path", "bytes", "array", "sampling_rate", "offset", "duration", "codes"),
    ("vocal_attributes", "paralinguistics", "auditory_scenes", "speaker_vector"),
    ("age", "gender", "accent", "speed", "pitch", "volume", "prosody", "timbre", "speaking_style"),
)
"""Of a clip record: what any reader of clips takes, since one manifest serves several, and what our tools write."""


def unread_keys(record: Any, known: Collection[str] = CLIP_KEYS) -> list[str]:
    """The keys of a record that are not known; those whose value is null count as absent.

    Args:
        record: the record; what is no object has none.
        known: `CLIP_KEYS`, or `CONVERSATION_KEYS` for a conversation.
    """
    if not isinstance(record, Mapping):
        return []
    return [str(key) for key, value in record.items() if value is not None and key not in known]


def warn_of_unread_keys(source: str, counts: Counter[str]) -> None:
    """Lists keys that nothing reads in one warning; says nothing if there are none.

    Args:
        source: what messages call the records.
        counts: in how many records each key is.
    """
    if not counts:
        return
    (first, number), *others = counts.most_common()
    listed = [f"{_shown(first)} ({number} record{'s' if number != 1 else ''})"]
    listed += [f"{_shown(key)} ({count})" for key, count in others[: _MOST_LISTED - 1]]
    if len(counts) > _MOST_LISTED:
        listed.append(f"and {len(counts) - _MOST_LISTED} more")
    logger.warning("%s: keys that nothing reads: %s", source, ", ".join(listed))


def _shown(key: str) -> str:
    """A key as it is, unless it is blank, longer than a line or holds what a terminal would obey."""
    key = key if len(key) <= _LONGEST_SHOWN else f"{key[: _LONGEST_SHOWN - 1]}…"
    return key if key.strip() and key.isprintable() else repr(key)
