"""What a sample of a source tells of it: tokens, targets, what cannot be used, and who made its codes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from audiollm.chat.encoded import EncodedConversation
from audiollm.data.collation import IGNORED_LABEL
from audiollm.data.conversation.forms import spoken_forms
from audiollm.data.conversation.types import AudioPart, Conversation
from audiollm.data.streaming.shuffling import Place
from audiollm.data.unread_keys import CLIP_KEYS, CONVERSATION_KEYS, unread_keys
from audiollm.processing.attached import ForeignCodesError

from .encoding import RecordProcessor, encode_each
from .sources import MixtureSource

SAMPLED_AT_ONCE = 16
MOST_REASONS = 10  # that are told of a source
NO_TARGETS = "no assistant turn to learn from"


@dataclass
class SourceSample:
    """Findings about some records of a source; those of several processes are merged with `merge`.

    Attributes:
        looked_at: records.
        usable: those that can be trained on.
        tokens: of the usable ones.
        audio_tokens: those of them that are audio.
        text_targets: tokens that a model learns to predict, of text.
        audio_targets: the same, of audio.
        answers: parts of the assistant's turns, by modality.
        forms: of its turns with sound, see `spoken_forms`.
        tasks: usable records by task.
        bad: places and what is wrong there.
        too_long: places and numbers of tokens.
        reasons: records that cannot be used, by the reason.
        made_codes: in how many records codes are of which audio tokenizer; "": they don't say.
        unread: in how many records each key is that nothing reads.
        digests: SHA-256 of ids and labels by place.
    """

    looked_at: int = 0
    usable: int = 0
    tokens: int = 0
    audio_tokens: int = 0
    text_targets: int = 0
    audio_targets: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    forms: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    bad: dict[Place, str] = field(default_factory=dict)
    too_long: dict[Place, int] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    made_codes: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    digests: dict[Place, str] = field(default_factory=dict)

    @classmethod
    def merge(cls, parts: Iterable[SourceSample]) -> SourceSample:
        """Joins what several processes found."""
        merged = cls()
        for part in parts:
            for name, value in vars(part).items():
                own = getattr(merged, name)
                if isinstance(own, Counter):
                    own.update(value)
                else:
                    setattr(merged, name, own | value if isinstance(own, dict) else own + value)
        return merged

    @property
    def tokens_per_record(self) -> float:
        """Mean length of the usable records; 0 if there are none."""
        return self.tokens / self.usable if self.usable else 0.0

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the records as the model sees them."""
        return hashlib.sha256("".join(digest for _, digest in sorted(self.digests.items())).encode()).hexdigest()


def sample_source(
    source: MixtureSource,
    places: Sequence[Place],
    processor: RecordProcessor,
    *,
    max_length: int,
    limit: str = "max_length",
) -> SourceSample:
    """Encodes some records of a source, and reports on all of them instead of stopping at the first bad one.

    Args:
        source: the source.
        places: in it.
        processor: of the Audio-LLM.
        max_length: most tokens of a usable record.
        limit: the setting that says so.
    """
    found = SourceSample()
    for start in range(0, len(places), SAMPLED_AT_ONCE):
        conversations: dict[Place, Conversation] = {}
        for place in places[start : start + SAMPLED_AT_ONCE]:
            found.looked_at += 1
            try:
                conversations[place] = source.conversation(place)
            except ValueError as error:
                found.bad[place] = str(error)
                found.reasons[reason_of(error)] += 1
                continue
            found.unread.update(_unread(source, place, conversations[place]))
            parts = conversations[place].audio_parts
            found.made_codes.update({part.audio_tokenizer or "" for part in parts if part.codes})
        encoded = encode_each(processor, list(conversations.values()))
        for (place, conversation), one in zip(conversations.items(), encoded, strict=True):
            if isinstance(one, EncodedConversation) and len(one) > max_length:
                found.too_long[place] = len(one)
                found.reasons[longer_than(limit)] += 1
            else:
                _count(found, place, conversation, one, processor)
    return found


def _unread(source: MixtureSource, place: Place, made: Conversation) -> list[str]:
    record, where, _ = source.rows.record(place)
    fields, task = source.drawn(record, where, place.epoch)
    if task in ("conversation", "text"):  # its own words, and those of other projects, are read
        return unread_keys(made.metadata, CONVERSATION_KEYS)
    read = {source.config.text_key, *(f"answer_{key}" for key in CLIP_KEYS)}
    return [key for key in unread_keys(fields, CLIP_KEYS) if key not in read]


def _count(
    found: SourceSample,
    place: Place,
    conversation: Conversation,
    encoded: EncodedConversation | ValueError,
    processor: RecordProcessor,
) -> None:
    if isinstance(encoded, ForeignCodesError):
        raise encoded
    if isinstance(encoded, ValueError):
        found.bad[place] = named(conversation, encoded)
        found.reasons[reason_of(encoded)] += 1
        return
    ids, labels = torch.tensor([encoded.token_ids, encoded.labels])
    is_audio, is_target = processor.vocabulary.is_audio(ids), labels != IGNORED_LABEL
    is_target[0] = False  # nothing predicts the first token
    if not is_target.any():
        found.bad[place] = f"{conversation.where}: {NO_TARGETS}"
        found.reasons[NO_TARGETS] += 1
        return
    frames = b"" if encoded.frames is None else encoded.frames.tobytes()
    found.digests[place] = hashlib.sha256(ids.numpy().tobytes() + labels.numpy().tobytes() + frames).hexdigest()
    found.usable += 1
    for message in conversation.messages:
        if message.role == "assistant":
            found.answers.update("audio" if isinstance(part, AudioPart) else "text" for part in message.content)
    found.forms.update(spoken_forms(conversation.messages))
    found.tasks[conversation.task or "conversation"] += 1
    found.tokens += len(ids)
    found.audio_tokens += int(is_audio.sum())
    found.audio_targets += int((is_audio & is_target).sum())
    found.text_targets += int((~is_audio & is_target).sum())


def longer_than(limit: str) -> str:
    """The reason for which a record is left out that has more tokens than a setting allows."""
    return f"longer than {limit}"


def reason_of(error: ValueError) -> str:
    """What is wrong with a record, without its place: the same for all records that share it."""
    reason = getattr(error, "reason", None)
    return reason if isinstance(reason, str) and reason else str(error)


def told_reasons(reasons: Mapping[str, int], looked_at: int) -> list[str]:
    """Why records cannot be used, the most frequent reasons first, and how many others there are.

    Args:
        reasons: how many records have which; one that quotes a value may be that of a single record.
        looked_at: records.
    """
    found = Counter(reasons).most_common()
    told = [f"{number} of {looked_at}: {reason}" for reason, number in found[:MOST_REASONS]]
    if rest := [number for _, number in found[MOST_REASONS:]]:
        told.append(f"{sum(rest)} of {looked_at}: {len(rest)} other reasons")
    return told


def named(conversation: Conversation, error: ValueError) -> str:
    """What is wrong, with the record's place in front unless it says it itself."""
    return str(error) if conversation.where in str(error) else f"{conversation.where}: {error}"
