"""What training would never notice by itself: ids out of place, and loss on hardly anything, or on everything."""
# Shapes: S tokens of a record.

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping

import numpy as np

from audiollm.data.collation import IGNORED_LABEL
from audiollm.data.conversation.forms import IN_TURNS, SPOKEN, UNWRITTEN
from audiollm.data.conversation.types import AudioPart, Conversation
from audiollm.vocabulary import AudioVocabulary

logger = logging.getLogger(__name__)

# Below and above these shares of tokens with loss, something is likely to be wrong with the roles of the turns.
_FEWEST, _MOST = 0.01, 0.99


def out_of_place(
    token_ids_S: np.ndarray, labels_S: np.ndarray, vocabulary: AudioVocabulary, vocabulary_size: int
) -> str | None:
    """Says what is wrong with an encoded record; None if nothing is.

    Args:
        token_ids_S: its ids.
        labels_S: its targets.
        vocabulary: where audio tokens lie.
        vocabulary_size: rows of the model's embedding.
    """
    if len(labels_S) != len(token_ids_S):
        return f"{len(labels_S)} labels for {len(token_ids_S)} tokens"
    outside = (token_ids_S < 0) | (token_ids_S >= vocabulary_size)
    if outside.any():
        at = int(outside.argmax())
        return (
            f"token {at} is {token_ids_S[at]}, outside of the model's {vocabulary_size} ids: is the tokenizer its own?"
        )
    foreign = (labels_S != IGNORED_LABEL) & (labels_S != token_ids_S)
    if foreign.any():
        at = int(foreign.argmax())
        return f"label {at} is {labels_S[at]}, and the token there is {token_ids_S[at]}"
    starts, ends = token_ids_S == vocabulary.start_id, token_ids_S == vocabulary.end_id
    depth = np.cumsum(starts) - np.cumsum(ends)  # 1 within a span of audio, its start included
    misplaced = (depth < 0) | (depth > 1) | (((depth == 1) & ~starts) != _is_code(token_ids_S, vocabulary))
    if misplaced.any():
        return f"token {int(misplaced.argmax())} is audio outside of a span, or something else inside of one"
    if len(depth) and depth[-1]:
        return "its last span of audio does not end"
    return None


def count_loss(
    conversation: Conversation,
    token_ids_S: np.ndarray,
    labels_S: np.ndarray,
    vocabulary: AudioVocabulary,
    marks: Collection[int],
) -> Counter[str]:
    """Counts what of a record carries loss, and what its assistant's turns promise to teach.

    Args:
        conversation: the record.
        token_ids_S: its ids.
        labels_S: its targets.
        vocabulary: where audio tokens lie.
        marks: ids that are neither text nor audio, such as the mark that ends a turn.
    """
    is_target = labels_S != IGNORED_LABEL
    is_code = _is_code(token_ids_S, vocabulary)
    is_text = ~is_code & ~np.isin(token_ids_S, [*marks, vocabulary.start_id, vocabulary.end_id])
    parts = [part for message in conversation.messages if message.role == "assistant" for part in message.content]
    num_audio = sum(isinstance(part, AudioPart) for part in parts)
    return Counter(
        {
            "tokens": len(token_ids_S),
            "targets": int(is_target.sum()),
            "audio targets": int((is_target & is_code).sum()),
            "text targets": int((is_target & is_text).sum()),
            "audio parts": num_audio,
            "text parts": sum(bool(getattr(part, "text", "")) for part in parts),
        }
    )


def warn_of_odd_loss(source: str, counts: Mapping[str, int]) -> None:
    """Warns where hardly any or nearly all tokens carry loss, or none of a modality that the assistant's turns hold.

    Args:
        source: what the records are called.
        counts: sums of `count_loss`.
    """
    if not counts.get("tokens"):
        return
    share = counts["targets"] / counts["tokens"]
    if not _FEWEST <= share <= _MOST:
        logger.warning(
            "%s: %.2g %% of the tokens carry loss (%d of %d): is what the model shall learn said by the assistant, and "
            "the rest by others?",
            *(source, 100 * share, counts["targets"], counts["tokens"]),
        )
    for modality in ("audio", "text"):
        if counts[f"{modality} parts"] and not counts[f"{modality} targets"]:
            logger.warning(
                "%s: assistants answer in %s %d times, but no token of it carries loss",
                *(source, modality, counts[f"{modality} parts"]),
            )


def warn_of_another_form(source: str, forms: Mapping[str, int], speaks_in_turns: bool) -> None:
    """Warns where the answers in sound have another form than the one that the model will be asked for later.

    Args:
        source: what the records are called.
        forms: of their answers, or of some of them, see `audiollm.data.conversation.forms.spoken_forms`.
        speaks_in_turns: of the model, see `audiollm.modeling.AudioLLM.speaks_in_turns`.
    """
    spoken, unwritten, in_turns = forms.get(SPOKEN, 0), forms.get(UNWRITTEN, 0), forms.get(IN_TURNS, 0)
    if speaks_in_turns and unwritten:
        logger.warning(
            "%s: %d of %d answers in sound that were looked at do not write what they say, and this model is asked to "
            "speak in turns: train it on turns, or set speaks_in_turns to false in its generation_config.json",
            *(source, unwritten, spoken),
        )
    # Few of many are rather answers that play several clips.
    if not speaks_in_turns and 2 * in_turns > spoken:
        logger.warning(
            "%s: %d of %d answers in sound that were looked at write and speak in turns, and this model is not asked "
            "for that: if each word stands before its codes, set speaks_in_turns to true in its generation_config.json",
            *(source, in_turns, spoken),
        )


def warn_of_answers_unheard(source: str, forms: Mapping[str, int], why_no_sound: str | None) -> None:
    """Warns where answers are in sound, and the model's audio tokenizer cannot make sound of codes.

    Args:
        source: what the records are called.
        forms: as for `warn_of_another_form`.
        why_no_sound: of the audio tokenizer; None: it can.
    """
    if why_no_sound is not None and forms.get(SPOKEN, 0):
        logger.warning(
            "%s: answers are in sound, which the model can learn to write as codes, but nobody will hear them: %s",
            *(source, why_no_sound),
        )


def warn_of_unsigned_codes(source: str, number: int, looked_at: int) -> None:
    """Warns of codes that may be of any audio tokenizer.

    Args:
        source: what the records are called.
        number: records whose codes don't say who made them.
        looked_at: all that were looked at.
    """
    if number:
        logger.warning(
            "%s: codes in %d of %d records don't say which audio tokenizer made them, so nothing checks that it is the "
            "model's (audiollm tokenize writes it as audio_tokenizer)",
            *(source, number, looked_at),
        )


def _is_code(token_ids_S: np.ndarray, vocabulary: AudioVocabulary) -> np.ndarray:
    codes = token_ids_S - vocabulary.first_code_id
    is_code: np.ndarray = (codes >= 0) & (codes < vocabulary.codebook_size)
    return is_code
